"""Act on the board's decisions that the relay holds: by a command, and regularly in `up`.

Whoever looks, and however often, the end is the same: a decision that is logged is not looked at
again, one that a crash cut short is done again to the same end, and one process acts at a time.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from common.clock import Clock, SystemClock
from common.crypto.keys import SigningKey
from common.protocol.monitoring.roster_file import read_roster
from common.protocol.monitoring.signed_notice import NoticeKind
from server.board_decisions import ActedDecision, BoardDecisions
from server.books import open_books
from server.config import CoordinatorPaths, ServerConfig
from server.promotions import announce_version
from server.registry.actions import ModelActions
from server.relay_store import RelayStore
from server.storage.database import Database


class DecisionWatch:
    """Looks at one coordinator's decisions.

    Args:
        paths, config: of the coordinator, whose database is migrated.
    """

    def __init__(
        self, paths: CoordinatorPaths, config: ServerConfig, *, clock: Clock | None = None
    ) -> None:
        self._paths = paths
        self._config = config
        self._clock = clock or SystemClock()
        self._database = Database.of(paths, config)
        self._store = RelayStore(self._database, self._clock)
        self._seen = 0

    def look(self) -> tuple[ActedDecision, ...]:
        """Act on every decision that is not logged yet and return those; nothing new costs nothing.

        Raises:
            StoreError, KeyFileError: what was not logged is looked at again the next time.
        """
        count = self._store.count_of(NoticeKind.DECISION)
        if count == self._seen:
            return ()
        with self._only_one():
            board = self._board()
            before = len(board.log())
            rosters = [read_roster(item.content) for item in reversed(self._store.rosters())]
            for notice in self._store.notices_of(NoticeKind.DECISION):
                board.act(notice, rosters)
            acted = board.log()[before:]
        self._seen = count
        return acted

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
    def _only_one(self) -> Iterator[None]:
        """Hold the lock that `up` and the command share; the system frees it after a crash."""
        with (self._paths.home / "decisions.lock").open("a") as stream:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
            yield
