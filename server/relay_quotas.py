"""How much one member may leave at the relay in a day, so that a stolen key fills no disk.

A day is a day of UTC. What was left before a restart counts: it is read from the store once a day
for each member; from then on the one process that writes counts by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection, func, select

from common.errors import ProtocolError
from common.protocol.monitoring.refusals import refusal
from server.config import RelayConfig
from server.relay import SealedReport
from server.relay_notices import RelayedNotice
from server.storage.database import Database
from server.storage.tables import relay_notices, relay_reports

DAY_S: Final = 86_400
KeyT = TypeVar("KeyT", bound=Hashable)
Used = tuple[int, int]
"""Items and their bytes."""


@dataclass(frozen=True)
class Quota:
    """What is allowed in one day.

    Args:
        items: reports or notices.
        bytes: of all of them together.
    """

    items: int
    bytes: int


class DayQuota(Generic[KeyT]):
    """Counts what members leave; used by one thread.

    Args:
        quota: of each key.
        used_since: what the store holds of a key since a time, seconds since 1970.
    """

    def __init__(self, quota: Quota, used_since: Callable[[Connection, KeyT, int], Used]) -> None:
        self._quota = quota
        self._used_since = used_since
        self._day = -1
        self._used: dict[KeyT, Used] = {}

    def take(self, connection: Connection, key: KeyT, size: int, *, now_s: int) -> bool:
        """Count one item of so many bytes; return False, and count nothing, beyond the quota."""
        day = now_s // DAY_S
        if day != self._day:
            self._day, self._used = day, {}
        if key not in self._used:
            self._used[key] = self._used_since(connection, key, day * DAY_S)
        items, taken = self._used[key]
        if items + 1 > self._quota.items or taken + size > self._quota.bytes:
            return False
        self._used[key] = (items + 1, taken + size)
        return True

    def forget(self) -> None:
        """Read from the store again: a transaction that counted was rolled back."""
        self._used = {}


class RelayQuotas:
    """What each site may leave in a study, and each board at all.

    Args:
        config: None: as much as they like.
    """

    def __init__(self, config: RelayConfig | None) -> None:
        self._reports: DayQuota[tuple[str, str]] | None = None
        self._notices: DayQuota[str] | None = None
        if config is not None:
            self._reports = DayQuota(
                Quota(config.reports_per_day_max, config.report_bytes_per_day_max), _reports_since
            )
            self._notices = DayQuota(
                Quota(config.board_notices_per_day_max, config.board_notice_bytes_per_day_max),
                _notices_since,
            )

    def counting_reports(self, database: Database) -> AbstractContextManager[Connection]:
        """Give a transaction; what of reports is counted in it counts only if it ends well."""
        return _counting(database, self._reports)

    def counting_notices(self, database: Database) -> AbstractContextManager[Connection]:
        """Give a transaction; what of notices is counted in it counts only if it ends well."""
        return _counting(database, self._notices)

    def refuse_report(
        self, connection: Connection, report: SealedReport, *, now_s: int
    ) -> ProtocolError | None:
        """Count a report, or return its refusal B14."""
        study_id, site_id, _ = report.place
        size = len(report.envelope)
        if self._reports is None or self._reports.take(
            connection, (study_id, site_id), size, now_s=now_s
        ):
            return None
        return _too_much(f"site {site_id} in study {study_id}")

    def refuse_notice(
        self, connection: Connection, notice: RelayedNotice, *, now_s: int
    ) -> ProtocolError | None:
        """Count a board's notice, or return its refusal B14; our own machine's are not counted."""
        size = len(notice.content)
        if (
            self._notices is None
            or not notice.sender
            or self._notices.take(connection, notice.sender, size, now_s=now_s)
        ):
            return None
        return _too_much(f"board {notice.sender}")


@contextmanager
def _counting(database: Database, quota: DayQuota[Any] | None) -> Iterator[Connection]:
    # Reports and notices are written by a thread each: one's failure leaves the other's counts be.
    try:
        with database.transaction() as connection:
            yield connection
    except BaseException:
        if quota is not None:
            quota.forget()
        raise


def _reports_since(connection: Connection, key: tuple[str, str], since_s: int) -> Used:
    table = relay_reports
    query = select(func.count(), func.coalesce(func.sum(func.length(table.c.envelope)), 0)).where(
        table.c.study_id == key[0], table.c.site_id == key[1], table.c.received_at_s >= since_s
    )
    count, size = connection.execute(query).one()
    return int(count), int(size)


def _notices_since(connection: Connection, sender: str, since_s: int) -> Used:
    table = relay_notices
    query = select(func.count(), func.coalesce(func.sum(func.length(table.c.notice)), 0)).where(
        table.c.sender == sender, table.c.received_at_s >= since_s
    )
    count, size = connection.execute(query).one()
    return int(count), int(size)


def _too_much(who: str) -> ProtocolError:
    return refusal(
        "B14",
        expected="no more in one day than [relay] of the coordinator's server.toml allows",
        arrived=f"more, of {who}",
        todo="send it again tomorrow; if it is needed today, ask the coordinator",
    )
