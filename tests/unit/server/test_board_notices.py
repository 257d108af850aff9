"""The board believes a notice only when whoever may say it signed it; the others are put away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.canonical import digest_bytes
from common.crypto.keys import SigningKey
from common.ids import BoardId, SiteId
from common.protocol.monitoring.closing import ClosedSite, Closing
from common.protocol.monitoring.notice_checks import COORDINATOR
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import Action, Promotion, Receipt
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.roster import Standing
from common.protocol.monitoring.roster_file import sign_roster
from common.protocol.monitoring.signed_notice import NoticeKind
from common.study.report_tensors import ReportKind
from server.monitor_board import decisions
from server.monitor_board.notices_in import STREAM, NoticeReader
from server.monitor_board.relay_connection import ArrivedNotice
from tests.lib.board_world import DAY_S, MODEL, STUDY, BoardSide, World, make_board, make_world

NORTH = SiteId("north")
SECOND = digest_bytes("test", b"model 2")


@pytest.fixture
def world() -> World:
    return make_world(boards=("auditor", "board"))


@pytest.fixture
def board(world: World, tmp_path: Path) -> BoardSide:
    return make_board(world, tmp_path)


def _take(world: World, board: BoardSide, *notices: bytes) -> frozenset[NoticeKind]:
    reader = NoticeReader(board.database, world.authority.verify_key, world.coordinator.verify_key)
    start = board.store.position(STREAM)
    batch = [ArrivedNotice(start + number, item) for number, item in enumerate(notices, start=1)]
    return reader.take(batch, now_s=world.clock.seconds)


def _promotion(world: World, **changes: object) -> Promotion:
    return replace(world.promotion(model=SECOND, sequence=2), **changes)  # type: ignore[arg-type]


def _refused(board: BoardSide) -> list[str]:
    return [reason.split()[0] for _, reason in board.store.refused_notices()]


def test_rosters_promotions_and_decisions_that_verify_are_taken_in_one_pass(
    world: World, board: BoardSide
) -> None:
    newcomer = SigningKey.generate()
    (first, *others) = world.roster.deciders
    roster = world.next_roster(deciders=(replace(first, verify_key=newcomer.verify_key), *others))
    world.deciders["ada"] = newcomer
    decision = decisions.propose(
        consortium=world.roster.consortium,
        study_id=STUDY,
        action=Action.WATCH,
        reason="Few reports yet",
        period="2026-02",
        site_id=None,
        model_version=None,
        held=(),
        now_s=world.clock.seconds,
        name="ada",
        key=newcomer,
    )
    decision = decisions.sign(decision, name="ben", key=world.deciders["ben"])
    promotion = sign_notice(_promotion(world), {COORDINATOR: world.coordinator})
    kinds = _take(world, board, roster, decision, promotion)
    assert kinds == {NoticeKind.ROSTER, NoticeKind.DECISION, NoticeKind.PROMOTION}
    assert board.store.refused_notices() == ()
    assert board.store.rosters().newest().version == 2
    assert board.store.plans()[STUDY].models == {MODEL, SECOND}
    assert [item.signers for item in board.store.decisions(STUDY)] == [("ada", "ben")]


def _decision(world: World, board: BoardSide, *signers: str) -> bytes:
    first, second = signers
    data = decisions.propose(
        consortium=world.roster.consortium,
        study_id=STUDY,
        action=Action.WATCH,
        reason="Few reports yet",
        period="2026-02",
        site_id=None,
        model_version=None,
        held=board.store.decisions(STUDY),
        now_s=world.clock.seconds,
        name=first,
        key=world.deciders[first],
    )
    return decisions.sign(data, name=second, key=world.deciders[second])


def _without_ben(world: World) -> bytes:
    return world.next_roster(
        deciders=tuple(
            replace(person, status=Standing.REVOKED) if person.name == "ben" else person
            for person in world.roster.deciders
        )
    )


def test_a_decision_that_a_relay_holds_back_until_a_decider_is_revoked_keeps_its_place(
    world: World, board: BoardSide
) -> None:
    old = _decision(world, board, "ada", "ben")
    _take(world, board, _without_ben(world), old)
    _take(world, board, _decision(world, board, "ada", "cleo"))
    assert _refused(board) == []
    first, second = board.store.decisions(STUDY)
    assert first.objection == "signed under roster 1, whose decider ben is revoked now"
    assert second.objection == ""


def test_what_comes_while_no_roster_is_in_force_waits_and_is_judged_when_one_is(
    world: World, board: BoardSide
) -> None:
    decision = _decision(world, board, "ada", "ben")
    world.clock.seconds = world.roster.not_after_s + 1
    assert _take(world, board, decision) == frozenset()
    assert board.store.refused_notices() == ()
    assert _take(world, board) == frozenset()  # still none in force
    assert board.store.decisions(STUDY) == ()
    renewed = world.next_roster(not_after_s=world.clock.seconds + DAY_S)
    assert _take(world, board, renewed) == {NoticeKind.ROSTER, NoticeKind.DECISION}
    assert [item.decision.number for item in board.store.decisions(STUDY)] == [1]
    assert board.store.refused_notices() == ()


def test_what_waits_is_judged_when_a_rosters_time_begins_without_any_new_notice(
    world: World, board: BoardSide
) -> None:
    closing = sign_notice(
        Closing(
            study_id=STUDY,
            period="2026-02",
            kind=ReportKind.CASE_MIX,
            schema=digest_bytes("test", b"schema"),
            model_version=MODEL,
            sum_key=digest_bytes("test", b"sum key"),
            board_id=BoardId("board"),
            sites=(ClosedSite(NORTH, MODEL, SECOND),),
            closed_at_s=world.clock.seconds,
        ),
        {BoardId("board"): world.signing[BoardId("board")]},
    )
    forged = _decision(world, board, "ada", "ben").replace(b"Few reports", b"few reports")
    begins_s, world.clock.seconds = world.clock.seconds, world.roster.not_before_s - DAY_S
    assert _take(world, board, closing, forged) == frozenset()
    assert _refused(board) == []
    world.clock.seconds = begins_s
    assert _take(world, board) == {NoticeKind.CLOSING}
    assert _refused(board) == ["T4"]
    assert _take(world, board) == frozenset()


def test_a_promotion_that_the_coordinator_did_not_sign_or_of_another_plan_is_put_away(
    world: World, board: BoardSide
) -> None:
    forged = sign_notice(_promotion(world), {COORDINATOR: SigningKey.generate()})
    other = sign_notice(
        _promotion(world, plan_digest=digest_bytes("test", b"another plan")),
        {COORDINATOR: world.coordinator},
    )
    again = sign_notice(_promotion(world, sequence=1), {COORDINATOR: world.coordinator})
    assert _take(world, board, forged, other, again) == frozenset()
    assert _refused(board) == ["T5", "a", "T6"]
    assert board.store.plans()[STUDY].models == {MODEL}
    assert board.store.position(STREAM) == 3


def test_a_roster_of_another_authority_and_a_rollback_are_put_away(
    world: World, board: BoardSide
) -> None:
    foreign = sign_roster(
        replace(
            world.roster,
            version=2,
            previous=world.roster.digest,
            authority=(key := SigningKey.generate()).verify_key,
        ),
        key,
    )
    second = world.next_roster()
    skipped = world.next_roster()
    skipped = world.next_roster()
    changed = sign_roster(replace(world.rosters[0], grace_s=1), world.authority)
    _take(world, board, foreign, second, skipped, changed, b"no notice")
    assert _refused(board) == ["O2", "O5", "O5", "T1"]
    assert board.store.rosters().newest().version == 2


def test_a_receipt_of_another_board_that_holds_another_report_is_raised(
    world: World, board: BoardSide
) -> None:
    envelope = world.report(NORTH)
    board.take(envelope)
    auditor = {BoardId("auditor"): world.signing[BoardId("auditor")]}

    def receipt(head: bytes) -> bytes:
        content = Receipt(
            STUDY, NORTH, 1, report_digest(head), BoardId("auditor"), world.clock.seconds
        )
        return sign_notice(content, auditor)

    _take(world, board, receipt(envelope), receipt(b"another report"))
    assert _refused(board) == ["B8"]
