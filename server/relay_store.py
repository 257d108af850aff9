"""What the relay keeps on disk: sealed reports, signed notices and their bodies, pinned rosters.

One process writes reports, in batches; positions rise in the order of commits and have no holes, so
that whoever reads "after position n" misses nothing and gets nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Table,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
)

from common.clock import Clock
from common.errors import ProtocolError
from common.ids import Digest
from common.protocol.monitoring.signed_notice import NoticeKind
from server.relay import Link, Place, SealedReport, check_chain
from server.relay_expiry import KeptNotice
from server.relay_notices import RelayedNotice
from server.relay_quotas import RelayQuotas
from server.storage.database import Database
from server.storage.tables import (
    relay_bodies,
    relay_notices,
    relay_reports,
    relay_rosters,
    sites,
    studies,
)

PAGE_ROWS: Final = 64
PAGE_BYTES: Final = 1 << 20  # of rows read at once, or one row: readers may be many and slow
BODY_PART_BYTES: Final = 1 << 20

_NEIGHBOURS: Final = select(
    relay_reports.c.sequence, relay_reports.c.digest, relay_reports.c.previous
).where(
    relay_reports.c.study_id == bindparam("study"),
    relay_reports.c.site_id == bindparam("site"),
    relay_reports.c.sequence.between(bindparam("first"), bindparam("last")),
)


@dataclass(frozen=True)
class StoredReport:
    """A report at its position."""

    position: int
    envelope: bytes
    received_at_s: int


@dataclass(frozen=True)
class StoredNotice:
    """A notice at its position; its body is read in parts."""

    position: int
    notice: bytes
    body_bytes: int


@dataclass(frozen=True)
class PinnedRoster:
    """A roster as it was pinned."""

    content: bytes
    pinned_at_s: int


class RelayStore:
    """The relay's tables; every change is one transaction."""

    def __init__(self, database: Database, clock: Clock, quotas: RelayQuotas | None = None) -> None:
        """Args: quotas: what members may leave in a day; none on the coordinator's own machine."""
        self._database = database
        self._clock = clock
        self._quotas = quotas or RelayQuotas(None)

    def append_reports(self, reports: Sequence[SealedReport]) -> list[int | Exception]:
        """Store reports, and return for each its position, or its refusal: B8, B14.

        The same bytes again get the position that they have.
        """
        with self._quotas.counting_reports(self._database) as connection:
            positions = _positions(connection, relay_reports, [item.digest for item in reports])
            chain = _neighbours(connection, reports)
            position = _last_position(connection, relay_reports)
            now_s, rows = self._clock.now_s(), []
            answers: list[int | Exception] = []
            for report in reports:
                if report.digest in positions:
                    answers.append(positions[report.digest])
                    continue
                try:
                    check_chain(report, chain.get)
                except ProtocolError as error:
                    answers.append(error)
                    continue
                refused = self._quotas.refuse_report(connection, report, now_s=now_s)
                if refused is not None:
                    answers.append(refused)
                    continue
                position += 1
                rows.append(_report_row(report, position, now_s))
                positions[report.digest] = position
                chain[report.place] = Link(report.digest, report.previous)
                answers.append(position)
            if rows:
                connection.execute(insert(relay_reports), rows)
        return answers

    def reports_after(self, study_id: str, after: int, limit: int) -> Sequence[StoredReport]:
        """Return up to `limit`, and up to a page, of one study's reports; "" means any study."""
        table = relay_reports
        wanted = table.c.position > after
        if study_id:
            wanted &= table.c.study_id == study_id
        columns = (table.c.position, table.c.envelope, table.c.received_at_s)
        with self._database.reading() as connection:
            page = _page(connection, columns, wanted, limit)
        return [StoredReport(*row) for row in page]

    def append_notices(self, notices: Sequence[RelayedNotice]) -> list[int | Exception]:
        """Store notices, and return for each its position, or its refusal: B14.

        The same notice keeps the position that it has.
        """
        with self._quotas.counting_notices(self._database) as connection:
            return list(_add_notices(connection, notices, self._clock.now_s(), self._quotas))

    def notices_of(self, kind: NoticeKind) -> Sequence[bytes]:
        """Return every notice of a kind, in order of position."""
        table = relay_notices
        query = select(table.c.notice).where(table.c.kind == kind.value).order_by(table.c.position)
        with self._database.reading() as connection:
            return connection.execute(query).scalars().all()

    def count_of(self, kind: NoticeKind) -> int:
        """Return how many notices of a kind there are."""
        table = relay_notices
        query = select(func.count()).select_from(table).where(table.c.kind == kind.value)
        with self._database.reading() as connection:
            return connection.execute(query).scalar() or 0

    def notices_after(self, site_id: str | None, after: int, limit: int) -> Sequence[StoredNotice]:
        """Return up to `limit`, and up to a page, of notices.

        Args:
            site_id: whose notices, with those to everybody; None: all.
        """
        table = relay_notices
        wanted: ColumnElement[bool] = table.c.position > after
        if site_id is not None:
            wanted &= or_(table.c.site_id == "", table.c.site_id == site_id)
        columns = (table.c.position, table.c.notice, table.c.body_bytes)
        with self._database.reading() as connection:
            page = _page(connection, columns, wanted, limit)
        return [StoredNotice(*row) for row in page]

    def body_part(self, position: int, part: int) -> bytes:
        """Return one part of a notice's body; empty beyond the last."""
        table = relay_bodies
        query = select(table.c.content).where(table.c.position == position, table.c.part == part)
        with self._database.reading() as connection:
            return connection.execute(query).scalar() or b""

    def rosters(self) -> Sequence[PinnedRoster]:
        """Return every pinned roster, the newest first."""
        table = relay_rosters
        query = select(table.c.content, table.c.pinned_at_s).order_by(table.c.version.desc())
        with self._database.reading() as connection:
            return [PinnedRoster(*row) for row in connection.execute(query)]

    def newest_roster_version(self) -> int:
        """Return the version of the newest pinned roster; 0 for none."""
        with self._database.reading() as connection:
            return connection.execute(select(func.max(relay_rosters.c.version))).scalar() or 0

    def roster(self, version: int) -> bytes | None:
        """Return one pinned roster; None for a version that was never pinned."""
        table = relay_rosters
        query = select(table.c.content).where(table.c.version == version)
        with self._database.reading() as connection:
            return connection.execute(query).scalar()

    def pin_roster(
        self, notice: RelayedNotice, version_after: Callable[[bytes | None], tuple[int, Digest]]
    ) -> int:
        """Pin a roster and give it to every member as a notice; return the notice's position.

        Args:
            notice: the roster.
            version_after: verifies it against the pinned one (None: the first) inside the
                transaction; returns version and digest, or raises to change nothing.
        """
        table, now_s = relay_rosters, self._clock.now_s()
        with self._database.transaction() as connection:
            newest = connection.execute(
                select(table.c.content).order_by(table.c.version.desc()).limit(1)
            ).scalar()
            if newest != notice.content:
                version, digest = version_after(newest)
                connection.execute(
                    insert(table).values(
                        version=version, digest=digest, content=notice.content, pinned_at_s=now_s
                    )
                )
            [position] = _add_notices(connection, [notice], now_s)
        if isinstance(position, Exception):
            raise position
        return position

    def admitted_sites(self) -> frozenset[str]:
        """Return the sites that the coordinator has admitted, suspended or not."""
        with self._database.reading() as connection:
            return frozenset(connection.execute(select(sites.c.site_id)).scalars())

    def registered_studies(self) -> frozenset[str]:
        """Return the studies that the coordinator has registered."""
        with self._database.reading() as connection:
            return frozenset(connection.execute(select(studies.c.study_id)).scalars())

    def kept_notices(self, kind: NoticeKind) -> Iterator[KeptNotice]:
        """Yield the notices of a kind, in order of position."""
        table, after = relay_notices, 0
        columns = (table.c.position, table.c.sender, table.c.received_at_s, table.c.notice)
        while True:
            query = (
                select(*columns)
                .where(table.c.kind == kind.value, table.c.position > after)
                .order_by(table.c.position)
                .limit(PAGE_ROWS)
            )
            with self._database.reading() as connection:
                rows = [KeptNotice(*row) for row in connection.execute(query)]
            yield from rows
            if not rows:
                return
            after = rows[-1].position

    def delete_notices(self, positions: Sequence[int]) -> int:
        """Delete notices, never the newest of all, whose position none other gets."""
        with self._database.transaction() as connection:
            last = _last_position(connection, relay_notices)
            wanted = [position for position in positions if position != last]
            for start in range(0, len(wanted), PAGE_ROWS):
                part = wanted[start : start + PAGE_ROWS]
                for table in (relay_bodies, relay_notices):
                    connection.execute(delete(table).where(table.c.position.in_(part)))
        return len(wanted)

    def counts(self) -> tuple[int, int]:
        """Return the last positions of reports and of notices: how many came."""
        with self._database.reading() as connection:
            return _last_position(connection, relay_reports), _last_position(
                connection, relay_notices
            )


def _positions(
    connection: Connection, table: Table, digests: Sequence[Digest]
) -> dict[Digest, int]:
    query = select(table.c.digest, table.c.position).where(table.c.digest.in_(digests))
    return {Digest(digest): position for digest, position in connection.execute(query)}


def _neighbours(connection: Connection, reports: Sequence[SealedReport]) -> dict[Place, Link]:
    """Return what the store has at, before and after the places of these reports."""
    # One look into the index for each: no engine uses an index for a list of triples.
    found: dict[Place, Link] = {}
    for study_id, site_id, sequence in {report.place for report in reports}:
        place = {"study": study_id, "site": site_id, "first": sequence - 1, "last": sequence + 1}
        for row in connection.execute(_NEIGHBOURS, place):
            found[study_id, site_id, row.sequence] = Link(Digest(row.digest), Digest(row.previous))
    return found


def _page(
    connection: Connection,
    columns: tuple[Column[Any], Column[Any], Column[Any]],
    wanted: ColumnElement[bool],
    limit: int,
) -> Sequence[Row[Any, Any, Any]]:
    """Return the first rows, in order of position: as many as a page holds, and at least one.

    Args:
        columns: position, the large one, and another.
    """
    position, large, _ = columns
    sizes = connection.execute(
        select(position, func.length(large))
        .where(wanted)
        .order_by(position)
        .limit(min(limit, PAGE_ROWS))
    ).all()
    last, left = 0, PAGE_BYTES
    for place, size in sizes:
        left -= size
        if last and left < 0:
            break
        last = place
    query = select(*columns).where(wanted & (position <= last)).order_by(position)
    return connection.execute(query).all() if sizes else ()


def _last_position(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.max(table.c.position))).scalar() or 0


def _report_row(report: SealedReport, position: int, now_s: int) -> dict[str, object]:
    study_id, site_id, sequence = report.place
    return {
        "position": position,
        "study_id": study_id,
        "site_id": site_id,
        "sequence": sequence,
        "digest": report.digest,
        "previous": report.previous,
        "envelope": report.envelope,
        "received_at_s": now_s,
    }


def _add_notices(
    connection: Connection,
    notices: Sequence[RelayedNotice],
    now_s: int,
    quotas: RelayQuotas | None = None,
) -> Iterator[int | Exception]:
    positions = _positions(connection, relay_notices, [notice.digest for notice in notices])
    last = _last_position(connection, relay_notices)
    for notice in notices:
        if notice.digest in positions:
            yield positions[notice.digest]
            continue
        refused = quotas and quotas.refuse_notice(connection, notice, now_s=now_s)
        if refused:
            yield refused
            continue
        last += 1
        positions[notice.digest] = last
        connection.execute(
            insert(relay_notices).values(
                position=last,
                kind=notice.kind,
                site_id=notice.site_id,
                digest=notice.digest,
                notice=notice.content,
                body_bytes=len(notice.body),
                received_at_s=now_s,
                sender=notice.sender,
            )
        )
        for part, start in enumerate(range(0, len(notice.body), BODY_PART_BYTES)):
            content = notice.body[start : start + BODY_PART_BYTES]
            connection.execute(
                insert(relay_bodies).values(position=last, part=part, content=content)
            )
        yield last
