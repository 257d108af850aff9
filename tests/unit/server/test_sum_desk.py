"""The board's own process over secure sums: collects shares, closes, joins, keeps one sum."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.canonical import digest_bytes
from common.clock import FixedClock
from common.crypto.keys import SigningKey
from common.ids import StudyId
from common.protocol.monitoring.check_key import CheckKey, seal_check_key
from common.protocol.monitoring.closing import SUM_SITE_ID, Closing
from common.protocol.monitoring.notice_codec import read_notice, sign_notice
from common.protocol.monitoring.notices import Promotion
from common.protocol.monitoring.roster import BoardRole
from common.protocol.monitoring.roster_file import AUTHORITY, sign_roster
from common.study.plan_file import plan_digest
from server.monitor_board.collector import Collector, Pass
from server.monitor_board.inbox import Inbox
from server.monitor_board.notices_in import NoticeReader
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.plan_book import add_plan, take_promotion
from server.monitor_board.relay_connection import ArrivedNotice
from server.monitor_board.report_chain import Arrived
from server.monitor_board.roster_book import take_roster
from server.monitor_board.storage.database import BoardDatabase
from server.monitor_board.store import BoardStore
from server.monitor_board.sum_desk import SumDesk
from tests.lib.summing import AGGREGATORS, BOARD, KIND, MODEL, PERIOD, STUDY, Consortium

A, B = BoardRole.AGGREGATOR_A, BoardRole.AGGREGATOR_B


class BoardsRelay:
    """The relay in memory as a board's connection shows it."""

    def __init__(self, consortium: Consortium) -> None:
        self._relay = consortium.relay

    def has_report(self, study_id: StudyId, position: int) -> bool:
        return any(item.position == position for item in self.reports(study_id, after=0))

    def reports(self, study_id: StudyId, *, after: int) -> tuple[Arrived, ...]:
        assert study_id == STUDY
        return tuple(
            Arrived(item.position, item.content, item.received_at_s)
            for item in self._relay.reports(study_id, after)
        )

    def notices(self, *, after: int) -> tuple[ArrivedNotice, ...]:
        return tuple(
            ArrivedNotice(item.position, item.content) for item in self._relay.notices(after)
        )

    def publish(self, notice: bytes) -> None:
        self._relay.publish(notice)


@dataclasses.dataclass
class Board:
    """One board's process over a store of its own."""

    consortium: Consortium
    database: BoardDatabase
    keys: Path
    clock: FixedClock

    def collect(self) -> Pass:
        signing = self.consortium.board.signing
        collector = Collector(
            database=self.database,
            reader=NoticeReader(
                self.database,
                authority=self.consortium.authority.verify_key,
                coordinator=SigningKey.generate().verify_key,
            ),
            make_inbox=lambda: Inbox(
                self.database,
                OpeningKeys.read(self.keys),
                board_id=BOARD,
                signing_key=signing,
                clock=self.clock,
            ),
            retention_days=90,
            clock=self.clock,
            make_desk=lambda: SumDesk(self.database, OpeningKeys.read(self.keys), BOARD, signing),
        )
        relay: Any = BoardsRelay(self.consortium)
        return collector.once(relay)

    def refusals(self) -> list[str]:
        states = BoardStore(self.database).sum_states(STUDY)
        return [state.number for state in states if state.number]


@pytest.fixture
def board(tmp_path: Path) -> Board:
    consortium = Consortium(tmp_path)
    keys = tmp_path / "opening"
    keys.mkdir()
    opening = consortium.board.opening
    opening.write(keys / f"2-{opening.fingerprint.replace(' ', '')}.key")
    database = BoardDatabase(f"sqlite:///{tmp_path / 'board.db'}")
    database.migrate()
    with database.transaction() as connection:
        data = sign_roster(consortium.roster, consortium.authority)
        take_roster(connection, data, authority=consortium.authority.verify_key, now_s=1)
        add_plan(connection, consortium.plan, now_s=1)
        promotion = Promotion(STUDY, plan_digest(consortium.plan), MODEL, 1, 1)
        take_promotion(connection, promotion)
    return Board(consortium, database, keys, FixedClock(consortium.relay.now_s))


def send(board: Board) -> list[np.ndarray]:
    consortium = board.consortium
    rng = np.random.default_rng(5)
    reports = [rng.integers(-20, 3000, consortium.cells) for _ in consortium.sites]
    consortium.report_all(reports)
    return reports


def step(board: Board, *roles: BoardRole) -> None:
    for role in roles:
        board.consortium.aggregator(role).step(now_s=board.clock.seconds)


def test_the_board_closes_when_every_share_was_opened_and_keeps_one_sum(board: Board) -> None:
    reports = send(board)
    assert board.collect().sums.closed == 0  # no aggregator has opened anything yet
    step(board, A)
    assert board.collect().sums.closed == 0
    step(board, B)
    assert board.collect().sums.closed == 1
    assert board.collect().sums.closed == 0
    step(board, A)
    assert board.collect().sums.joined == 0
    (state,) = BoardStore(board.database).sum_states(STUDY)
    assert (state.answers, state.is_joined, state.number) == (1, False, "")
    step(board, B)
    done = board.collect().sums
    assert (done.closed, done.joined, done.refused) == (0, 1, 0)
    assert board.collect().sums.joined == 0
    (kept,) = BoardStore(board.database).kept_reports(STUDY)
    assert (kept.site_id, kept.kind, kept.period, kept.sequence) == (SUM_SITE_ID, KIND, PERIOD, 1)
    flat = np.concatenate([tensor.values.ravel() for tensor in kept.tensors.values()])
    assert np.array_equal(flat, np.sum(reports, axis=0))


def test_a_check_key_that_was_sealed_wrongly_to_the_board_stops_no_sum(board: Board) -> None:
    consortium = board.consortium
    send(board)
    step(board, A, B)
    assert board.collect().sums.closed == 1
    step(board, A, B)
    sealed = seal_check_key(CheckKey.generate(2), members=[consortium.board.opening.sealing_key])
    wrong = dataclasses.replace(sealed, commitment=digest_bytes("test", b"another key"))
    consortium.relay.publish(sign_notice(wrong, {AUTHORITY: consortium.authority}))
    assert board.collect().sums.joined == 1


def test_a_share_of_a_period_that_the_plan_does_not_have_stops_no_sum(board: Board) -> None:
    first, *_ = board.consortium.sites
    stray = np.zeros(board.consortium.cells, dtype=np.int64)
    send(board)
    board.consortium.relay.stored_reports.extend(
        board.consortium.split(first, stray, period="2026-W07")
    )
    board.collect()
    step(board, A, B)
    assert board.collect().sums.closed == 1


def test_the_board_can_open_no_share_that_it_collects(board: Board) -> None:
    send(board)
    board.collect()
    assert BoardStore(board.database).kept_reports(STUDY) == ()
    assert board.refusals() == []


def test_a_closing_of_another_board_that_came_first_is_joined_and_none_is_added(
    board: Board,
) -> None:
    reports = send(board)
    step(board, A, B)
    closing = board.consortium.closing()
    assert closing is not None
    notice = board.consortium.sign_closing(closing)
    board.consortium.relay.publish(notice)
    step(board, A, B)
    done = board.collect().sums
    assert (done.closed, done.joined) == (0, 1)
    (kept,) = BoardStore(board.database).kept_reports(STUDY)
    assert kept.digest == read_notice(notice).digest
    flat = np.concatenate([tensor.values.ravel() for tensor in kept.tensors.values()])
    assert np.array_equal(flat, np.sum(reports, axis=0))


def test_a_sum_that_an_aggregator_changed_is_refused_with_its_number_and_not_kept(
    board: Board,
) -> None:
    send(board)
    step(board, A, B)
    board.collect()
    closings = [read_notice(data) for data in board.consortium.relay.stored_notices]
    assert sum(isinstance(item.content, Closing) for item in closings) == 1
    lying = board.consortium.aggregator(B)
    original = lying._named

    def without_noise(*arguments: Any) -> Any:
        shares = original(*arguments)
        first = next(iter(shares))
        elements = shares[first].elements.copy()
        elements[0] ^= np.uint64(1)
        return {**shares, first: dataclasses.replace(shares[first], elements=elements)}

    lying._named = without_noise  # type: ignore[method-assign]
    step(board, A)
    lying.step(now_s=board.clock.seconds)
    assert board.collect().sums.refused == 1
    assert board.refusals() == ["V22"]
    assert board.collect().sums.refused == 0
    assert BoardStore(board.database).kept_reports(STUDY) == ()


def test_after_the_deadline_the_board_closes_without_the_sites_that_are_missing(
    board: Board,
) -> None:
    send(board)
    board.consortium.relay.stored_reports.pop()
    step(board, A, B)
    assert board.collect().sums.closed == 0
    board.clock = FixedClock(board.consortium.late_s)
    assert board.collect().sums.closed == 1
    assert set(AGGREGATORS) == {A, B}
