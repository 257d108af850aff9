"""What the board knows, read only: for signals, pages and `status`; one query a study and table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, func, select

from common.ids import Digest, SiteId, StudyId, parse_digest, parse_site_id, parse_study_id
from common.protocol.monitoring.roster import MonitoringRoster
from common.study.report_tensors import ReportKind
from server.monitor_board.decision_book import KeptDecision, read_decisions
from server.monitor_board.kept_reports import CountedTensors, KeptReport
from server.monitor_board.plan_book import PlanOnBoard, read_plans
from server.monitor_board.roster_book import RosterBook, read_book
from server.monitor_board.storage.database import BoardDatabase
from server.monitor_board.storage.tables import (
    chain_heads,
    decisions,
    envelopes,
    flags,
    gaps,
    notices_out,
    plans,
    positions,
    promotions,
    refusals,
    refused_notices,
    reports,
    rosters,
    waiting,
)
from server.monitor_board.sum_book import SumState, kept_sums, sum_states


@dataclass(frozen=True)
class Gap:
    """A report that is missing from a site's chain.

    Args:
        sequence: its number.
        opened_at_s: when the board noticed, Unix time.
        filled_at_s: when it came; None while it is missing.
    """

    study_id: StudyId
    site_id: SiteId
    sequence: int
    opened_at_s: int
    filled_at_s: int | None


@dataclass(frozen=True)
class Refusal:
    """A report that is refused, or in its chain and not used.

    Args:
        study_id, site_id, sequence: as the header says, unverified for B1 to B5; may be empty.
        number: of `BOARD_REFUSALS`.
        expected, arrived: in words, without anything of the content.
    """

    study_id: str
    site_id: str
    sequence: int
    digest: Digest
    number: str
    expected: str
    arrived: str
    at_s: int


@dataclass(frozen=True)
class Flagged:
    """A report that is used and implausible; see `plausibility`."""

    study_id: StudyId
    site_id: SiteId
    sequence: int
    check: str
    words: str


@dataclass(frozen=True)
class ChainEnd:
    """The newest report of a site without a gap before it."""

    study_id: StudyId
    site_id: SiteId
    sequence: int
    digest: Digest
    received_at_s: int
    key_epoch: int


@dataclass(frozen=True)
class Waiting:
    """A report that waits, for the number's reason: B9 a gap, B3 a roster, B12 a suspension."""

    study_id: StudyId
    site_id: SiteId
    sequence: int
    number: str


class BoardStore:
    """Reads the board's store."""

    def __init__(self, database: BoardDatabase) -> None:
        self._database = database

    def plans(self) -> dict[StudyId, PlanOnBoard]:
        """Return the studies that are watched."""
        with self._database.reading() as connection:
            return read_plans(connection)

    def rosters(self) -> RosterBook:
        """Return the rosters taken; raises `ProtocolError` when there is none."""
        with self._database.reading() as connection:
            return read_book(connection)

    def newest_roster(self) -> MonitoringRoster | None:
        """Return the newest roster, or None."""
        with self._database.reading() as connection:
            if connection.execute(select(rosters.c.version)).first() is None:
                return None
            return read_book(connection).newest()

    def kept_reports(self, study_id: StudyId) -> tuple[KeptReport, ...]:
        """Return the used reports of a study, by site and place in its chain; then secure sums."""
        query = (
            select(
                reports.c.site_id,
                reports.c.kind,
                reports.c.period,
                reports.c.sequence,
                reports.c.received_at_s,
                reports.c.model_version,
                reports.c.epsilon_spent,
                reports.c.epsilon_remaining,
                reports.c.delta,
                reports.c.digest,
                reports.c.counts,
            )
            .where(reports.c.study_id == study_id, reports.c.refusal == "")
            .order_by(reports.c.site_id, reports.c.sequence)
        )
        with self._database.reading() as connection:
            on_board = read_plans(connection)[study_id]
            rows = connection.execute(query).all()
            odd = _flagged_places(connection, study_id)
            sums = kept_sums(connection, on_board.plan)
        layouts = {kind: on_board.schema(kind).layout for kind in ReportKind}
        kinds = {kind.value: kind for kind in ReportKind}
        return (
            tuple(
                KeptReport(
                    study_id=study_id,
                    site_id=SiteId(site_id),
                    kind=kinds[kind],
                    period=period,
                    sequence=sequence,
                    received_at_s=received_at_s,
                    tensors=CountedTensors(layouts[kinds[kind]], np.frombuffer(counts, "<i4")),
                    model_version=Digest(model_version),
                    epsilon_spent=spent,
                    epsilon_remaining=remaining,
                    delta=delta,
                    digest=Digest(digest),
                    is_flagged=(site_id, sequence) in odd,
                )
                for (
                    site_id,
                    kind,
                    period,
                    sequence,
                    received_at_s,
                    model_version,
                    spent,
                    remaining,
                    delta,
                    digest,
                    counts,
                ) in rows
            )
            + sums
        )

    def sum_states(self, study_id: StudyId) -> tuple[SumState, ...]:
        """Return how far each closed secure sum of a study is."""
        with self._database.reading() as connection:
            return sum_states(connection, study_id)

    def envelopes(self, study_id: StudyId, *, kind: str) -> tuple[bytes, ...]:
        """Return the envelopes in the chains of one kind, as they arrived, by site and place."""
        query = (
            select(envelopes.c.content)
            .join(reports, reports.c.digest == envelopes.c.digest)
            .where(reports.c.study_id == study_id, reports.c.kind == kind)
            .order_by(reports.c.site_id, reports.c.sequence)
        )
        with self._database.reading() as connection:
            return tuple(row.content for row in connection.execute(query))

    def chain_ends(self) -> tuple[ChainEnd, ...]:
        """Return where each site's chain ends, with when its last report came."""
        query = select(chain_heads, reports.c.received_at_s, reports.c.key_epoch).join(
            reports, reports.c.digest == chain_heads.c.digest
        )
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(chain_heads.c.study_id, chain_heads.c.site_id))
            return tuple(
                ChainEnd(
                    parse_study_id(row.study_id),
                    parse_site_id(row.site_id),
                    row.sequence,
                    parse_digest(row.digest),
                    row.received_at_s,
                    row.key_epoch,
                )
                for row in rows
            )

    def gaps(self, *, also_filled: bool = False) -> tuple[Gap, ...]:
        """Return what is missing from the chains, the longest missing first."""
        query = select(gaps).order_by(gaps.c.opened_at_s, gaps.c.site_id, gaps.c.sequence)
        if not also_filled:
            query = query.where(gaps.c.filled_at_s.is_(None))
        with self._database.reading() as connection:
            return tuple(Gap(*row) for row in connection.execute(query))

    def waiting(self) -> tuple[Waiting, ...]:
        """Return the reports that wait."""
        columns = (waiting.c.study_id, waiting.c.site_id, waiting.c.sequence, waiting.c.number)
        with self._database.reading() as connection:
            rows = connection.execute(select(*columns).order_by(waiting.c.position))
            return tuple(Waiting(*row) for row in rows)

    def waiting_envelopes(self) -> tuple[bytes, ...]:
        """Return the reports that wait, as they arrived."""
        query = select(envelopes.c.content).join(waiting, waiting.c.digest == envelopes.c.digest)
        with self._database.reading() as connection:
            return tuple(row.content for row in connection.execute(query))

    def decisions(self, study_id: StudyId) -> tuple[KeptDecision, ...]:
        """Return a study's decisions, the first one first."""
        with self._database.reading() as connection:
            return read_decisions(connection, study_id)

    def refused_notices(self) -> tuple[tuple[int, str], ...]:
        """Return the relay's position and the reason of each notice that does not verify."""
        columns = (refused_notices.c.position, refused_notices.c.reason)
        with self._database.reading() as connection:
            rows = connection.execute(select(*columns).order_by(refused_notices.c.position))
            return tuple((row.position, row.reason) for row in rows)

    def refusals(self) -> tuple[Refusal, ...]:
        """Return the refused and unused reports, the newest last."""
        with self._database.reading() as connection:
            rows = connection.execute(select(refusals).order_by(refusals.c.id)).all()
        return tuple(
            Refusal(
                row.study_id,
                row.site_id,
                row.sequence,
                Digest(row.digest),
                row.number,
                row.expected,
                row.arrived,
                row.at_s,
            )
            for row in rows
        )

    def flagged(self) -> tuple[Flagged, ...]:
        """Return the implausible reports."""
        with self._database.reading() as connection:
            rows = connection.execute(
                select(flags).order_by(flags.c.study_id, flags.c.site_id, flags.c.sequence)
            )
            return tuple(Flagged(*row) for row in rows)

    def position(self, stream: str) -> int:
        """Return how far a stream of the relay was read; 0 before the first."""
        query = select(positions.c.position).where(positions.c.stream == stream)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def count_unpublished(self) -> int:
        """Return how many notices of this board the relay has not acknowledged."""
        query = select(func.count()).where(notices_out.c.published_at_s.is_(None))
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def newest_position(self) -> int:
        """Return a number that grows with everything the board reads or stores; one query."""
        counted = [
            select(func.count()).select_from(table).scalar_subquery()
            for table in (plans, rosters, decisions, promotions, refusals)
        ]
        read = select(func.coalesce(func.sum(positions.c.position), 0)).scalar_subquery()
        with self._database.reading() as connection:
            return sum(int(value) for value in connection.execute(select(read, *counted)).one())


def _flagged_places(connection: Connection, study_id: StudyId) -> frozenset[tuple[str, int]]:
    query = select(flags.c.site_id, flags.c.sequence).where(flags.c.study_id == study_id)
    return frozenset((site_id, sequence) for site_id, sequence in connection.execute(query))
