"""Append-only audit of every release, report and refusal, hash-chained, with the cached bytes.

The payload of a release and its log entry are one transaction: there is no release without its
entry, and no entry whose payload was lost before it could be sent again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.canonical import Canonical, canonical_bytes, digest_bytes, parse_canonical
from common.clock import Clock
from common.errors import CohortiumError, LedgerError
from common.ids import Digest, ReleaseId, StudyId
from common.protocol.fields import Fields
from common.study.report_tensors import ReportKind
from site_client.site_database import SiteDatabase

GENESIS: Final = digest_bytes("release-log-genesis")
KEPT_ROUNDS: Final = 2
"""Cached bytes of older rounds are dropped: a round that is over is never asked again."""
_OF_REPORTS: Final = ("kind", "period", "model_version", "plan_digest")
KEPT_REPLIES: Final = 4
"""Sealed replies kept for a release: a retry needs the newest, and a flood must not fill the disk.
"""


@dataclass(frozen=True)
class LogEntry:
    """One release, report or refusal.

    Args:
        what: "release", "report" (of monitoring) or "refusal".
        release_id: of a release or report, else empty.
        number: of a refusal (R or G), else empty.
        payload_digest: of a release's payload, else empty.
        size_bytes: of the payload.
        ledger_head: newest ledger entry when it was written.
        kind, period, model_version, plan_digest: of a report, else empty.
    """

    sequence: int
    at_s: int
    what: str
    study_id: str
    round_number: int
    release_id: str
    number: str
    payload_digest: str
    size_bytes: int
    ledger_head: str
    digest: Digest
    kind: str = ""
    period: str = ""
    model_version: str = ""
    plan_digest: str = ""


@dataclass(frozen=True)
class LoggedReport:
    """A monitoring report that may leave.

    Args:
        release_id: of the report.
        account: that paid for it.
        kind, period: of the report.
        model_version: that was scored.
        plan_digest: of the plan that says what the counts are.
        content: its plaintext, which is sealed.
    """

    release_id: ReleaseId
    account: StudyId
    kind: ReportKind
    period: str
    model_version: Digest
    plan_digest: Digest
    content: bytes


class ReleaseLog:
    """The log of one site."""

    def __init__(self, database: SiteDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def payload(self, release_id: ReleaseId) -> bytes | None:
        """Return the cached payload of a release, or None."""
        rows = self._database.rows("SELECT payload FROM payloads WHERE release_id = ?", release_id)
        return _bytes(rows[0][0]) if rows else None

    def reply(self, request_digest: str) -> bytes | None:
        """Return the reply that was sent to exactly these request bytes, or None."""
        rows = self._database.rows(
            "SELECT envelope FROM replies WHERE request_digest = ?", request_digest
        )
        return _bytes(rows[0][0]) if rows else None

    def append_release(
        self,
        release_id: ReleaseId,
        *,
        study_id: StudyId,
        round_number: int,
        payload: bytes,
        ledger_head: Digest,
    ) -> None:
        """Log a release and keep its payload, durable on return; raises `LedgerError`."""
        record: dict[str, Canonical] = {
            "what": "release",
            "study_id": study_id,
            "round": round_number,
            "release_id": release_id,
            "number": "",
            "payload_digest": digest_bytes("payload", payload),
            "size_bytes": len(payload),
            "ledger_head": ledger_head,
        }
        with self._database.transaction() as connection:
            self._append(connection, record)
            connection.execute(
                "INSERT INTO payloads VALUES (?, ?, ?, ?)",
                (release_id, study_id, round_number, sqlite3.Binary(payload)),
            )
            old = round_number - KEPT_ROUNDS
            connection.execute(
                "DELETE FROM replies WHERE release_id IN "
                "(SELECT release_id FROM payloads WHERE study_id = ? AND round <= ?)",
                (study_id, old),
            )
            connection.execute(
                "DELETE FROM payloads WHERE study_id = ? AND round <= ?", (study_id, old)
            )

    def append_report(self, report: LoggedReport, *, number: int, ledger_head: Digest) -> None:
        """Log a report and keep its content for good, durable on return; raises `LedgerError`.

        Args:
            report: noised and checked.
            number: what stands for its round.
            ledger_head: newest ledger entry.
        """
        record: dict[str, Canonical] = {
            "what": "report",
            "study_id": report.account,
            "round": number,
            "release_id": report.release_id,
            "number": "",
            "payload_digest": digest_bytes("payload", report.content),
            "size_bytes": len(report.content),
            "ledger_head": ledger_head,
            "kind": report.kind.value,
            "period": report.period,
            "model_version": report.model_version,
            "plan_digest": report.plan_digest,
        }
        with self._database.transaction() as connection:
            self._append(connection, record)
            connection.execute(
                "INSERT INTO payloads VALUES (?, ?, ?, ?)",
                (report.release_id, report.account, number, sqlite3.Binary(report.content)),
            )

    def report(self, release_id: ReleaseId) -> LoggedReport | None:
        """Return a logged report, or None; raises `LedgerError`."""
        if self.payload(release_id) is None:
            return None
        return next((item for item in self.reports() if item.release_id == release_id), None)

    def reports(self) -> tuple[LoggedReport, ...]:
        """Return every logged report, oldest first; raises `LedgerError`."""
        found = []
        for entry in self.entries():
            if entry.what != "report":
                continue
            release_id = ReleaseId(entry.release_id)
            content = self.payload(release_id)
            if content is None or digest_bytes("payload", content) != entry.payload_digest:
                raise _broken(entry.sequence)
            found.append(
                LoggedReport(
                    release_id,
                    StudyId(entry.study_id),
                    ReportKind(entry.kind),
                    entry.period,
                    Digest(entry.model_version),
                    Digest(entry.plan_digest),
                    content,
                )
            )
        return tuple(found)

    def keep_split(
        self, release_id: ReleaseId, make: Callable[[], tuple[bytes, bytes]]
    ) -> tuple[bytes, bytes]:
        """Return the two shares of a report, made now or before; durable on return."""
        query = "SELECT first, second FROM monitoring_splits WHERE release_id = ?"
        if not self._database.rows(query, release_id):
            with self._database.transaction() as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO monitoring_splits VALUES (?, ?, ?)",
                    (release_id, *(sqlite3.Binary(share) for share in make())),
                )
        ((first, second),) = self._database.rows(query, release_id)
        return _bytes(first), _bytes(second)

    def is_failed(self, release_id: ReleaseId) -> bool:
        """Whether this release was computed and let nothing out; it is never computed again."""
        query = "SELECT 1 FROM failed_releases WHERE release_id = ?"
        return bool(self._database.rows(query, release_id))

    def record_failed(self, release_id: ReleaseId) -> None:
        """Record that a computation let nothing out, durable on return; raises `LedgerError`."""
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO failed_releases VALUES (?)", (release_id,))

    def append_refusal(
        self, *, study_id: str, round_number: int, number: str, ledger_head: Digest
    ) -> None:
        """Log a refusal; raises `LedgerError`."""
        record: dict[str, Canonical] = {
            "what": "refusal",
            "study_id": study_id,
            "round": round_number,
            "release_id": "",
            "number": number,
            "payload_digest": "",
            "size_bytes": 0,
            "ledger_head": ledger_head,
        }
        with self._database.transaction() as connection:
            self._append(connection, record)

    def keep_reply(self, request_digest: str, release_id: ReleaseId, envelope: bytes) -> None:
        """Keep the sealed reply to these request bytes; raises `LedgerError`."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?)",
                (request_digest, release_id, sqlite3.Binary(envelope)),
            )
            connection.execute(
                "DELETE FROM replies WHERE release_id = ? AND rowid NOT IN (SELECT rowid FROM "
                "replies WHERE release_id = ? ORDER BY rowid DESC LIMIT ?)",
                (release_id, release_id, KEPT_REPLIES),
            )

    def entries(self) -> tuple[LogEntry, ...]:
        """Return all entries, oldest first; raises `LedgerError` when the chain is broken."""
        rows = self._database.rows("SELECT sequence, entry FROM release_log ORDER BY sequence")
        entries: list[LogEntry] = []
        head = GENESIS
        for number, (sequence, raw) in enumerate(rows, start=1):
            entry = _parse(_bytes(raw), number, head)
            if sequence != number:
                raise _broken(number)
            entries.append(entry)
            head = entry.digest
        return tuple(entries)

    def verify(self) -> tuple[LogEntry, ...]:
        """Check the chain and every cached payload against its entry; raises `LedgerError`."""
        entries = self.entries()
        for entry in entries:
            if entry.what in ("release", "report"):
                payload = self.payload(ReleaseId(entry.release_id))
                if payload is not None and digest_bytes("payload", payload) != entry.payload_digest:
                    raise _broken(entry.sequence)
        return entries

    def _append(self, connection: sqlite3.Connection, record: dict[str, Canonical]) -> None:
        row = connection.execute(
            "SELECT sequence, entry FROM release_log ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        sequence, previous = (0, GENESIS) if row is None else (row[0], _digest(row[1]))
        entry = canonical_bytes(
            {**record, "sequence": sequence + 1, "at_s": self._clock.now_s(), "previous": previous}
        )
        connection.execute(
            "INSERT INTO release_log VALUES (?, ?)", (sequence + 1, sqlite3.Binary(entry))
        )


def _parse(raw: bytes, number: int, head: Digest) -> LogEntry:
    try:
        fields = Fields(parse_canonical(raw), "release log entry")
        previous = fields.text("previous")
        what = fields.text("what")
        names = _OF_REPORTS if what == "report" else ()
        entry = LogEntry(
            sequence=fields.integer("sequence", minimum=1, maximum=2**53 - 1),
            at_s=fields.integer("at_s", minimum=0, maximum=2**40),
            what=what,
            study_id=fields.text("study_id"),
            round_number=fields.integer("round", minimum=0, maximum=2**31),
            release_id=fields.text("release_id"),
            number=fields.text("number"),
            payload_digest=fields.text("payload_digest"),
            size_bytes=fields.integer("size_bytes", minimum=0, maximum=2**40),
            ledger_head=fields.text("ledger_head"),
            digest=_digest(raw),
            **{name: fields.text(name) for name in names},
        )
        fields.close()
    except CohortiumError:
        raise _broken(number) from None
    if entry.sequence != number or previous != head:
        raise _broken(number)
    return entry


def _digest(raw: bytes) -> Digest:
    return digest_bytes("release-log-entry", raw)


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise _broken(0)
    return value


def _broken(number: int) -> LedgerError:
    return LedgerError(
        f"the release log is broken at entry {number}",
        expected="an unbroken chain of entries, and the payloads they name",
        arrived="an entry that was changed, removed or put in",
        todo="stop the agent, keep the file for investigation, restore it from its backup",
    )
