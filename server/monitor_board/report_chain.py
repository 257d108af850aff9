"""The rows of the sites' chains, written inside the transaction that also moves the position.

Nothing here decides: `inbox` does. A report, its place in the chain, the gaps it opens or fills and
its receipt are one commit, so a process killed at any point has either all of them or none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from common.canonical import Canonical, canonical_bytes
from common.errors import CohortiumError
from common.ids import Digest, SiteId, StudyId
from common.protocol.monitoring.chain import ChainState
from common.protocol.monitoring.report_header import ReportHeader
from server.monitor_board.plausibility import Flag
from server.monitor_board.storage.tables import (
    chain_heads,
    envelopes,
    flags,
    gaps,
    positions,
    refusals,
    reports,
    waiting,
)


@dataclass(frozen=True)
class Arrived:
    """An envelope as the relay gave it.

    Args:
        position: the relay's; rises.
        envelope: its bytes.
        received_at_s: when the relay stored it, Unix time.
    """

    position: int
    envelope: bytes
    received_at_s: int


@dataclass(frozen=True)
class Opened:
    """What a report told this board.

    Args:
        counts: int32, little-endian, as in the plaintext.
        detail: mechanisms, ledger head and software version.
    """

    counts: bytes = b""
    epsilon_spent: float = 0.0
    epsilon_remaining: float = 0.0
    delta: float = 0.0
    detail: dict[str, Canonical] = field(default_factory=dict)


class ReportChain:
    """Reads and writes chains over one connection.

    Args:
        connection: of the caller's transaction.
        now_s: for the rows that say when.
    """

    def __init__(self, connection: Connection, *, now_s: int) -> None:
        self._connection = connection
        self._now_s = now_s

    def state(self, study_id: StudyId, site_id: SiteId) -> ChainState:
        """Return how far a site's chain is held without a gap."""
        row = self._connection.execute(
            select(chain_heads.c.sequence, chain_heads.c.digest).where(
                chain_heads.c.study_id == study_id, chain_heads.c.site_id == site_id
            )
        ).one_or_none()
        if row is None:
            return ChainState.start(study_id, site_id)
        return ChainState(study_id, site_id, row.sequence, Digest(row.digest))

    def is_waiting(self, digest: Digest) -> bool:
        """Return whether a report with this digest waits."""
        found = select(waiting.c.sequence).where(waiting.c.digest == digest)
        return self._connection.execute(found).first() is not None

    def held_at(self, header: ReportHeader) -> Digest | None:
        """Return the digest of the report that is held at a header's place, or None.

        In the chain, or waiting there for those before it.
        """
        for table, conditions in ((reports, ()), (waiting, (waiting.c.number == "B9",))):
            found = select(table.c.digest).where(
                table.c.study_id == header.study_id,
                table.c.site_id == header.site_id,
                table.c.sequence == header.sequence,
                *conditions,
            )
            digest = self._connection.execute(found).scalar()
            if digest is not None:
                return Digest(digest)
        return None

    def keep_envelope(self, digest: Digest, envelope: bytes) -> None:
        """Keep the bytes; again changes nothing."""
        known = select(envelopes.c.digest).where(envelopes.c.digest == digest)
        if self._connection.execute(known).first() is None:
            self._connection.execute(insert(envelopes).values(digest=digest, content=envelope))

    def append(
        self, header: ReportHeader, digest: Digest, arrived: Arrived, opened: Opened, refusal: str
    ) -> None:
        """Give the next report of a site its place, and fill its gap if it had one.

        Args:
            refusal: the number why it is not used, or empty.
        """
        self.keep_envelope(digest, arrived.envelope)
        self._connection.execute(
            insert(reports).values(
                study_id=header.study_id,
                site_id=header.site_id,
                sequence=header.sequence,
                digest=digest,
                kind=header.kind,
                period=header.period,
                model_version=header.model_version,
                roster=header.roster,
                key_epoch=header.key_epoch,
                position=arrived.position,
                received_at_s=arrived.received_at_s,
                taken_at_s=self._now_s,
                refusal=refusal,
                counts=opened.counts,
                epsilon_spent=opened.epsilon_spent,
                epsilon_remaining=opened.epsilon_remaining,
                delta=opened.delta,
                detail=canonical_bytes(opened.detail).decode(),
            )
        )
        self._move_head(header, digest)
        self._connection.execute(delete(waiting).where(waiting.c.digest == digest))
        self._connection.execute(
            update(gaps)
            .where(gaps.c.study_id == header.study_id, gaps.c.site_id == header.site_id)
            .where(gaps.c.sequence == header.sequence, gaps.c.filled_at_s.is_(None))
            .values(filled_at_s=self._now_s)
        )

    def set_aside(self, header: ReportHeader, digest: Digest, arrived: Arrived, why: str) -> None:
        """Let a report wait, for the number `why` says."""
        self.keep_envelope(digest, arrived.envelope)
        self._connection.execute(
            insert(waiting).values(
                digest=digest,
                study_id=header.study_id,
                site_id=header.site_id,
                sequence=header.sequence,
                position=arrived.position,
                received_at_s=arrived.received_at_s,
                number=why,
            )
        )

    def open_gaps(self, header: ReportHeader, state: ChainState) -> None:
        """Raise every sequence number that is missing before a report, each once."""
        missing = range(state.sequence + 1, header.sequence)
        here = (
            select(gaps.c.sequence)
            .where(gaps.c.study_id == header.study_id, gaps.c.site_id == header.site_id)
            .where(gaps.c.sequence.between(missing.start, missing.stop))
            .union(
                select(waiting.c.sequence).where(
                    waiting.c.study_id == header.study_id,
                    waiting.c.site_id == header.site_id,
                    waiting.c.number == "B9",
                )
            )
        )
        known = {row.sequence for row in self._connection.execute(here)}
        for sequence in missing:
            if sequence not in known:
                self.raise_gap(header, sequence)

    def raise_gap(self, header: ReportHeader, sequence: int) -> None:
        """Raise one missing number of a header's site; one that is open stays as it is."""
        key = {"study_id": header.study_id, "site_id": header.site_id, "sequence": sequence}
        known = select(gaps.c.sequence).filter_by(**key)
        if self._connection.execute(known).first() is None:
            self._connection.execute(insert(gaps).values(**key, opened_at_s=self._now_s))

    def refuse(
        self, arrived: Arrived, digest: Digest, error: CohortiumError, header: ReportHeader | None
    ) -> None:
        """Record why a report is refused or not used; the same refusal again changes nothing."""
        known = select(refusals.c.id).where(
            refusals.c.digest == digest, refusals.c.number == error.number
        )
        if self._connection.execute(known).first() is not None:
            return
        self._connection.execute(
            insert(refusals).values(
                position=arrived.position,
                digest=digest,
                study_id=header.study_id if header else "",
                site_id=header.site_id if header else "",
                sequence=header.sequence if header else 0,
                number=error.number,
                expected=error.expected,
                arrived=error.arrived,
                at_s=self._now_s,
            )
        )

    def flag(self, header: ReportHeader, found: tuple[Flag, ...]) -> None:
        """Record what is implausible in a report."""
        for item in found:
            self._connection.execute(
                insert(flags).values(
                    study_id=header.study_id,
                    site_id=header.site_id,
                    sequence=header.sequence,
                    check_name=item.check,
                    words=item.words,
                )
            )

    def waiting_at(self, study_id: StudyId, site_id: SiteId, sequence: int) -> tuple[Arrived, ...]:
        """Return the reports that wait for those before them at one place of a site's chain.

        Not those that wait for a roster: of them, nobody has verified the signature yet.
        """
        return self._waiting(
            waiting.c.number == "B9",
            waiting.c.study_id == study_id,
            waiting.c.site_id == site_id,
            waiting.c.sequence == sequence,
        )

    def waiting_for_roster(self) -> tuple[Arrived, ...]:
        """Return the reports that wait for another roster, the first arrived first."""
        return self._waiting(waiting.c.number != "B9")

    def count_waiting(self, header: ReportHeader) -> int:
        """Return how many reports of a header's site wait for another roster."""
        found = select(func.count()).where(
            waiting.c.study_id == header.study_id,
            waiting.c.site_id == header.site_id,
            waiting.c.number != "B9",
        )
        return int(self._connection.execute(found).scalar_one())

    def stop_waiting(self, digest: Digest) -> None:
        """Take a report out of those that wait."""
        self._connection.execute(delete(waiting).where(waiting.c.digest == digest))

    def period_taken(self, header: ReportHeader) -> bool:
        """Return whether a used report of the site tells of the same kind, period and model."""
        found = select(reports.c.sequence).where(
            reports.c.study_id == header.study_id,
            reports.c.site_id == header.site_id,
            reports.c.kind == header.kind,
            reports.c.period == header.period,
            reports.c.refusal == "",
        )
        if header.kind == "reference":  # each model has its own
            found = found.where(reports.c.model_version == header.model_version)
        return self._connection.execute(found).first() is not None

    def not_used(self, number: str) -> tuple[Arrived, ...]:
        """Return the reports in a chain that were opened and refused for one number."""
        rows = self._connection.execute(
            select(reports.c.position, reports.c.received_at_s, envelopes.c.content)
            .join(envelopes, envelopes.c.digest == reports.c.digest)
            .where(reports.c.refusal == number, reports.c.counts != b"")
            .order_by(reports.c.position)
        )
        return tuple(Arrived(row.position, row.content, row.received_at_s) for row in rows)

    def use(self, digest: Digest) -> None:
        """Let a report be used that was not."""
        self._connection.execute(
            update(reports).where(reports.c.digest == digest).values(refusal="")
        )

    def counts_before(self, header: ReportHeader) -> tuple[bytes, ...]:
        """Return the counts of the site's used reports of the same kind."""
        rows = self._connection.execute(
            select(reports.c.counts).where(
                reports.c.study_id == header.study_id,
                reports.c.site_id == header.site_id,
                reports.c.kind == header.kind,
                reports.c.refusal == "",
            )
        )
        return tuple(row.counts for row in rows)

    def move_position(self, stream: str, position: int) -> None:
        """Remember how far a stream of the relay was read."""
        changed = self._connection.execute(
            update(positions).where(positions.c.stream == stream).values(position=position)
        )
        if changed.rowcount == 0:
            self._connection.execute(insert(positions).values(stream=stream, position=position))

    def _move_head(self, header: ReportHeader, digest: Digest) -> None:
        key = {"study_id": header.study_id, "site_id": header.site_id}
        values = {"sequence": header.sequence, "digest": digest}
        if header.sequence == 1:
            self._connection.execute(insert(chain_heads).values(**key, **values))
            return
        self._connection.execute(
            update(chain_heads)
            .where(chain_heads.c.study_id == header.study_id)
            .where(chain_heads.c.site_id == header.site_id)
            .values(**values)
        )

    def _waiting(self, *conditions: Any) -> tuple[Arrived, ...]:
        rows: list[Row[Any]] = list(
            self._connection.execute(
                select(waiting.c.position, waiting.c.received_at_s, envelopes.c.content)
                .join(envelopes, envelopes.c.digest == waiting.c.digest)
                .where(*conditions)
                .order_by(waiting.c.position)
            )
        )
        return tuple(Arrived(row.position, row.content, row.received_at_s) for row in rows)
