"""The relay over real mutual TLS: who may do what, and that it answers only what is on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common import limits
from common.crypto.certificates import Authority, TlsKey, make_certificate_request
from common.crypto.keys import OpeningKey, SigningKey
from common.ids import StudyId
from common.protocol import monitoring_pb2 as wire
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import (
    Action,
    Decision,
    Promotion,
    Receipt,
    decision_genesis,
)
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.roster import Standing
from common.protocol.monitoring.roster_file import sign_roster
from server.site_directory import SiteDirectory
from server.storage.database import Database
from tests.lib.enrolling import CLOCK
from tests.lib.relaying import ANY_DIGEST, STUDY, Relaying, collected, submit


@pytest.fixture(scope="module")
def relaying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relaying]:
    built = Relaying(
        tmp_path_factory.mktemp("r"), sites=("east", "north", "south"), calls_per_minute_max=100_000
    )
    # What the relay does not need, it must not miss.
    for key in (built.paths.opening_key, built.paths.operator_token, built.paths.superexec_secret):
        key.rename(key.with_suffix(".away"))
    with built.running():
        yield built


def _refused(call: Any, *words: Any, **options: Any) -> tuple[str, str]:
    """Return status and number of a refused call."""
    with pytest.raises(grpc.RpcError) as caught:
        answer = call(*words, timeout=30, **options)
        if not hasattr(answer, "position"):
            list(answer)
    return caught.value.code().name, caught.value.details()


def _submit_refused(relaying: Relaying, site_id: str, envelope: bytes) -> tuple[str, str]:
    with relaying.as_site(site_id) as stub:
        return _refused(stub.Submit, wire.SubmitRequest(envelope=envelope))


def _receipt(relaying: Relaying, site_id: str, *, by: str = "board-a", at_s: int = 1) -> bytes:
    board = relaying.boards[by]
    content = Receipt(STUDY, relaying.sites[site_id].site_id, 1, ANY_DIGEST, board.board_id, at_s)
    return sign_notice(content, {by: board.signing_key})


def test_two_boards_collect_the_same_bytes_that_the_sites_sealed(relaying: Relaying) -> None:
    before = relaying.store.counts()[0]
    envelopes = [relaying.sites[name].seal(relaying.roster) for name in ("north", "east", "north")]
    for name, envelope in zip(("north", "east", "north"), envelopes, strict=True):
        with relaying.as_site(name) as stub:
            reply = stub.Submit(wire.SubmitRequest(envelope=envelope), timeout=30)
            assert reply.digest == report_digest(envelope)
    found = []
    for name in ("board-a", "board-b"):
        with relaying.as_board(name) as stub:
            found.append(collected(stub, after=before))
    assert found[0] == found[1] == list(enumerate(envelopes, before + 1))


def test_the_same_bytes_again_keep_their_position_and_are_stored_once(relaying: Relaying) -> None:
    envelope = relaying.sites["north"].seal(relaying.roster)
    with relaying.as_site("north") as stub:
        positions = {submit(stub, envelope) for _ in range(5)}
    assert len(positions) == 1
    assert relaying.store.counts()[0] == positions.pop()


def test_b2_a_site_hands_in_its_own_reports_only(relaying: Relaying) -> None:
    envelope = relaying.sites["east"].seal(relaying.roster)
    assert _submit_refused(relaying, "north", envelope) == ("PERMISSION_DENIED", "B2")
    with relaying.as_board() as board:  # nor does a board
        assert _refused(board.Submit, wire.SubmitRequest(envelope=envelope))[1] == "B2"
    with relaying.as_site("east") as stub:
        assert submit(stub, envelope)


def test_each_report_that_the_roster_does_not_allow_is_refused_with_its_number(
    relaying: Relaying,
) -> None:
    site = relaying.sites["north"]
    stranger = replace(site, signing_key=SigningKey.generate())
    good = replace(site).seal(relaying.roster)
    board = replace(relaying.roster.boards[0], sealing_key=OpeningKey.generate().sealing_key)
    other = replace(relaying.roster, boards=(board, relaying.roster.boards[1]))
    cases = {
        "B2": [stranger.seal(relaying.roster), replace(site).seal(relaying.roster, key_epoch=2)],
        "B3": [replace(site).seal(relaying.roster, roster=ANY_DIGEST)],
        "B5": [replace(site).seal(other, roster=relaying.roster.digest)],
        "B1": [b"", b"junk", good[:-1], good + b"\0", good[:4] + bytes(100)],
        "B13": [good[:4] + bytes(limits.REPORT_BYTES_MAX)],
    }
    for number, envelopes in cases.items():
        for envelope in envelopes:
            assert _submit_refused(relaying, "north", envelope)[1] == number, number
    changed = bytearray(good)
    changed[len(good) // 2] ^= 1
    assert _submit_refused(relaying, "north", bytes(changed))[1] == "B2"


def test_b11_a_report_of_a_study_that_is_not_registered_is_refused(relaying: Relaying) -> None:
    envelope = replace(relaying.sites["north"]).seal(
        relaying.roster, study_id=StudyId("unheard-of"), sequence=1
    )
    assert _submit_refused(relaying, "north", envelope) == ("FAILED_PRECONDITION", "B11")


def test_b14_a_stolen_key_fills_no_disk_and_other_studies_and_sites_go_on(tmp_path: Path) -> None:
    relaying = Relaying(tmp_path, sites=("north", "south"), reports_per_day_max=2)
    other = StudyId("other-study")
    relaying.register(other)
    north, south = relaying.sites["north"], relaying.sites["south"]
    sealed = [north.seal(relaying.roster) for _ in range(3)]
    elsewhere = replace(north, sequence=0).seal(relaying.roster, study_id=other)
    with relaying.running(), relaying.as_site("north") as stub:
        assert [submit(stub, item) for item in sealed[:2]] == [1, 2]
        refused = _refused(stub.Submit, wire.SubmitRequest(envelope=sealed[2]))
        assert refused == ("FAILED_PRECONDITION", "B14")
        assert submit(stub, elsewhere) == 3
        with relaying.as_site("south") as second:
            assert submit(second, south.seal(relaying.roster)) == 4


def test_b8_a_fork_is_refused_at_its_place_and_at_its_neighbours(relaying: Relaying) -> None:
    study = StudyId("forked")
    relaying.register(study)
    time.sleep(1.2)
    site = replace(relaying.sites["south"])
    first = site.seal(relaying.roster, study_id=study)
    twin = replace(site, sequence=0).seal(relaying.roster, study_id=study)
    gap = replace(site, sequence=2, head=ANY_DIGEST).seal(relaying.roster, study_id=study)
    wrong_first = site.seal(relaying.roster, study_id=study, sequence=1, previous=ANY_DIGEST)
    wrong_second = site.seal(relaying.roster, study_id=study, sequence=2, previous=ANY_DIGEST)
    right_second = replace(site, sequence=1, head=report_digest(first)).seal(
        relaying.roster, study_id=study
    )
    assert _submit_refused(relaying, "south", wrong_first) == ("ALREADY_EXISTS", "B8")
    with relaying.as_site("south") as stub:
        submit(stub, first)
        # A gap is taken: only boards know what they have.
        submit(stub, gap)
        for envelope in (twin, wrong_second, right_second):
            # The right second one is not what the third names as the one before it.
            assert _refused(stub.Submit, wire.SubmitRequest(envelope=envelope))[1] == "B8"


def test_a_site_that_is_suspended_from_training_reports_on_and_gets_notices(
    relaying: Relaying,
) -> None:
    site = relaying.sites["south"]
    database = Database.of(relaying.paths, relaying.enrolling.config)
    SiteDirectory(database, CLOCK).suspend(site.site_id)
    time.sleep(1.2)
    with relaying.as_site("south") as stub:
        assert submit(stub, site.seal(relaying.roster))
        assert list(stub.Notices(wire.NoticesRequest(), timeout=30))


def test_b12_a_revoked_site_is_refused_its_reports_and_gets_no_notice(tmp_path: Path) -> None:
    relaying = Relaying(tmp_path, sites=("north", "south"))
    site, first = relaying.sites["south"], relaying.roster
    revoked = replace(first.sites[1], status=Standing.REVOKED)
    second = relaying.next_roster(sites=(first.sites[0], revoked))
    with relaying.running(), relaying.as_board() as board:
        board.Publish(wire.NoticeRequest(notice=relaying.signed(second)), timeout=30)
        time.sleep(1.2)
        with relaying.as_site("south") as stub:
            request = wire.SubmitRequest(envelope=site.seal(first))
            assert _refused(stub.Submit, request)[1] == "B12"
            assert _refused(stub.Notices, wire.NoticesRequest())[1] == "B12"
        with relaying.as_site("north") as stub:
            assert list(stub.Notices(wire.NoticesRequest(), timeout=30))


def test_only_boards_of_the_roster_collect_and_publish(relaying: Relaying) -> None:
    with relaying.as_site("north") as stub:
        assert _refused(stub.Collect, wire.CollectRequest())[1] == "T3"
        request = wire.NoticeRequest(notice=_receipt(relaying, "north"))
        assert _refused(stub.Publish, request)[1] == "T3"
    relaying.boards["stranger"] = relaying._board("stranger")
    with relaying.as_board("stranger") as stub:
        assert _refused(stub.Collect, wire.CollectRequest())[1] == "T3"
        assert _refused(stub.Notices, wire.NoticesRequest())[1] == "T3"


def test_nobody_without_a_certificate_of_the_consortium_gets_an_answer(
    relaying: Relaying,
) -> None:
    key = TlsKey.generate()
    foreign = Authority.make("Another authority", TlsKey.generate(), now_s=int(time.time()))
    request = make_certificate_request(key, "north")
    certificate = foreign.issue_site_certificate(request, "north", now_s=int(time.time()))
    path = relaying.paths.home / "foreign.key"
    key.write(path)
    server = (relaying.paths.server_key.read_bytes(), relaying.paths.server_certificate)
    cases = [
        (None, None),
        (path.read_bytes(), certificate.encode()),
        (server[0], server[1].read_bytes()),  # a server's certificate is no client's
    ]
    for private, public in cases:
        with relaying.connected(private, public) as stub:
            assert _refused(stub.Notices, wire.NoticesRequest())[0] == "UNAVAILABLE"


def test_a_receipt_reaches_its_site_and_the_boards_and_no_other_site(relaying: Relaying) -> None:
    notice = _receipt(relaying, "north", at_s=5)
    with relaying.as_board() as stub:
        positions = {
            stub.Publish(wire.NoticeRequest(notice=notice), timeout=30).position for _ in range(3)
        }
    assert len(positions) == 1
    with (
        relaying.as_site("north") as north,
        relaying.as_site("east") as east,
        relaying.as_board("board-b") as board,
    ):
        seen = [
            notice in [item.notice for item in stub.Notices(wire.NoticesRequest(), timeout=30)]
            for stub in (north, board, east)
        ]
    assert seen == [True, True, False]


def test_a_notice_that_its_signers_did_not_sign_is_refused(relaying: Relaying) -> None:
    decision = Decision(
        study_id=STUDY,
        number=1,
        previous=decision_genesis("Heart network", STUDY),
        action=Action.WATCH,
        site_id=None,
        model_version=None,
        reason="a look at the calibration",
        period="2026-02",
        opened_at_s=1,
    )
    key = SigningKey.read(relaying.paths.signing_key)
    promotion = Promotion(STUDY, ANY_DIGEST, ANY_DIGEST, 1, 1)
    one, two = (dict(list(relaying.deciders.items())[:count]) for count in (1, 2))
    cases = {
        "T1": b"junk",
        "T3": sign_notice(
            Receipt(
                STUDY,
                relaying.sites["north"].site_id,
                1,
                ANY_DIGEST,
                relaying.boards["board-b"].board_id,
                1,
            ),
            {"board-b": SigningKey.generate()},
        ),
        "T4": sign_notice(decision, one),
        "T5": sign_notice(promotion, {"coordinator": key}),
    }
    with relaying.as_board() as stub:
        for number, notice in cases.items():
            assert _refused(stub.Publish, wire.NoticeRequest(notice=notice))[1] == number
        good = wire.NoticeRequest(notice=sign_notice(decision, two))
        assert stub.Publish(good, timeout=30).position
        with_body = wire.NoticeRequest(notice=good.notice, body=b"x")
        assert _refused(stub.Publish, with_body)[1] == "T5"


def test_health_is_served_to_members(relaying: Relaying) -> None:
    paths = relaying.sites["north"].paths
    credentials = grpc.ssl_channel_credentials(
        relaying.paths.ca_certificate.read_bytes(),
        paths.tls_key.read_bytes(),
        paths.certificate.read_bytes(),
    )
    with grpc.secure_channel(relaying.address, credentials) as channel:
        make: Any = health_pb2_grpc.HealthStub
        answer = make(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_new_roster_reaches_everybody_and_a_rollback_or_a_foreign_one_is_refused(
    tmp_path: Path,
) -> None:
    relaying = Relaying(tmp_path, sites=("north", "south"))
    site, first = relaying.sites["north"], relaying.roster
    suspended = replace(first.sites[1], status=Standing.SUSPENDED)
    second = relaying.next_roster(sites=(first.sites[0], suspended))
    foreign = replace(first, authority=SigningKey.generate().verify_key)
    with relaying.running(), relaying.as_board() as board:
        stranger = SigningKey.generate()
        foreign = replace(second, authority=stranger.verify_key)
        refused = {
            "O2": sign_roster(foreign, stranger),
            "O5": relaying.signed(replace(second, version=3)),
        }
        for notice in refused.values():
            # Whatever number: it is refused, and the newest roster stays what it was.
            _refused(board.Publish, wire.NoticeRequest(notice=notice))
        assert len(relaying.store.rosters()) == 1
        board.Publish(wire.NoticeRequest(notice=relaying.signed(second)), timeout=30)
        rollback = relaying.signed(replace(first, grace_s=7))
        assert _refused(board.Publish, wire.NoticeRequest(notice=rollback))[1] == "O5"
        time.sleep(1.2)
        with relaying.as_site("north") as north, relaying.as_site("south") as south:
            # Under the roster before, in its grace; and not once the site is suspended in the new.
            assert submit(north, site.seal(first))
            late = relaying.sites["south"].seal(first)
            assert _refused(south.Submit, wire.SubmitRequest(envelope=late))[1] == "B12"
            assert submit(north, site.seal(second))
            rosters = [item.notice for item in north.Notices(wire.NoticesRequest(), timeout=30)]
    assert rosters == [relaying.signed(first), relaying.signed(second)]


def test_b3_without_a_roster_nothing_is_taken(tmp_path: Path) -> None:
    relaying = Relaying(tmp_path, sites=("north",))
    with relaying.store._database.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM relay_rosters")
    envelope = relaying.sites["north"].seal(relaying.roster)
    with relaying.running():
        assert _submit_refused(relaying, "north", envelope) == ("FAILED_PRECONDITION", "B3")
