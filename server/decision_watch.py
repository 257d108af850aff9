"""Act on the board's decisions that the relay holds: by a command, and regularly in `up`.

Whoever looks, and however often, the end is the same: a decision that is logged is not looked at
again, one that a crash cut short is done again to the same end, and one process acts at a time.
What stands in the way of one study's decisions keeps no other study's waiting.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from common.clock import Clock, SystemClock
from common.crypto.keys import SigningKey
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.roster_file import read_roster
from common.protocol.monitoring.signed_notice import NoticeKind
from server.board_decisions import ActedDecision, BoardDecisions, study_named_in
from server.books import open_books
from server.config import CoordinatorPaths, ServerConfig
from server.promotions import announce_version
from server.registry.actions import ModelActions
from server.relay_store import RelayStore
from server.storage.database import Database

_LOCK_AGAIN_S: Final = 0.1


class DecisionWatch:
    """Looks at one coordinator's decisions.

    Args:
        paths, config: of the coordinator, whose database is migrated.
        wait_s: for another process that acts; `up` does not wait, it has more to look after.

    Attributes:
        obstacle: why decisions wait, in words, after a look; empty when none does.
    """

    def __init__(
        self,
        paths: CoordinatorPaths,
        config: ServerConfig,
        *,
        clock: Clock | None = None,
        wait_s: float = 0.0,
    ) -> None:
        self._paths = paths
        self._config = config
        self._clock = clock or SystemClock()
        self._wait_s = wait_s
        self._database = Database.of(paths, config)
        self._store = RelayStore(self._database, self._clock)
        self._seen = 0
        self._acted: list[ActedDecision] = []
        self.obstacle = ""

    def look(self) -> tuple[ActedDecision, ...]:
        """Act on every decision that is not logged yet and return those; nothing new costs nothing.

        Raises:
            StoreError, KeyFileError: and whatever else stopped a decision, after all others were
                looked at; what was not logged is looked at again the next time.
        """
        count = self._store.count_of(NoticeKind.DECISION)
        if count == self._seen:
            return ()
        self.obstacle = ""
        rosters = [read_roster(item.content) for item in reversed(self._store.rosters())]
        if not rosters or self._clock.now_s() > rosters[-1].not_after_s:
            self.obstacle = "no roster is in force, by which they could be verified (T4)"
            return ()
        with self._only_one() as is_ours:
            if not is_ours:
                self.obstacle = "another process is acting on them"
                return ()
            self._act(rosters)
        self._seen = count
        acted, self._acted = tuple(self._acted), []
        return acted

    def _act(self, rosters: Sequence[MonitoringRoster]) -> None:
        board, notices = self._board(), self._store.notices_of(NoticeKind.DECISION)
        before = len(board.log())
        stuck: dict[str, Exception] = {}
        has_moved = True
        while has_moved:  # one that came ahead of its turn has it when the one before it was done
            known, ahead = len(board.log()), 0
            for notice in notices:
                study_id = study_named_in(notice)
                # Not another decision of the same number in its place: order is the relay's.
                if study_id in stuck:
                    continue
                try:
                    ahead += board.act(notice, rosters) is None
                except Exception as error:  # raised below, when the other studies' were done
                    stuck[study_id] = error
            has_moved = ahead > 0 and len(board.log()) > known
        self._acted += board.log()[before:]
        if ahead:
            self.obstacle = f"{ahead} of them until one before them comes (T6)"
        for fault in stuck.values():
            raise fault

    def _board(self) -> BoardDecisions:
        signing_key = SigningKey.read(self._paths.signing_key)
        return BoardDecisions(
            self._database,
            open_books(self._paths, self._config),
            ModelActions(self._database, self._clock, signing_key),
            self._clock,
            tell_sites=lambda version: announce_version(self._paths, self._config, version),
        )

    @contextmanager
    def _only_one(self) -> Iterator[bool]:
        """Hold the lock that `up` and the command share; the system frees it after a crash."""
        until = time.monotonic() + self._wait_s
        with (self._paths.home / "decisions.lock").open("a") as stream:
            while True:
                try:
                    fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= until:
                        yield False
                        return
                    time.sleep(_LOCK_AGAIN_S)
                else:
                    yield True
                    return
