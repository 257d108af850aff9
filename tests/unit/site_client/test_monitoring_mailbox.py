"""What the courier gets and brings: a chain of envelopes; receipts, rosters, models, decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.crypto.keys import OpeningKey, SigningKey
from common.errors import EnrolmentError, LedgerError, ProtocolError
from common.ids import BoardId, StudyId
from common.protocol.monitoring.chain import ChainState, check_chain
from common.protocol.monitoring.notice_codec import read_notice, sign_notice
from common.protocol.monitoring.notices import Action, Receipt
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.report_content import check_content
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.roster import RosterBoard, Standing
from common.study.plan_file import plan_digest
from common.study.report_tensors import ReportKind, schema_digest
from site_client.monitoring.waiting_notices import WAITING_MAX
from tests.lib.monitored_site import (
    DAY_S,
    Members,
    MonitoredSite,
    make_monitored_site,
    monitored_plan,
    seconds,
    some_model,
    write_visits,
)


@pytest.fixture
def site(tmp_path: Path) -> MonitoredSite:
    made = make_monitored_site(tmp_path)
    made.begin()
    made.clock.seconds = seconds("2026-03-05")
    return made


def _make(site: MonitoredSite, label: str, kind: ReportKind = ReportKind.CASE_MIX) -> None:
    study = site.monitor.study(site.study_id)
    site.monitor.make(site.monitor.asked(study, label, kind, is_late_allowed=True))


def test_reports_leave_one_after_another_each_when_the_one_before_has_its_receipt(
    tmp_path: Path,
) -> None:
    site = make_monitored_site(
        tmp_path,
        write_data=lambda place: write_visits(place / "patients.csv", patients=1500),
        now="2026-01-29",
    )
    site.begin()
    site.clock.seconds = seconds("2026-03-05")
    for kind in (ReportKind.REFERENCE, ReportKind.OUTCOME):
        _make(site, "reference" if kind is ReportKind.REFERENCE else "2026-01", kind)
    _make(site, "2026-02")
    roster = site.mailbox.pin.roster()
    assert roster is not None
    state = ChainState.start(site.study_id, roster.sites[0].site_id)
    seen = []
    for _ in range(3):
        (envelope,) = site.mailbox.outbox()
        assert site.mailbox.outbox() == (envelope,)  # the same bytes until the receipt
        header = check_report(envelope, roster=roster, arrived_at_s=site.clock.seconds)
        state = check_chain(header, report_digest(envelope), state)
        header, content = site.opened(envelope)
        check_content(header, content)
        assert header.schema == schema_digest(site.plan, content.kind)
        seen.append((header.sequence, header.kind, header.period))
        site = site.reopened()
        assert site.mailbox.deliver(site.receipt(envelope)) == "taken"
        assert site.mailbox.deliver(site.receipt(envelope)) == "known"
    assert seen == [
        (1, "reference", "reference"),
        (2, "outcome", "2026-01"),
        (3, "case-mix", "2026-02"),
    ]
    assert site.mailbox.outbox() == ()


def test_an_envelope_names_the_model_that_scored_even_when_another_is_promoted_since(
    site: MonitoredSite,
) -> None:
    model = site.monitor.study(site.study_id).model.promotion.model_version
    _make(site, "2026-02")
    other = some_model(site.plan, seed=8)
    assert site.mailbox.deliver(site.promotion(other, sequence=2), other) == "taken"
    (envelope,) = site.mailbox.outbox()
    assert site.opened(envelope)[0].model_version == model


def test_two_receipts_are_waited_for_where_the_roster_wants_two(site: MonitoredSite) -> None:
    first = site.mailbox.pin.roster()
    assert first is not None
    second_key, second = SigningKey.generate(), OpeningKey.generate()
    board = replace(
        first.boards[0],
        board_id=BoardId("board-2"),
        sealing_key=second.sealing_key,
        verify_key=second_key.verify_key,
    )
    roster = replace(
        first,
        version=2,
        previous=first.digest,
        boards=(*first.boards, board),
        receipts_required=2,
    )
    assert site.mailbox.deliver(site.signed(roster)) == "taken"
    _make(site, "2026-02")
    _make(site, "2026-01")
    (envelope,) = site.mailbox.outbox()
    assert site.mailbox.deliver(site.receipt(envelope)) == "taken"
    assert site.mailbox.outbox() == (envelope,)
    site.members.board, old = second_key, site.members.board
    other = site.receipt(envelope).replace(b"board-1", b"board-2")
    assert site.mailbox.deliver(other).startswith("refused")  # signed as board-1, says board-2
    site.members.board = old


def test_a_receipt_for_other_bytes_stops_the_chain_and_says_that_somebody_forked_it(
    site: MonitoredSite,
) -> None:
    _make(site, "2026-02")
    (envelope,) = site.mailbox.outbox()
    assert site.mailbox.deliver(site.receipt(envelope, head=report_digest(b"x"))) == "taken"
    assert site.mailbox.outbox() == ()
    with pytest.raises(ProtocolError) as caught:
        site.mailbox.leaving(site.study_id)
    assert caught.value.number == "B8"


def test_a_site_whose_state_was_set_back_reports_no_more(site: MonitoredSite) -> None:
    _make(site, "2026-02")
    (envelope,) = site.mailbox.outbox()
    assert site.mailbox.deliver(site.receipt(envelope, sequence=4)) == "taken"
    assert site.mailbox.outbox() == ()
    with pytest.raises(ProtocolError, match="forgotten"):
        site.mailbox.leaving(site.study_id)


@pytest.mark.parametrize(
    "lie", [{"sequence": 4}, {"head": report_digest(b"x")}], ids=["forgotten", "forked"]
)
def test_what_a_stolen_board_key_signed_stops_nothing_once_the_roster_has_revoked_it(
    site: MonitoredSite, lie: dict[str, Any]
) -> None:
    _make(site, "2026-02")
    (envelope,) = site.mailbox.outbox()
    assert site.mailbox.deliver(site.receipt(envelope, **lie)) == "taken"
    assert site.mailbox.outbox() == ()
    first = site.mailbox.pin.roster()
    assert first is not None
    stolen = replace(first.boards[0], status=Standing.REVOKED)
    other = replace(
        first.boards[0],
        board_id=BoardId("board-2"),
        sealing_key=OpeningKey.generate().sealing_key,
        verify_key=SigningKey.generate().verify_key,
    )
    roster = replace(first, version=2, previous=first.digest, boards=(stolen, other))
    assert site.mailbox.deliver(site.signed(roster)) == "taken"
    assert len(site.mailbox.outbox()) == 1


def test_a_receipt_of_a_stranger_or_before_the_roster_moves_nothing(
    site: MonitoredSite, tmp_path: Path
) -> None:
    _make(site, "2026-02")
    (envelope,) = site.mailbox.outbox()
    receipt = site.receipt(envelope)
    site.members.board = SigningKey.generate()
    assert site.mailbox.deliver(site.receipt(envelope)) == "refused T3"
    fresh = make_monitored_site(tmp_path / "fresh")
    assert fresh.mailbox.deliver(receipt) == "later"


def test_rosters_follow_each_other_and_an_older_one_never_comes_back(site: MonitoredSite) -> None:
    first = site.mailbox.pin.roster()
    assert first is not None
    second = replace(first, version=2, previous=first.digest)
    third = replace(second, version=3, previous=second.digest)
    assert site.mailbox.deliver(site.signed(third)) == "later"  # the second is missing
    assert site.mailbox.pin.roster() == first
    assert site.mailbox.deliver(site.signed(second)) == "taken"
    assert site.reopened().mailbox.pin.roster() == third  # it waited
    for old in (first, second, third):
        assert site.mailbox.deliver(site.signed(old)) in ("known", "refused O5")
    other = replace(second, grace_s=5)
    assert site.mailbox.deliver(site.signed(other)) in ("known", "refused O5")
    assert site.mailbox.pin.roster() == third


def test_versions_that_ended_while_the_site_was_away_are_taken_with_the_one_in_force(
    site: MonitoredSite,
) -> None:
    first = site.mailbox.pin.roster()
    assert first is not None
    now_s = site.clock.seconds
    second = replace(
        first, version=2, previous=first.digest, not_before_s=now_s - 9, not_after_s=now_s - 1
    )
    third = replace(first, version=3, previous=second.digest)
    assert site.mailbox.deliver(site.signed(second)) == "later"
    assert site.mailbox.pin.roster() == first
    assert site.mailbox.deliver(site.signed(third)) == "taken"
    assert site.mailbox.pin.roster() == third


def test_a_roster_of_another_authority_is_refused_and_none_is_taken_before_trust(
    tmp_path: Path,
) -> None:
    site = make_monitored_site(tmp_path)
    roster = site.signed(site.roster())
    assert site.mailbox.deliver(roster) == "later"
    site.mailbox.pin.trust(site.members.authority.verify_key)
    hostile = SigningKey.generate()
    mine, site.members.authority = site.members.authority, hostile
    assert site.mailbox.deliver(site.signed(site.roster())).startswith("refused")
    site.members.authority = mine
    assert site.mailbox.deliver(roster) == "taken"
    with pytest.raises(EnrolmentError):
        site.mailbox.pin.trust(hostile.verify_key)
    site.mailbox.pin.trust(mine.verify_key)


def test_nothing_is_sealed_without_a_roster_in_force_that_lists_this_site_and_key(
    tmp_path: Path,
) -> None:
    site = make_monitored_site(tmp_path)
    content = some_model(site.plan)
    site.mailbox.pin.trust(site.members.authority.verify_key)
    assert site.mailbox.deliver(site.promotion(content), content) == "taken"
    site.clock.seconds = seconds("2026-03-05")
    _make(site, "2026-02")
    assert site.mailbox.outbox() == ()  # no roster
    me = site.roster().sites[0]
    chain: list[Any] = [
        replace(me, status=Standing.SUSPENDED),
        replace(me, verify_key=SigningKey.generate().verify_key),
    ]
    for number, member in enumerate(chain):
        other = make_monitored_site(tmp_path / str(number))
        mine = (
            replace(member)
            if number
            else replace(member, verify_key=other.site.keys.signing.verify_key)
        )
        other.mailbox.pin.trust(other.members.authority.verify_key)
        other.mailbox.deliver(other.signed(other.roster(sites=(mine,))))
        model = some_model(other.plan)
        assert other.mailbox.deliver(other.promotion(model), model) == "taken"
        other.clock.seconds = seconds("2026-03-05")
        _make(other, "2026-02")
        assert other.mailbox.outbox() == ()
        with pytest.raises(ProtocolError):
            other.mailbox.leaving(other.study_id)
    ended = site.roster(not_after_s=site.clock.seconds + 5)
    assert site.mailbox.deliver(site.signed(ended)) == "taken"
    assert len(site.mailbox.outbox()) == 1
    site.clock.seconds += 10
    assert site.mailbox.outbox() == ()


def test_reports_are_sealed_to_the_boards_of_the_newest_roster_when_their_turn_comes(
    site: MonitoredSite,
) -> None:
    _make(site, "2026-02")
    first = site.mailbox.pin.roster()
    assert first is not None
    new = OpeningKey.generate()
    board = first.boards[0]
    boards = sorted(
        (replace(board, sealing_key=new.sealing_key), replace(board, status=Standing.RETIRED)),
        key=lambda item: item.sealing_key.fingerprint,
    )
    second = replace(first, version=2, previous=first.digest, boards=tuple(boards))
    assert site.mailbox.deliver(site.signed(second)) == "taken"
    (envelope,) = site.mailbox.outbox()
    site.members.board_opening = new
    header, _ = site.opened(envelope)
    assert header.recipients == (new.sealing_key.fingerprint,)
    assert header.roster == second.digest


def test_an_envelope_whose_roster_is_taken_nowhere_any_more_is_sealed_anew_with_its_number(
    site: MonitoredSite,
) -> None:
    _make(site, "2026-02")
    (old,) = site.mailbox.outbox()
    first = site.mailbox.pin.roster()
    assert first is not None
    second = replace(first, version=2, previous=first.digest, not_before_s=site.clock.seconds)
    assert site.mailbox.deliver(site.signed(second)) == "taken"
    assert site.mailbox.outbox() == (old,)  # still taken during the grace
    site.clock.seconds += first.grace_s + 1
    (new,) = site.mailbox.outbox()
    assert new != old
    assert site.mailbox.outbox() == (new,)
    before, after = site.opened(old), site.opened(new)
    assert after[0].roster == second.digest
    assert (after[0].sequence, after[0].previous) == (before[0].sequence, before[0].previous)
    assert after[1].counts.tolist() == before[1].counts.tolist()  # no second noise


def _next_roster(site: MonitoredSite, **changes: Any) -> None:
    """Pin the next version of the roster and let its grace go by."""
    pinned = site.mailbox.pin.roster()
    assert pinned is not None
    begins = {"not_before_s": site.clock.seconds, "previous": pinned.digest}
    roster = replace(pinned, version=pinned.version + 1, **{**begins, **changes})
    assert site.mailbox.deliver(site.signed(roster)) == "taken"
    site.clock.seconds += roster.grace_s + 1


def test_a_replaced_seal_that_the_board_holds_stands_again_and_the_site_goes_on(
    site: MonitoredSite,
) -> None:
    _make(site, "2026-02")
    (first,) = site.mailbox.outbox()
    seals = [first]
    for _ in range(2):  # the relay holds the first seal and withholds the receipt
        _next_roster(site)
        seals += site.mailbox.outbox()
    assert len(set(seals)) == 3
    site = site.reopened()
    assert site.mailbox.deliver(site.receipt(first)) == "taken"
    assert [item.envelope for item in site.mailbox.chain.sealed(site.study_id)] == [first]
    site = site.reopened()
    assert site.mailbox.outbox() == ()
    site.mailbox.check_leaving(site.study_id)
    _make(site, "2026-01")
    (following,) = site.mailbox.outbox()
    header, _ = site.opened(following)
    assert (header.sequence, header.previous) == (2, report_digest(first))
    roster = site.mailbox.pin.roster()
    assert roster is not None
    check_report(following, roster=roster, arrived_at_s=site.clock.seconds)


def test_a_replaced_seal_stands_again_after_a_crash_between_its_receipt_and_the_chain(
    site: MonitoredSite,
) -> None:
    _make(site, "2026-02")
    (first,) = site.mailbox.outbox()
    _next_roster(site)
    site.mailbox.outbox()
    roster = site.mailbox.pin.roster()
    assert site.mailbox.chain.take_receipt(site.receipt(first), roster) == "taken"
    site = site.reopened()
    assert site.mailbox.outbox() == ()
    assert [item.envelope for item in site.mailbox.chain.sealed(site.study_id)] == [first]


def test_a_replaced_seal_does_not_come_back_once_a_later_report_follows_the_other(
    site: MonitoredSite,
) -> None:
    _make(site, "2026-02")
    (first,) = site.mailbox.outbox()
    _next_roster(site)
    (second,) = site.mailbox.outbox()
    assert site.mailbox.deliver(site.receipt(second)) == "taken"
    _make(site, "2026-01")
    (following,) = site.mailbox.outbox()
    assert site.mailbox.deliver(site.receipt(first)) == "taken"
    chain = site.mailbox.chain.sealed(site.study_id)
    assert [item.envelope for item in chain] == [second, following]
    with pytest.raises(ProtocolError) as caught:
        site.mailbox.leaving(site.study_id)
    assert caught.value.number == "B8"


def test_boards_that_hold_two_seals_of_one_report_stop_the_chain(site: MonitoredSite) -> None:
    _make(site, "2026-02")
    (first,) = site.mailbox.outbox()
    _next_roster(site)
    (second,) = site.mailbox.outbox()
    for envelope in (second, first):
        assert site.mailbox.deliver(site.receipt(envelope)) == "taken"
    assert [item.envelope for item in site.mailbox.chain.sealed(site.study_id)] == [second]
    with pytest.raises(ProtocolError) as caught:
        site.mailbox.leaving(site.study_id)
    assert caught.value.number == "B8"


def test_a_revoked_board_brings_no_replaced_seal_back(site: MonitoredSite) -> None:
    _make(site, "2026-02")
    (first,) = site.mailbox.outbox()
    _next_roster(site)
    (second,) = site.mailbox.outbox()
    assert site.mailbox.deliver(site.receipt(first)) == "taken"  # with a key that was stolen
    pinned = site.mailbox.pin.roster()
    assert pinned is not None
    signing, opening = SigningKey.generate(), OpeningKey.generate()
    stolen = replace(pinned.boards[0], status=Standing.REVOKED)
    other = replace(
        pinned.boards[0],
        board_id=BoardId("board-2"),
        sealing_key=opening.sealing_key,
        verify_key=signing.verify_key,
    )
    _next_roster(site, boards=(stolen, other))
    header = site.opened(second)[0]
    told = Receipt(header.study_id, header.site_id, 1, report_digest(second), BoardId("board-2"), 1)
    assert site.mailbox.deliver(sign_notice(told, {"board-2": signing})) == "taken"
    assert [item.envelope for item in site.mailbox.chain.sealed(site.study_id)] == [second]
    site.mailbox.check_leaving(site.study_id)


def test_what_one_of_two_boards_has_confirmed_is_not_sealed_anew(site: MonitoredSite) -> None:
    first = site.mailbox.pin.roster()
    assert first is not None
    board = replace(
        first.boards[0],
        board_id=BoardId("board-2"),
        sealing_key=OpeningKey.generate().sealing_key,
        verify_key=SigningKey.generate().verify_key,
    )
    _next_roster(site, boards=(*first.boards, board), receipts_required=2)
    _make(site, "2026-02")
    (envelope,) = site.mailbox.outbox()
    assert site.mailbox.deliver(site.receipt(envelope)) == "taken"
    _next_roster(site)
    assert site.mailbox.outbox() == (envelope,)  # the relay holds it: other bytes would fork


def test_a_promotion_must_be_the_coordinators_newer_and_have_its_own_parameters(
    site: MonitoredSite,
) -> None:
    held = site.mailbox.models.find(site.study_id)
    other = some_model(site.plan, seed=5)
    good = site.promotion(other, sequence=3)
    assert site.mailbox.deliver(good, other + b"\0") == "refused B11"
    assert site.mailbox.deliver(good, b"") == "refused B11"
    assert site.mailbox.deliver(site.promotion(other, sequence=1), other) == "refused T6"
    coordinator, site.members.coordinator = site.members.coordinator, SigningKey.generate()
    assert site.mailbox.deliver(site.promotion(other, sequence=3), other) == "refused T5"
    site.members.coordinator = coordinator
    assert site.mailbox.deliver(site.promotion(other, plan_digest="0" * 64), other) == "refused T6"
    assert site.mailbox.deliver(site.promotion(other, study_id=StudyId("other")), other) == "later"
    assert site.mailbox.models.find(site.study_id) == held
    assert site.mailbox.deliver(good, other) == "taken"
    assert site.mailbox.deliver(good, other) == "known"


def test_a_model_of_another_shape_is_refused_before_anything_is_charged(tmp_path: Path) -> None:
    site = make_monitored_site(tmp_path)
    site.begin(some_model(monitored_plan(model={"kind": "mlp", "hidden": [3]})))
    site.clock.seconds = seconds("2026-03-05")
    with pytest.raises(ProtocolError):
        _make(site, "2026-02")
    assert site.site.records.ledger.entries() == ()


def test_a_decision_of_two_deciders_pauses_the_study_here_and_a_person_takes_it_back(
    site: MonitoredSite,
) -> None:
    approvals = site.site.records.approvals
    _make(site, "2026-02")
    assert len(site.mailbox.outbox()) == 1
    assert site.mailbox.deliver(site.decision(Action.STOP, by=("ada",))) == "refused T4"
    assert not approvals.is_paused(site.study_id)
    notice = site.decision(Action.STOP)
    assert site.mailbox.deliver(notice) == "taken"
    assert approvals.is_paused(site.study_id)
    assert site.mailbox.outbox() == ()
    approvals.unpause(site.study_id)
    assert site.mailbox.deliver(notice) == "known"  # the courier brings everything again
    assert not approvals.is_paused(site.study_id)
    assert len(site.mailbox.outbox()) == 1


def test_a_site_that_the_board_pauses_trains_no_more_and_reports_on(site: MonitoredSite) -> None:
    approvals = site.site.records.approvals
    assert site.mailbox.deliver(site.decision(Action.PAUSE_SITE)) == "taken"
    assert approvals.is_training_paused(site.study_id)
    _make(site, "2026-02")
    assert len(site.mailbox.outbox()) == 1
    approvals.unpause(site.study_id)
    assert not approvals.is_training_paused(site.study_id)


def test_a_site_that_does_not_follow_decisions_only_shows_them(tmp_path: Path) -> None:
    site = make_monitored_site(tmp_path, extra="[monitoring]\nfollow_decisions = false")
    site.begin()
    assert site.mailbox.deliver(site.decision(Action.STOP)) == "taken"
    assert not site.site.records.approvals.is_paused(site.study_id)
    (shown,) = site.mailbox.decisions.decisions(site.study_id)
    assert shown.action is Action.STOP
    assert site.mailbox.decisions.stops(shown)


def test_after_withdrawal_a_report_that_was_made_leaves_no_more(site: MonitoredSite) -> None:
    study = site.monitor.study(site.study_id)
    asked = site.monitor.asked(study, "2026-02", ReportKind.CASE_MIX, is_late_allowed=True)
    site.monitor.make(asked)
    site.site.records.approvals.withdraw(site.study_id)
    with pytest.raises(ProtocolError, match="withdrawn"):
        site.mailbox.leaving(site.study_id)
    assert site.mailbox.outbox() == ()


def test_decisions_about_others_pause_nothing_and_follow_each_other(site: MonitoredSite) -> None:
    approvals, mailbox = site.site.records.approvals, site.mailbox
    first = site.decision(Action.PAUSE_SITE, site_id="southfield")
    second = site.decision(Action.WATCH, number=2, previous=read_notice(first).digest)
    assert mailbox.deliver(second) == "later"
    assert mailbox.deliver(first) == "taken"
    assert mailbox.deliver(second) == "known"  # it waited
    assert mailbox.deliver(site.decision(Action.STOP)) == "refused T6"  # a second first decision
    assert not approvals.is_paused(site.study_id)
    assert [item.action for item in mailbox.decisions.decisions(site.study_id)] == [
        Action.PAUSE_SITE,
        Action.WATCH,
    ]


def test_what_comes_too_early_waits_and_is_taken_when_it_can_be_judged(tmp_path: Path) -> None:
    site = make_monitored_site(tmp_path)
    mailbox, model = site.mailbox, some_model(site.plan)
    other = monitored_plan(study__id="other-study")
    early = site.promotion(model, study_id=StudyId("other-study"), plan_digest=plan_digest(other))
    first = site.decision(Action.WATCH)
    assert mailbox.deliver(site.signed(site.roster())) == "later"
    assert mailbox.deliver(first) == "later"
    assert mailbox.deliver(early, model) == "later"
    forged = Members()
    mine, site.members.coordinator = site.members.coordinator, forged.coordinator
    hostile = site.promotion(model, study_id=StudyId("third-study"))
    site.members.coordinator = mine
    assert mailbox.deliver(hostile, model) == "later"
    assert mailbox.waiting.notices() == (site.signed(site.roster()), first, early)
    mailbox.pin.trust(site.members.authority.verify_key)
    assert site.reopened().mailbox.outbox() == ()  # the courier's next look
    assert mailbox.pin.roster() == site.roster()
    assert [item.action for item in mailbox.decisions.decisions(site.study_id)] == [Action.WATCH]
    assert mailbox.waiting.notices() == (early,)
    site.site.records.approvals.approve(
        other,
        person="A Steward",
        until_s=site.clock.seconds + DAY_S,
        signing_key=site.site.keys.signing,
    )
    mailbox.outbox()
    found = mailbox.models.find(StudyId("other-study"))
    assert found is not None
    assert found.content == model
    assert mailbox.waiting.notices() == ()


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    site = make_monitored_site(tmp_path)
    rosters = [site.signed(site.roster(grace_s=number)) for number in range(WAITING_MAX + 3)]
    for roster in rosters:
        assert site.mailbox.deliver(roster) == "later"
    assert site.mailbox.waiting.notices() == tuple(rosters[3:])


def test_junk_is_refused_with_a_number_and_no_text(site: MonitoredSite) -> None:
    for junk in (b"", b"{}", b"\xff" * 100, site.promotion(b"x")[:-1]):
        assert site.mailbox.deliver(junk, b"body") == "refused T1"


def test_a_damaged_chain_or_pin_is_told_and_nothing_leaves(site: MonitoredSite) -> None:
    _make(site, "2026-02")
    site.mailbox.outbox()
    database = site.site.database
    with database.transaction() as connection:
        connection.execute("UPDATE monitoring_envelopes SET sequence = 2")
    assert site.mailbox.chain.sealed(site.study_id)  # the number is in the signed header
    with database.transaction() as connection:
        connection.execute("UPDATE monitoring_envelopes SET envelope = x'00'")
    with pytest.raises(LedgerError):
        site.mailbox.outbox()
    with database.transaction() as connection:
        connection.execute("UPDATE monitoring_rosters SET roster = x'00'")
    with pytest.raises(LedgerError):
        site.mailbox.pin.roster()
    with database.transaction() as connection:
        connection.execute("UPDATE monitoring_models SET parameters = x'00'")
    with pytest.raises(LedgerError):
        site.mailbox.models.find(site.study_id)


def test_a_board_key_belongs_to_the_roster_and_not_to_a_notice(site: MonitoredSite) -> None:
    roster = site.mailbox.pin.roster()
    assert roster is not None
    (board,) = roster.boards
    assert isinstance(board, RosterBoard)
    later = replace(roster, version=2, previous=roster.digest, not_after_s=roster.not_after_s)
    gone = replace(board, status=Standing.REVOKED)
    keys = OpeningKey.generate(), SigningKey.generate()
    new = replace(
        board,
        board_id=BoardId("board-9"),
        sealing_key=keys[0].sealing_key,
        verify_key=keys[1].verify_key,
    )
    assert site.mailbox.deliver(site.signed(replace(later, boards=(gone, new)))) == "taken"
    _make(site, "2026-02")
    (envelope,) = site.mailbox.outbox()
    site.members.board_opening = keys[0]
    assert site.mailbox.deliver(site.receipt(envelope)) == "refused T3"  # of the revoked board
    assert site.clock.seconds < later.not_before_s + 100 * DAY_S
