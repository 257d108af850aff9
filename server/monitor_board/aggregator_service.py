"""One aggregator's process: its folder, its keys, its way to the relay, step after step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from common.clock import Clock
from common.crypto.keys import SigningKey
from common.errors import CohortiumError, ConfigError, ProtocolError, TransportError
from common.ids import BoardId, StudyId
from common.protocol.monitoring.roster import BoardRole
from server.monitor_board.aggregation import Aggregating
from server.monitor_board.aggregator import Aggregator, ArrivedBytes, Step
from server.monitor_board.aggregator_store import AggregatorStore
from server.monitor_board.config import BoardConfig, BoardPaths
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.plan_book import read_plans
from server.monitor_board.relay_connection import NoticeRefused, RelayConnection, connected
from server.monitor_board.roster_book import read_book, take_roster
from server.monitor_board.setup import pinned_authority, read_certificate
from server.monitor_board.storage.database import BoardDatabase

STORE_NAME: Final = "aggregator.db"


@dataclass(frozen=True)
class RelayOfAggregator:
    """The relay as an aggregator reads it, page after page."""

    connection: RelayConnection

    def notices(self, after_position: int) -> Iterable[ArrivedBytes]:
        """Yield the notices behind a position; raises `TransportError`."""
        while batch := self.connection.notices(after=after_position):
            for item in batch:
                yield ArrivedBytes(item.position, item.notice, 0)
            after_position = batch[-1].position

    def reports(self, study_id: StudyId, after_position: int) -> Iterable[ArrivedBytes]:
        """Yield the envelopes of a study behind a position; raises `TransportError`."""
        while batch := self.connection.reports(study_id, after=after_position):
            for item in batch:
                yield ArrivedBytes(item.position, item.envelope, item.received_at_s)
            after_position = batch[-1].position

    def publish(self, notice: bytes) -> None:
        """Give the relay a notice; raises `TransportError`, also when it does not take it yet."""
        try:
            self.connection.publish(notice)
        except NoticeRefused as error:
            raise TransportError(
                "the relay does not take a notice of this aggregator",
                expected="a relay that has the roster with this aggregator",
                arrived=f"refusal {error.number}",
                todo="ask the coordinator to give the relay the newest roster; then run it again",
            ) from None


@contextmanager
def open_aggregator(
    paths: BoardPaths, config: BoardConfig, *, clock: Clock
) -> Iterator[Callable[[], Step]]:
    """Give a function that does one step.

    Raises:
        ConfigError: the folder is not an aggregator's, or no authority is pinned.
        EnrolmentError, KeyFileError, StoreError: what it needs is not there.
    """
    if config.role == "board":
        raise ConfigError(
            "a board does not aggregate",
            expected="a folder with role aggregator-a or aggregator-b",
            arrived=f"role {config.role}",
            todo="run `cohortium-board collect`; an aggregator has a folder of its own",
        )
    authority = pinned_authority(config)
    database = BoardDatabase.of(paths, config)
    database.migrate()
    store = AggregatorStore(paths.home / STORE_NAME)

    def keep_roster(data: bytes) -> None:
        with database.transaction() as connection:
            take_roster(connection, data, authority=authority, now_s=clock.now_s())

    certificate = read_certificate(paths)
    with connected(paths.tls_key, certificate, address=config.relay) as connection:
        aggregator = Aggregator(
            store,
            RelayOfAggregator(connection),
            signing_key=SigningKey.read(paths.signing_key),
            authority=authority,
            take_roster=keep_roster,
            current=lambda: current_state(paths, config, database, now_s=clock.now_s()),
        )
        try:
            yield lambda: aggregator.step(now_s=clock.now_s())
        finally:
            store.close()
            database.close()


def current_state(
    paths: BoardPaths, config: BoardConfig, database: BoardDatabase, *, now_s: int
) -> Aggregating:
    """Return what holds for an aggregator now.

    Raises:
        ProtocolError: O5 or O9 without a roster in force; V11 when the roster does not name it so.
        KeyFileError: an opening key cannot be read.
    """
    with database.reading() as connection:
        book = read_book(connection)
        plans = {study_id: item.plan for study_id, item in read_plans(connection).items()}
    roster = book.in_force(now_s)
    role = BoardRole(config.role)
    if not any(
        board.board_id == config.board_id and board.role is role for board in roster.active_boards()
    ):
        raise ProtocolError(
            "this aggregator has no part",
            expected=f"{config.board_id} as an active {role.value} of the roster",
            arrived=f"roster version {roster.version} without it",
            todo="ask the consortium's authority",
            number="V11",
        )
    return Aggregating(
        aggregator_id=BoardId(config.board_id),
        role=role,
        opening_keys=OpeningKeys.read(paths.opening_keys).keys,
        roster=roster,
        plans=plans,
        check_key=None,  # the aggregator's own store knows the newest one
        earlier=book.before(roster),
    )


def watch(
    step: Callable[[], Step],
    *,
    every_s: float,
    say: Callable[[Step], None],
    complain: Callable[[CohortiumError], None],
) -> None:
    """Do steps for ever; whatever a step is refused by is said, and tried again at the next one.

    A relay that is away, a full disk, a database that is locked, a roster that has ended: each may
    be mended while this runs, and a step does nothing twice.
    """
    while True:
        try:
            say(step())
        except CohortiumError as error:
            complain(error)
        time.sleep(every_s)
