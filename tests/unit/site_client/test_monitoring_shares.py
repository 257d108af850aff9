"""A site whose plan sums over sites: its report leaves as two shares and in no other form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from common.crypto.keys import OpeningKey, SigningKey
from common.errors import LedgerError, ProtocolError
from common.ids import BoardId
from common.privacy.accountant import epsilon_of
from common.privacy.accounts import monitoring_account
from common.protocol.monitoring.chain import ChainState
from common.protocol.monitoring.check_key import CheckKey, seal_check_key
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.report_content import decode_content
from common.protocol.monitoring.report_envelope import (
    open_report,
    read_report_header,
    report_digest,
)
from common.protocol.monitoring.roster import BoardRole, MonitoringRoster, RosterBoard, Standing
from common.protocol.monitoring.roster_file import AUTHORITY
from common.protocol.monitoring.share_content import decode_share, sum_context
from common.secure_sum.check_tag import SumKey
from common.secure_sum.shares import join
from common.study.report_tensors import ReportKind, report_mechanisms, report_tensors
from site_client.monitoring.report_preview import preview_report
from site_client.release.site_limits import SiteLimits
from tests.lib.monitored_site import (
    DAY_S,
    SITE,
    MonitoredSite,
    make_monitored_site,
    monitored_plan,
    seconds,
)

KIND = ReportKind.CASE_MIX
LIMITS = """
[limits]
epsilon_per_study = 60.0
epsilon_total = 80.0
delta_total = 1e-3
cohort_size_min = 20
"""


@dataclass
class SummingSite:
    """A site and two aggregators."""

    site: MonitoredSite
    aggregators: dict[str, tuple[BoardRole, OpeningKey, SigningKey]]
    check_key: CheckKey

    def roster(self, **changes: object) -> MonitoringRoster:
        roster = self.site.roster()
        boards = [
            RosterBoard(
                BoardId(name), role, opening.sealing_key, signing.verify_key, Standing.ACTIVE
            )
            for name, (role, opening, signing) in self.aggregators.items()
        ]
        members = tuple(sorted((*roster.boards, *boards), key=lambda board: board.board_id))
        return replace(roster, boards=members, **changes)  # type: ignore[arg-type]

    def check_key_notice(self, key: CheckKey) -> bytes:
        sealed = seal_check_key(key, members=[self.site.site.keys.opening.sealing_key])
        return sign_notice(sealed, {AUTHORITY: self.site.members.authority})

    def receipt(self, envelope: bytes, name: str) -> bytes:
        header = read_report_header(envelope)
        receipt = Receipt(
            header.study_id,
            header.site_id,
            header.sequence,
            report_digest(envelope),
            BoardId(name),
            self.site.clock.seconds,
        )
        return sign_notice(receipt, {name: self.aggregators[name][2]})

    def make(self) -> np.ndarray:
        """Let the site make a report; return the counts that it logged."""
        study = self.site.monitor.study(self.site.study_id)
        asked = self.site.monitor.asked(study, "2026-02", KIND, is_late_allowed=True)
        logged = self.site.monitor.make(asked)
        return decode_content(logged.content, cells=self.cells).counts

    @property
    def cells(self) -> int:
        return sum(tensor.cells for tensor in report_tensors(self.site.plan, KIND))

    def joined(self, envelopes: list[bytes]) -> np.ndarray:
        """Return what both aggregators and the board get of this one site's shares."""
        elements = []
        for envelope, name in zip(envelopes, self.aggregators, strict=True):
            header, plaintext = open_report(
                envelope,
                verify_key=self.site.site.keys.signing.verify_key,
                opening_key=self.aggregators[name][1],
            )
            elements.append(decode_share(plaintext, header, cells=self.cells)[1])
        header = read_report_header(envelopes[0])
        context = sum_context(header.study_id, KIND, header.period, header.schema)
        return join(*elements, key=SumKey.derive(self.check_key.raw, context=context))


@pytest.fixture
def summing(tmp_path: Path) -> SummingSite:
    monitoring = {
        "sentinel_features": ["age", "systolic_bp", "sex"],
        "epsilon_per_report": 1.0,
        "patients_min": 20,
        "periods_max": 6,
        "mode": "sum",
    }
    site = make_monitored_site(tmp_path, plan=monitored_plan(monitoring=monitoring), limits=LIMITS)
    aggregators = {
        "adder-a": (BoardRole.AGGREGATOR_A, OpeningKey.generate(), SigningKey.generate()),
        "adder-b": (BoardRole.AGGREGATOR_B, OpeningKey.generate(), SigningKey.generate()),
    }
    made = SummingSite(site, aggregators, CheckKey.generate(1))
    site.begin()
    second = made.roster(version=2, previous=site.roster().digest)
    assert site.mailbox.deliver(site.signed(second)) == "taken"
    site.clock.seconds = seconds("2026-03-05")
    return made


def test_a_report_leaves_as_two_shares_one_after_the_other_that_add_to_what_was_logged(
    summing: SummingSite,
) -> None:
    site = summing.site
    counts = summing.make()
    assert site.mailbox.deliver(summing.check_key_notice(summing.check_key)) == "taken"
    (first,) = site.mailbox.outbox()
    assert site.mailbox.outbox() == (first,)
    assert site.reopened().mailbox.outbox() == (first,)
    assert site.mailbox.deliver(summing.receipt(first, "adder-a")) == "taken"
    (second,) = site.mailbox.outbox()
    headers = [read_report_header(envelope) for envelope in (first, second)]
    assert [(header.kind, header.sequence) for header in headers] == [
        ("share-a", 1),
        ("share-b", 2),
    ]
    assert headers[1].previous == report_digest(first)
    recipients = [opening.fingerprint for _, opening, _ in summing.aggregators.values()]
    assert [header.recipients for header in headers] == [(name,) for name in recipients]
    assert np.array_equal(summing.joined([first, second]), counts)
    assert site.mailbox.deliver(summing.receipt(second, "adder-b")) == "taken"
    assert site.mailbox.outbox() == ()


def test_nothing_leaves_without_a_check_key_or_an_aggregator(summing: SummingSite) -> None:
    summing.make()
    assert summing.site.mailbox.outbox() == ()
    with pytest.raises(ProtocolError, match="no check key"):
        summing.site.mailbox.leaving(summing.site.study_id)
    assert summing.site.mailbox.deliver(summing.check_key_notice(summing.check_key)) == "taken"
    assert len(summing.site.mailbox.outbox()) == 1


def test_a_check_key_of_somebody_else_or_for_somebody_else_is_refused_and_an_old_one_known(
    summing: SummingSite,
) -> None:
    deliver = summing.site.mailbox.deliver
    members = [summing.site.site.keys.opening.sealing_key]
    forged = sign_notice(
        seal_check_key(summing.check_key, members=members), {AUTHORITY: SigningKey.generate()}
    )
    assert deliver(forged) == "refused T8"
    assert deliver(summing.check_key_notice(CheckKey.generate(2))) == "taken"
    assert deliver(summing.check_key_notice(CheckKey.generate(1))) == "known"
    newest = summing.site.mailbox.check_keys.newest()
    assert newest is not None and newest.number == 2


@pytest.mark.parametrize("received", [0, 1])
def test_shares_sealed_anew_for_the_next_roster_still_belong_together(
    summing: SummingSite, received: int
) -> None:
    site = summing.site
    counts = summing.make()
    site.mailbox.deliver(summing.check_key_notice(summing.check_key))
    (first,) = site.mailbox.outbox()
    if received:
        site.mailbox.deliver(summing.receipt(first, "adder-a"))
    site.mailbox.deliver(summing.check_key_notice(CheckKey.generate(2)))
    pinned = site.mailbox.pin.roster()
    assert pinned is not None
    changes = {"version": 3, "previous": pinned.digest, "not_before_s": site.clock.seconds}
    third = summing.roster(**changes)
    assert site.mailbox.deliver(site.signed(third)) == "taken"
    site.clock.seconds += 60 * DAY_S
    shares = [first]
    if not received:
        (shares[0],) = site.mailbox.outbox()
        assert shares[0] != first
        assert read_report_header(shares[0]).roster == third.digest
        site.mailbox.deliver(summing.receipt(shares[0], "adder-a"))
    (second,) = site.mailbox.outbox()
    assert read_report_header(second).roster == third.digest
    assert read_report_header(second).previous == report_digest(shares[0])
    assert np.array_equal(summing.joined([*shares, second]), counts)


@pytest.mark.parametrize("received", [0, 1])
def test_no_aggregator_gets_both_shares_when_a_roster_lets_them_change_places(
    summing: SummingSite, received: int
) -> None:
    site = summing.site
    summing.make()
    site.mailbox.deliver(summing.check_key_notice(summing.check_key))
    (first,) = site.mailbox.outbox()
    if received:
        site.mailbox.deliver(summing.receipt(first, "adder-a"))
    (role_a, _, signing_a), (role_b, opening_b, signing_b) = summing.aggregators.values()
    changed = {  # a new key is no new party
        "adder-a": (role_b, OpeningKey.generate(), signing_a),
        "adder-b": (role_a, opening_b, signing_b),
    }
    pinned = site.mailbox.pin.roster()
    assert pinned is not None
    third = replace(summing, aggregators=changed).roster(
        version=3, previous=pinned.digest, not_before_s=site.clock.seconds
    )
    old = [board for board in pinned.boards if board.board_id == "adder-a"]
    retired = [replace(board, status=Standing.REVOKED) for board in old]
    boards = sorted(
        (*third.boards, *retired), key=lambda board: (board.board_id, board.sealing_key.fingerprint)
    )
    third = replace(third, boards=tuple(boards))
    assert site.mailbox.deliver(site.signed(third)) == "taken"
    site.clock.seconds += 60 * DAY_S
    with pytest.raises(ProtocolError, match="had the other share"):
        site.mailbox.leaving(site.study_id)
    assert site.mailbox.outbox() == ()


def test_a_preview_of_a_sum_names_the_aggregators_and_the_size_of_both_shares(
    summing: SummingSite,
) -> None:
    site = summing.site
    study = site.monitor.study(site.study_id)
    request = site.monitor.asked(study, "2026-02", KIND, is_late_allowed=True)
    preview = preview_report(
        request,
        patients=None,
        limits=SiteLimits(epsilon_per_study=60.0, epsilon_total=80.0, delta_total=1e-3),
        roster=site.mailbox.pin.roster(),
        is_charged=False,
        is_made=False,
        is_withheld=False,
        late_s=None,
    )
    assert preview.receivers == ("adder-a", "adder-b")
    assert "over at least 5 sites" in " ".join(preview.sentences())
    summing.make()
    site.mailbox.deliver(summing.check_key_notice(summing.check_key))
    site.mailbox.outbox()
    sealed = site.mailbox.chain.sealed(site.study_id)
    assert preview.content_bytes == sum(item.header.body_bytes for item in sealed)


@pytest.mark.parametrize("received", [0, 1])
def test_a_replaced_share_that_its_aggregator_holds_stands_again_with_the_one_behind_it(
    summing: SummingSite, received: int
) -> None:
    site = summing.site
    counts = summing.make()
    site.mailbox.deliver(summing.check_key_notice(summing.check_key))
    (first,) = site.mailbox.outbox()
    shares = [first]
    if received:
        site.mailbox.deliver(summing.receipt(first, "adder-a"))
        shares += site.mailbox.outbox()
    pinned = site.mailbox.pin.roster()
    assert pinned is not None
    changes = {"version": 3, "previous": pinned.digest, "not_before_s": site.clock.seconds}
    assert site.mailbox.deliver(site.signed(summing.roster(**changes))) == "taken"
    site.clock.seconds += 60 * DAY_S
    (anew,) = site.mailbox.outbox()
    assert anew not in shares
    held = len(shares)
    assert site.mailbox.deliver(summing.receipt(shares[-1], ("adder-a", "adder-b")[held - 1])) == (
        "taken"
    )
    chain = site.mailbox.chain.sealed(site.study_id)
    assert [item.envelope for item in chain[:held]] == shares
    if not received:
        shares += site.mailbox.outbox()
        assert read_report_header(shares[1]).previous == report_digest(first)
        assert site.mailbox.deliver(summing.receipt(shares[1], "adder-b")) == "taken"
    assert site.mailbox.outbox() == ()
    assert np.array_equal(summing.joined(shares), counts)


def test_the_site_is_charged_for_its_own_noise_alone(summing: SummingSite) -> None:
    summing.make()
    ledger, plan = summing.site.site.records.ledger, summing.site.plan
    account = monitoring_account(summing.site.study_id)
    spent = ledger.spent(account, plan.privacy.delta).epsilon
    alone = epsilon_of(report_mechanisms(plan, KIND), delta=plan.privacy.delta)
    assert spent == pytest.approx(alone)


def test_a_share_of_a_report_that_was_not_logged_is_not_sealed(summing: SummingSite) -> None:
    summing.make()
    site = summing.site
    site.mailbox.deliver(summing.check_key_notice(summing.check_key))
    (logged,) = site.site.records.log.reports()
    other = replace(logged, content=logged.content[:-1] + b"\x01")
    roster = site.mailbox.pin.roster()
    assert roster is not None
    with pytest.raises(LedgerError):
        site.mailbox._seal(site.study_id, other, roster, ChainState.start(site.study_id, SITE))
    assert site.mailbox.chain.sealed(site.study_id) == ()
