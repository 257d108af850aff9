"""Group commit: everybody is answered after his own item is written, in order, whatever fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from server.group_commit import GroupCommit, QueueFull


class Disk:
    """Writes when it is let; keeps its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.is_free = threading.Event()
        self.is_free.set()

    def write(self, items: Sequence[int]) -> list[str | Exception]:
        assert self.is_free.wait(10)
        self.batches.append(list(items))
        if 13 in items:
            raise OSError
        return [ValueError() if item < 0 else f"wrote {item}" for item in items]

    def commit(self, **changes: int) -> GroupCommit[int, str]:
        bounds = {"batch_max": 4, "waiting_bytes_max": 1000, **changes}
        return GroupCommit(self.write, size_bytes=lambda _: 1, **bounds)


def test_what_waits_while_the_disk_is_busy_is_written_together_and_in_order() -> None:
    async def run() -> None:
        disk = Disk()
        commit = disk.commit()
        disk.is_free.clear()
        answers = [asyncio.create_task(commit.add(item)) for item in range(7)]
        await asyncio.sleep(0.05)
        assert not any(answer.done() for answer in answers)
        disk.is_free.set()
        assert await asyncio.gather(*answers) == [f"wrote {item}" for item in range(7)]
        assert [item for batch in disk.batches for item in batch] == list(range(7))
        assert len(disk.batches) <= 3
        await commit.close()

    asyncio.run(run())


def test_one_items_refusal_is_its_own_and_a_failed_write_is_everybodys() -> None:
    async def run() -> None:
        disk = Disk()
        commit = disk.commit()
        disk.is_free.clear()
        tasks = [asyncio.create_task(commit.add(item)) for item in (1, -1, 2)]
        await asyncio.sleep(0.05)
        disk.is_free.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [str, ValueError, str]
        with pytest.raises(OSError):
            await commit.add(13)
        assert await commit.add(14) == "wrote 14"
        await commit.close()

    asyncio.run(run())


def test_more_than_may_wait_is_refused_and_what_was_taken_is_written() -> None:
    async def run() -> None:
        disk = Disk()
        commit = disk.commit(waiting_bytes_max=3)
        disk.is_free.clear()
        tasks = [asyncio.create_task(commit.add(item)) for item in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFull):
            await commit.add(3)
        disk.is_free.set()
        await asyncio.gather(*tasks)
        assert await commit.add(3) == "wrote 3"
        await commit.close()
        with pytest.raises(QueueFull):
            await commit.add(4)

    asyncio.run(run())


def test_closing_writes_what_waits_and_a_caller_that_left_takes_nothing_back() -> None:
    async def run() -> None:
        disk = Disk()
        commit = disk.commit()
        disk.is_free.clear()
        tasks = [asyncio.create_task(commit.add(item)) for item in range(6)]
        await asyncio.sleep(0.05)
        tasks[5].cancel()
        closing = asyncio.create_task(commit.close())
        disk.is_free.set()
        await closing
        assert [item for batch in disk.batches for item in batch] == list(range(6))

    asyncio.run(run())
