"""Fetch from the relay what is new, take it, and tell everybody what came of it.

A pass: (0) find out whether the relay was set back, (1) publish what waits, (2) notices, so that
rosters and promotions count for the reports behind them, (3) reports that waited for one of
those, (4) reports of each study, (5) secure sums, (6) publish receipts and closings. Each step
remembers in the transaction of its own work how far it read, so that a pass that is killed is
simply made again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import delete

from common.clock import Clock
from server.monitor_board.inbox import Inbox, Outcome, Taken
from server.monitor_board.key_retention import expired_keys
from server.monitor_board.notices_in import STREAM, NoticeReader
from server.monitor_board.notices_out import (
    mark_published,
    mark_refused,
    publish_again,
    unpublished,
)
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.relay_connection import NoticeRefused, RelayConnection
from server.monitor_board.storage.database import BoardDatabase
from server.monitor_board.storage.tables import positions
from server.monitor_board.store import BoardStore
from server.monitor_board.sum_desk import SumDesk, SumsDone

logger = logging.getLogger("cohortium.board")


@dataclass
class Pass:
    """What one pass did.

    Args:
        taken: number of reports by outcome.
        notices: of all kinds that were read.
        published: of this board, acknowledged by the relay.
        refused: of this board, which the relay did not take this time.
        sums: secure sums closed, joined and refused.
    """

    taken: dict[Outcome, int] = field(default_factory=dict)
    notices: int = 0
    published: int = 0
    refused: int = 0
    sums: SumsDone = field(default_factory=lambda: SumsDone(0, 0, 0))

    def count(self, taken: tuple[Taken, ...]) -> None:
        """Add outcomes."""
        for item in taken:
            self.taken[item.outcome] = self.taken.get(item.outcome, 0) + 1

    @property
    def has_news(self) -> bool:
        """Whether anything came or went."""
        return bool(self.taken or self.notices or self.published)


@dataclass(frozen=True)
class Collector:
    """Makes passes over one relay for one board.

    Args:
        make_inbox: gives an inbox with the opening keys that are there now.
        make_desk: gives what works on secure sums; None where the board has no such study.
        retention_days: how long an opening key outlives its place in the roster.
    """

    database: BoardDatabase
    reader: NoticeReader
    make_inbox: Callable[[], Inbox]
    retention_days: int
    clock: Clock
    make_desk: Callable[[], SumDesk] | None = None

    def once(self, relay: RelayConnection) -> Pass:
        """Make one pass.

        Raises:
            TransportError: the relay does not answer; what was taken so far stays taken.
            ProtocolError: O5 or O9 when no roster is in force here.
        """
        done = Pass()
        self._find_place(relay)
        self._publish(relay, done)
        self._take_notices(relay, done)
        inbox = self.make_inbox()
        done.count(inbox.take_waiting())
        inbox.look_again()
        store = BoardStore(self.database)
        for study_id in store.plans():
            stream = f"reports/{study_id}"
            while batch := relay.reports(study_id, after=store.position(stream)):
                done.count(inbox.take(batch, stream=stream))
        if self.make_desk is not None:
            done.sums = self.make_desk().work(now_s=self.clock.now_s())
        self._publish(relay, done)
        self._delete_keys(inbox.keys, store)
        return done

    def forget_positions(self) -> None:
        """Let the next pass read the relay from its beginning, and tell it again what it lost."""
        with self.database.transaction() as connection:
            connection.execute(delete(positions))
            publish_again(connection)

    def _find_place(self, relay: RelayConnection) -> None:
        """Read from the beginning again where the relay has not what was read: it was set back."""
        store = BoardStore(self.database)
        for study_id in store.plans():
            position = store.position(f"reports/{study_id}")
            if position and not relay.has_report(study_id, position):
                logger.warning("the relay was set back: it is read from its beginning again")
                self.forget_positions()
                return

    def _delete_keys(self, keys: OpeningKeys, store: BoardStore) -> None:
        expired = expired_keys(
            keys,
            store.rosters(),
            waiting=store.waiting_envelopes(),
            retention_days=self.retention_days,
            now_s=self.clock.now_s(),
        )
        for fingerprint in expired:
            keys.delete(fingerprint)
            logger.info("the opening key %s is deleted: its time is over", fingerprint)

    def _take_notices(self, relay: RelayConnection, done: Pass) -> None:
        store = BoardStore(self.database)
        self.reader.take((), now_s=self.clock.now_s())  # what waits for a roster's time to begin
        while batch := relay.notices(after=store.position(STREAM)):
            self.reader.take(batch, now_s=self.clock.now_s())
            done.notices += len(batch)

    def _publish(self, relay: RelayConnection, done: Pass) -> None:
        """Publish the oldest first; one that the relay refuses keeps none behind it waiting."""
        with self.database.reading() as connection:
            waiting = unpublished(connection)
        for item in waiting:
            try:
                relay.publish(item.notice)
            except NoticeRefused as error:
                with self.database.transaction() as connection:
                    mark_refused(connection, item.number, number=error.number)
                done.refused += 1
                continue
            with self.database.transaction() as connection:
                mark_published(connection, item.number, now_s=self.clock.now_s())
            done.published += 1
