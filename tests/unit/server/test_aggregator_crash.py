"""An aggregator killed between its answer and its publication answers the same, and only that."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from common.errors import StoreError
from common.ids import StudyId
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.partial_sum import PartialSum
from common.protocol.monitoring.roster import BoardRole
from server.monitor_board.aggregator import ArrivedBytes
from server.monitor_board.aggregator_store import AggregatorStore
from tests.lib.summing import Consortium, MemoryRelay

A = BoardRole.AGGREGATOR_A


class DeadlyRelay:
    """Kills its caller by kill -9 when it publishes a partial sum."""

    def __init__(self, relay: MemoryRelay, record: Path, *, is_seen: bool) -> None:
        self._relay = relay
        self._record = record
        self._is_seen = is_seen

    def reports(self, study_id: StudyId, after_position: int) -> Iterable[ArrivedBytes]:
        return self._relay.reports(study_id, after_position)

    def notices(self, after_position: int) -> Iterable[ArrivedBytes]:
        return self._relay.notices(after_position)

    def publish(self, notice: bytes) -> None:
        if isinstance(read_notice(notice).content, PartialSum):
            if self._is_seen:
                self._record.write_bytes(notice)
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("is_seen", [False, True], ids=["never seen", "seen by the relay"])
def test_after_kill_9_the_same_bytes_are_published_and_no_other_closing_is_answered(
    tmp_path: Path, is_seen: bool
) -> None:
    consortium = Consortium(tmp_path)
    consortium.report_all([np.zeros(consortium.cells, dtype=np.int64)] * 6)
    for role in BoardRole:
        if role is not BoardRole.BOARD:
            consortium.aggregator(role).step(now_s=0)
    closing = consortium.closing()
    assert closing is not None
    consortium.relay.publish(consortium.sign_closing(closing))
    seen = tmp_path / "seen"
    deadly = DeadlyRelay(consortium.relay, seen, is_seen=is_seen)
    process = multiprocessing.get_context("fork").Process(
        target=lambda: consortium.aggregator(A, relay=deadly).step(now_s=consortium.late_s)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert consortium.answers() == []

    fewer = dataclasses.replace(closing, sites=closing.sites[1:])
    consortium.relay.publish(consortium.sign_closing(fewer))
    step = consortium.aggregator(A).step(now_s=consortium.late_s)
    assert step.answered == 0  # it was answered before the kill
    (answer,) = consortium.answers()
    content = read_notice(answer).content
    assert isinstance(content, PartialSum)
    assert content.closing == read_notice(consortium.sign_closing(closing)).digest
    if is_seen:
        assert answer == seen.read_bytes()
    assert consortium.aggregator(A).step(now_s=consortium.late_s).answered == 0
    assert len(consortium.answers()) == 1


def test_a_store_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "not-a-database").write_bytes(b"something else" * 100)
    with pytest.raises(StoreError):
        AggregatorStore(tmp_path / "not-a-database")
    with pytest.raises(StoreError):
        AggregatorStore(tmp_path / "no" / "folder")
