"""Attacks on monitoring reports between a site and a board, named after what the attacker does.

The attacker has the whole network and every public key; each test says what else he has. The
receiver is what relay and board are made of: the roster's checks, the chain, the opening.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common import limits
from common.canonical import digest_bytes
from common.crypto.keys import X25519_SUITE, AnyOpeningKey, SigningKey
from common.crypto.sealing import seal
from common.crypto.signing import sign
from common.errors import SealError
from common.ids import Digest, SiteId, StudyId
from common.protocol.frames import join_frames, split_frames
from common.protocol.monitoring.chain import (
    ChainState,
    check_chain,
    has_receipts,
)
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.report_content import encode_content
from common.protocol.monitoring.report_envelope import MAGIC, open_report, report_digest
from common.protocol.monitoring.report_header import (
    ReportHeader,
    decode_header,
    encode_header,
    genesis,
)
from common.protocol.monitoring.roster import MonitoringRoster, Standing
from tests.lib.galois import same_ciphertext_for_two_keys
from tests.lib.monitoring import (
    AUDITOR,
    BOARD,
    NORTH,
    NOW_S,
    OPENING_KEYS,
    SITE_KEYS,
    SOUTH,
    STUDY,
    make_content,
    make_notices,
    make_report,
    make_roster,
    next_roster,
    opening_key,
    refused,
    rotated,
    signing_key,
    with_site,
)

ROSTER = make_roster()
BOARD_KEY = OPENING_KEYS[BOARD]
AUDITOR_KEY = OPENING_KEYS[AUDITOR]
STRANGER = signing_key(99)


@dataclass
class Receiver:
    """What a board keeps: the rosters, and each chain with the digests it holds."""

    roster: MonitoringRoster = ROSTER
    earlier: tuple[MonitoringRoster, ...] = ()
    study: StudyId = STUDY
    chains: dict[SiteId, ChainState] = field(default_factory=dict)
    held: dict[tuple[SiteId, int], Digest] = field(default_factory=dict)

    def receive(self, envelope: bytes, *, at_s: int = NOW_S + 100) -> ReportHeader:
        header = check_report(envelope, roster=self.roster, arrived_at_s=at_s, earlier=self.earlier)
        state = self.chains.get(header.site_id, ChainState.start(self.study, header.site_id))
        digest, place = report_digest(envelope), (header.site_id, header.sequence)
        state = check_chain(header, digest, state, held=self.held.get(place))
        self.chains[header.site_id], self.held[place] = state, digest
        return header


def open_at_board(envelope: bytes, key: AnyOpeningKey = BOARD_KEY) -> bytes:
    return open_report(envelope, verify_key=SITE_KEYS[NORTH].verify_key, opening_key=key)[1]


def chain_of(number: int) -> list[bytes]:
    """Return the first reports of site north."""
    envelopes: list[bytes] = []
    previous = genesis(STUDY, NORTH)
    for sequence in range(1, number + 1):
        envelopes.append(make_report(ROSTER, sequence=sequence, previous=previous))
        previous = report_digest(envelopes[-1])
    return envelopes


def parts_of(envelope: bytes) -> list[bytes]:
    return [bytes(part) for part in split_frames(envelope[len(MAGIC) :], count=4)]


def signed_by(key: SigningKey, head: bytes, body: bytes, stanzas: bytes) -> bytes:
    signature = sign(key, "report", head, body, stanzas)
    return join_frames([head, body, stanzas, signature], magic=MAGIC)


def with_header(envelope: bytes, **changes: object) -> ReportHeader:
    header = decode_header(parts_of(envelope)[0])
    return replace(header, **changes)  # type: ignore[arg-type]


# The relay, which has no key.


def test_a_replayed_report_is_refused() -> None:
    receiver, reports = Receiver(), chain_of(2)
    receiver.receive(reports[0])
    refused("B7", receiver.receive, reports[0])
    receiver.receive(reports[1])
    for report in reports:
        refused("B7", receiver.receive, report)


def test_a_replay_from_before_what_is_still_held_is_refused() -> None:
    receiver, reports = Receiver(), chain_of(3)
    for report in reports:
        receiver.receive(report)
    receiver.held.clear()
    refused("B7", receiver.receive, reports[0])
    refused("B7", receiver.receive, reports[2])
    fork = make_report(ROSTER, sequence=3, previous=report_digest(reports[1]))
    refused("B8", receiver.receive, fork)


def test_a_suppressed_report_leaves_a_gap_that_is_seen_and_can_be_filled() -> None:
    receiver, (first, second, third, fourth) = Receiver(), chain_of(4)
    receiver.receive(first)
    refused("B9", receiver.receive, third)
    receiver.receive(second)
    for late in (third, fourth):
        receiver.receive(late)
    assert receiver.chains[NORTH].head == report_digest(fourth)


def test_a_site_does_not_go_on_while_its_newest_report_has_no_receipt() -> None:
    state = ChainState(STUDY, NORTH, 1, report_digest(chain_of(1)[0]))
    receipt = replace(make_notices().receipt, head=state.head)
    also = replace(receipt, board_id=AUDITOR)
    other_study = replace(also, study_id=StudyId("other"))
    earlier = replace(also, sequence=2)
    for receipts, is_enough in (
        ([], False),
        ([receipt], False),
        ([receipt, receipt], False),
        ([receipt, other_study, earlier], False),
        ([receipt, also], True),
    ):
        found = has_receipts(receipts, state=state, recipients=2, required=2)
        assert found is is_enough
    assert has_receipts([receipt], state=state, recipients=1, required=2)


def test_a_relay_rolled_back_to_an_older_state_cannot_make_a_site_fork() -> None:
    # Its boards have lost report 2 and sign report 1 again: the site waits, and resends the same.
    first, second = chain_of(2)
    state = ChainState(STUDY, NORTH, 2, report_digest(second))
    old = replace(make_notices().receipt, head=report_digest(first))
    assert not has_receipts([old], state=state, recipients=1, required=1)


def test_a_board_that_holds_another_report_of_this_site_stops_the_site() -> None:
    state = ChainState(STUDY, NORTH, 1, report_digest(chain_of(1)[0]))
    receipt = make_notices().receipt
    refused("B8", lambda: has_receipts([receipt], state=state, recipients=1, required=1))


def test_an_edited_header_does_not_verify() -> None:
    report = make_report(ROSTER)
    _, body, stanzas, signature = parts_of(report)
    for changes in (
        {"period": "2026-03"},
        {"kind": "case-mix"},
        {"sequence": 2},
        {"model_version": Digest("0" * 64)},
        {"commitment": Digest("0" * 64)},
        {"sealed_at_s": NOW_S},
    ):
        head = encode_header(with_header(report, **changes))
        changed = join_frames([head, body, stanzas, signature], magic=MAGIC)
        refused("B2", Receiver().receive, changed)


@pytest.mark.parametrize("where", ["header", "body", "stanzas", "signature", "magic", "one byte"])
def test_a_truncated_report_is_refused(where: str) -> None:
    report = make_report(ROSTER)
    sizes = [len(part) for part in parts_of(report)]
    ends = {
        "magic": 3,
        "header": 4 + 8 + sizes[0] // 2,
        "body": 4 + 8 + sizes[0] + 8 + sizes[1] // 2,
        "stanzas": len(report) - 8 - 64 - sizes[2] // 2,
        "signature": len(report) - 32,
        "one byte": len(report) - 1,
    }
    refused("B1", lambda: Receiver().receive(report[: ends[where]]))


def test_a_dropped_receiver_does_not_verify() -> None:
    report = make_report(ROSTER)
    head, body, stanzas, signature = parts_of(report)
    left = decode_header(head).recipients[:1]
    changed = join_frames(
        [
            encode_header(with_header(report, recipients=left)),
            body,
            stanzas[: len(stanzas) // 2],
            signature,
        ],
        magic=MAGIC,
    )
    refused("B2", Receiver().receive, changed)
    cut = join_frames([head, body, stanzas[: len(stanzas) // 2], signature], magic=MAGIC)
    refused("B1", Receiver().receive, cut)


def test_exchanged_stanzas_do_not_verify_and_would_not_open() -> None:
    report = make_report(ROSTER)
    head, body, stanzas, signature = parts_of(report)
    half = len(stanzas) // 2
    exchanged = stanzas[half:] + stanzas[:half]
    changed = join_frames([head, body, exchanged, signature], magic=MAGIC)
    refused("B2", Receiver().receive, changed)
    refused("B5", lambda: open_at_board(signed_by(SITE_KEYS[NORTH], head, body, exchanged)))


def test_a_report_of_one_study_cannot_be_replayed_in_another() -> None:
    report = make_report(ROSTER)
    refused("B11", lambda: Receiver(study=StudyId("other-study")).receive(report))
    head, body, stanzas, signature = parts_of(report)
    head = encode_header(with_header(report, study_id=StudyId("other-study")))
    changed = join_frames([head, body, stanzas, signature], magic=MAGIC)
    refused("B2", lambda: Receiver(study=StudyId("other-study")).receive(changed))
    # Not even the site itself could move the sealed content there.
    again = signed_by(SITE_KEYS[NORTH], head, body, stanzas)
    with pytest.raises(SealError):
        open_at_board(again)


def test_a_report_cannot_follow_the_chain_of_another_study_or_site() -> None:
    for other in (genesis(StudyId("other"), NORTH), genesis(STUDY, SOUTH)):
        report = make_report(ROSTER, previous=other)
        refused("B8", Receiver().receive, report)


def test_an_oversized_report_is_refused_before_it_is_read() -> None:
    refused("B13", lambda: Receiver().receive(bytes(limits.REPORT_BYTES_MAX + 1)))
    refused("B13", lambda: make_report(ROSTER, content=bytes(limits.REPORT_BYTES_MAX)))


def test_a_header_that_states_a_huge_body_is_refused_before_anything_is_opened() -> None:
    report = make_report(ROSTER)
    head, body, stanzas, signature = parts_of(report)
    head = encode_header(with_header(report, body_bytes=limits.REPORT_BYTES_MAX))
    changed = join_frames([head, body, stanzas, signature], magic=MAGIC)
    refused("B1", Receiver().receive, changed)


# Another site, which has its own signing key.


def test_a_report_stripped_and_signed_by_another_site_does_not_open() -> None:
    report = make_report(ROSTER)
    _, body, stanzas, _ = parts_of(report)
    mine = with_header(report, site_id=SOUTH, previous=genesis(STUDY, SOUTH))
    stolen = signed_by(SITE_KEYS[SOUTH], encode_header(mine), body, stanzas)
    Receiver().receive(stolen)  # it may take a place in the thief's own chain ...
    with pytest.raises(SealError) as caught:  # ... but tells nothing
        open_report(stolen, verify_key=SITE_KEYS[SOUTH].verify_key, opening_key=BOARD_KEY)
    assert caught.value.number == "B5"


def test_another_site_cannot_sign_in_this_sites_name() -> None:
    refused("B2", lambda: Receiver().receive(make_report(ROSTER, key=SITE_KEYS[SOUTH])))


def test_a_stranger_is_no_site() -> None:
    report = make_report(ROSTER, site_id=SiteId("nowhere"), key=STRANGER)
    refused("B2", Receiver().receive, report)


# The site itself, which has its signing key.


def test_a_forked_chain_is_refused() -> None:
    receiver, (first, second) = Receiver(), chain_of(2)
    receiver.receive(first)
    receiver.receive(second)
    other = make_report(ROSTER, sequence=2, previous=report_digest(first))
    refused("B8", receiver.receive, other)
    refused("B8", lambda: receiver.receive(make_report(ROSTER)))


def test_a_report_that_rolls_the_chain_back_is_refused() -> None:
    receiver, (first, second) = Receiver(), chain_of(2)
    receiver.receive(first)
    receiver.receive(second)
    for previous in (report_digest(first), genesis(STUDY, NORTH)):
        report = make_report(ROSTER, sequence=3, previous=previous)
        refused("B8", receiver.receive, report)


def test_a_site_cannot_show_two_receivers_different_reports() -> None:
    # AES-GCM does not commit to its key: this body opens under two keys, to two plaintexts.
    plaintext = encode_content(make_content())
    report = make_report(ROSTER)
    fingerprints = decode_header(parts_of(report)[0]).recipients
    keys = {key.fingerprint: key for key in OPENING_KEYS.values()}
    first_key, second_key, salt = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
    commitment = digest_bytes("report-commitment", salt, plaintext)
    head = encode_header(with_header(report, commitment=commitment))
    bound = digest_bytes("report-header", head).encode()
    body = same_ciphertext_for_two_keys(plaintext, first_key, second_key, aad=bound)
    for content_key in (first_key, second_key):
        AESGCM(content_key).decrypt(bytes(12), body, bound)  # both open
    stanzas = b"".join(
        seal(
            content_key + salt,
            to=keys[name].sealing_key,
            label="report",
            context=bound + name.encode(),
        )
        for content_key, name in zip((first_key, second_key), fingerprints, strict=True)
    )
    shown = signed_by(SITE_KEYS[NORTH], head, body, stanzas)
    Receiver().receive(shown)
    for name in fingerprints:
        refused("B6", open_at_board, shown, keys[name])


def test_a_receiver_can_prove_what_the_site_reported() -> None:
    # Both receivers open the same plaintext, so either can show it with the signed commitment.
    report = make_report(ROSTER)
    assert open_at_board(report, BOARD_KEY) == open_at_board(report, AUDITOR_KEY)


def test_a_site_cannot_leave_out_a_receiver() -> None:
    boards = [board.sealing_key for board in ROSTER.active_boards()]
    refused("B5", lambda: Receiver().receive(make_report(ROSTER, recipients=boards[:1])))


def test_a_site_cannot_add_a_receiver() -> None:
    boards = [board.sealing_key for board in ROSTER.active_boards()]
    report = make_report(ROSTER, recipients=[*boards, opening_key(77).sealing_key])
    refused("B5", Receiver().receive, report)


def test_a_suspended_site_is_refused() -> None:
    roster = replace(ROSTER, sites=with_site(ROSTER, NORTH, status=Standing.SUSPENDED))
    refused("B12", lambda: Receiver(roster).receive(make_report(roster)))


def test_a_weaker_suite_is_refused_though_both_ends_know_it() -> None:
    weak = [opening_key(seed, X25519_SUITE) for seed in (6, 7)]
    report = make_report(ROSTER, recipients=[key.sealing_key for key in weak])
    refused("B4", Receiver().receive, report)
    allowed = make_roster(suite=X25519_SUITE)
    Receiver(allowed).receive(make_report(allowed))


def test_a_suite_that_the_newest_roster_forbids_is_refused_in_the_grace_of_the_last() -> None:
    weak = make_roster(suite=X25519_SUITE)
    strong = next_roster(weak, suites=(2,), boards=ROSTER.boards)
    receiver = Receiver(strong, earlier=(weak,))
    refused("B4", lambda: receiver.receive(make_report(weak), at_s=strong.not_before_s + 1))


def test_an_unknown_suite_is_refused_and_never_guessed() -> None:
    report = make_report(ROSTER)
    _, body, stanzas, _ = parts_of(report)
    head = encode_header(with_header(report, suite=3))
    refused("B4", lambda: Receiver().receive(signed_by(SITE_KEYS[NORTH], head, body, stanzas)))


def test_a_site_cannot_claim_another_key_epoch_with_its_own_key() -> None:
    refused("B2", Receiver().receive, make_report(ROSTER, key_epoch=2))


# A thief of a key.


def test_a_revoked_site_is_refused() -> None:
    revoked = next_roster(ROSTER, sites=with_site(ROSTER, NORTH, status=Standing.REVOKED))
    for named in (ROSTER, revoked):
        receiver = Receiver(revoked, earlier=(ROSTER,))
        report = make_report(named)
        refused("B12", receiver.receive, report)


def test_a_revoked_key_is_refused_under_a_roster_in_its_grace_though_the_site_has_a_new_one() -> (
    None
):
    revoked = next_roster(ROSTER, sites=with_site(ROSTER, NORTH, status=Standing.REVOKED))
    new = signing_key(50)
    renewed = next_roster(
        revoked, sites=with_site(ROSTER, NORTH, verify_key=new.verify_key, key_epoch=2)
    )
    receiver = Receiver(renewed, earlier=(ROSTER, revoked))
    refused("B12", lambda: receiver.receive(make_report(ROSTER)))
    receiver.receive(make_report(renewed, key=new, key_epoch=2))


def test_after_a_rotation_the_chain_goes_on_and_the_old_key_counts_only_in_its_grace() -> None:
    new = signing_key(50)
    roster = rotated(ROSTER, new)
    receiver, (first, second) = Receiver(), chain_of(2)
    receiver.receive(first)
    receiver.roster, receiver.earlier = roster, (ROSTER,)
    end_s = roster.not_before_s + roster.grace_s
    refused("B3", lambda: receiver.receive(second, at_s=end_s + 1))
    receiver.receive(second, at_s=end_s)
    third = {"sequence": 3, "previous": report_digest(second)}
    refused("B2", lambda: receiver.receive(make_report(roster, **third)))
    refused("B2", lambda: receiver.receive(make_report(roster, key_epoch=2, **third)))
    receiver.receive(make_report(roster, key=new, key_epoch=2, **third))


def test_a_roster_that_is_over_admits_no_report() -> None:
    # Whoever withholds a new roster, which may revoke a key, gains no more than this time.
    report = make_report(ROSTER)
    refused("B3", lambda: Receiver().receive(report, at_s=ROSTER.not_after_s + 1))
    Receiver().receive(report, at_s=ROSTER.not_after_s)


def test_a_report_under_a_roster_that_is_not_held_is_refused() -> None:
    report = make_report(next_roster(ROSTER))
    refused("B3", Receiver().receive, report)
    last = next_roster(next_roster(ROSTER))
    refused("B3", lambda: Receiver(last, earlier=(ROSTER,)).receive(make_report(ROSTER)))
