"""Views, made once and made anew when the board's store has something new.

Making them may take a minute at a thousand sites. So pages show the former views meanwhile, and say
so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from server.monitor_board.web.views import BoardView

REMAKE_S: Final = 3600
"""Views grow old without news too: a site falls silent by the clock alone."""
RETRY_S: Final = 60


class ViewMaker(Protocol):
    """What makes views of the board's store."""

    def newest_position(self) -> int:
        """Return a number that grows with each thing that is stored; cheap."""

    def make(self) -> BoardView:
        """Return all views."""


@dataclass(frozen=True)
class Shown:
    """A view, and whether newer reports are being computed."""

    view: BoardView
    is_stale: bool


class ViewSource:
    """The newest finished views; one thread makes the next.

    Args:
        failed: is told the kind of a fault while views were made anew; the former ones stay.
    """

    def __init__(
        self, maker: ViewMaker, *, now_s: Callable[[], int], failed: Callable[[str], None]
    ) -> None:
        self._maker = maker
        self._now_s = now_s
        self._failed = failed
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._failed_at_s: int | None = None
        self._view = maker.make()

    def shown(self) -> Shown:
        """Return the views at hand, and begin to make newer ones where the store has news."""
        with self._lock:
            view = self._view
            has_news = self._maker.newest_position() != view.position
            is_old = self._now_s() - view.made_at_s >= REMAKE_S
            is_busy = self._worker is not None and self._worker.is_alive()
            if (has_news or is_old) and not is_busy and not self._failed_lately():
                self._worker = threading.Thread(target=self._make, name="views", daemon=True)
                self._worker.start()
        return Shown(view, has_news)

    def wait(self) -> None:
        """Wait until views that are being made are finished."""
        worker = self._worker
        if worker is not None:
            worker.join()

    def _make(self) -> None:
        try:
            made = self._maker.make()
        except Exception as error:  # the thread's last net: a page must not go dark
            self._failed_at_s = self._now_s()
            self._failed(type(error).__name__)
            return
        with self._lock:
            self._view, self._failed_at_s = made, None

    def _failed_lately(self) -> bool:
        failed = self._failed_at_s
        return failed is not None and self._now_s() - failed < RETRY_S
