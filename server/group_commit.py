"""Many callers, one transaction: what waits while the disk is busy is written together.

A durable write waits for the disk. Written one by one, a thousand reports wait a thousand times;
here everything that arrived during one write goes into the next, and each caller is answered when
his own item is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class QueueFull(Exception):
    """More waits to be written than may wait; the caller should come again later."""


class GroupCommit(Generic[ItemT, ResultT]):
    """Writes items in batches, in the order in which they came.

    Args:
        write: writes a batch in one transaction, in a thread of its own; returns for each item its
            result or the error that its caller gets. What it raises, all callers of it get.
        size_bytes: of one item.
        batch_max: items in one transaction.
        waiting_bytes_max: of all items that wait; what comes beyond is refused.
    """

    def __init__(
        self,
        write: Callable[[Sequence[ItemT]], Sequence[ResultT | Exception]],
        *,
        size_bytes: Callable[[ItemT], int],
        batch_max: int,
        waiting_bytes_max: int,
    ) -> None:
        self._write = write
        self._size_bytes = size_bytes
        self._batch_max = batch_max
        self._waiting_bytes_max = waiting_bytes_max
        self._waiting: deque[tuple[ItemT, asyncio.Future[ResultT]]] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        self._is_closing = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._task = asyncio.create_task(self._run())

    async def add(self, item: ItemT) -> ResultT:
        """Return the item's result once it is written; raises `QueueFull` or what `write` said.

        A caller that goes away takes nothing back: its item is written all the same.
        """
        size = self._size_bytes(item)
        if self._is_closing or self._waiting_bytes + size > self._waiting_bytes_max:
            raise QueueFull
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._waiting_bytes += size
        self._wake.set()
        return await future

    async def close(self) -> None:
        """Write what waits, and end."""
        self._is_closing = True
        self._wake.set()
        await self._task
        self._thread.shutdown()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._write_batch()
            if self._is_closing:
                return

    async def _write_batch(self) -> None:
        count = min(len(self._waiting), self._batch_max)
        batch = [self._waiting.popleft() for _ in range(count)]
        items = [item for item, _ in batch]
        results: Sequence[ResultT | Exception]
        try:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._thread, self._write, items)
        except Exception as error:
            results = [error] * count
        self._waiting_bytes -= sum(map(self._size_bytes, items))
        for (_, future), result in zip(batch, results, strict=True):
            # A caller that was cancelled meanwhile waits no more.
            with contextlib.suppress(asyncio.InvalidStateError):
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
