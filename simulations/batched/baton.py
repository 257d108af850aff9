"""Threads that hand on one baton: no two of them ever run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Reply = TypeVar("Reply")


class Abandoned(BaseException):
    """Whoever waited for a thread has gone; nobody may take it for a failure of his own."""


class BatonThread(Generic[Reply]):
    """A thread that runs only between `go_on` and its next `pause`.

    Args:
        work: what it does.
    """

    def __init__(self, work: Callable[[], Reply]) -> None:
        self._work = work
        self._reply: list[Reply] = []
        self._raised: BaseException | None = None
        self._is_abandoned = False
        self._may_run = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_begun = False
        self.is_ended = False

    def go_on(self) -> None:
        """Let it run until it pauses, or to its end."""
        if self.is_ended:
            return
        if not self._is_begun:
            self._is_begun = True
            self._thread.start()
        self._may_run.release()
        self._stopped.acquire()

    def pause(self) -> None:
        """Wait for the next `go_on`; called in the thread itself."""
        self._stopped.release()
        self._may_run.acquire()
        if self._is_abandoned:
            raise Abandoned

    def reply(self) -> Reply:
        """Return what it made, or raise what it raised; it has ended."""
        self._thread.join()
        if self._raised is not None:
            raise self._raised
        return self._reply[0]

    def abandon(self) -> None:
        """End it where it pauses: whoever waited for it has gone."""
        self._is_abandoned = True
        if self._is_begun and not self.is_ended:
            self.go_on()
            self._thread.join()

    def _run(self) -> None:
        try:
            self._may_run.acquire()
            self._reply.append(self._work())
        except BaseException as error:
            self._raised = error
        finally:
            self.is_ended = True
            self._stopped.release()
