"""What an aggregator must never forget: which closing it answered, and with which bytes.

One SQLite file, flushed to disk at each commit. Shares stand here sealed, as they arrived; what was
opened is never stored.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.errors import ProtocolError, StoreError
from common.ids import Digest, StudyId
from common.protocol.monitoring.closing import Closing
from common.protocol.monitoring.report_header import ReportHeader
from common.study.report_tensors import ReportKind

_TABLES: Final = """
begin immediate;
create table if not exists positions (stream text primary key, position integer not null);
create table if not exists shares (
    digest text primary key, study_id text not null, period text not null,
    envelope blob not null, arrived_at_s integer not null, tried_under text not null
);
create table if not exists closings (
    digest text primary key, study_id text not null, period text not null, kind text not null,
    notice blob not null
);
create table if not exists answers (
    study_id text not null, period text not null, kind text not null,
    closing text not null, primary key (study_id, period, kind)
);
create table if not exists check_keys (number integer primary key, commitment text not null);
create table if not exists outgoing (
    id integer primary key, notice blob not null unique, is_published integer not null default 0
);
commit;
"""


@dataclass(frozen=True)
class HeldShare:
    """A share's envelope as it arrived.

    Args:
        tried_under: which roster, plans and key it was last tried under; "" before the first time,
            "opened" when it was acknowledged.
    """

    digest: Digest
    envelope: bytes
    arrived_at_s: int
    tried_under: str


OPENED: Final = "opened"
CLOSINGS_MAX: Final = 64  # of one sum: a board closes once, some boards at the same time


class AggregatorStore:
    """The durable state of one aggregator.

    Args:
        path: of the file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._depth = 0
        with self._refusing():
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._connection.execute("pragma synchronous = full")
            self._connection.executescript(_TABLES)

    def position(self, stream: str) -> int:
        """Return how far a stream of the relay was read; 0 at first."""
        rows = self._rows("select position from positions where stream = ?", stream)
        return int(rows[0][0]) if rows else 0

    def keep_share(
        self, digest: Digest, header: ReportHeader, envelope: bytes, *, arrived_at_s: int
    ) -> None:
        """Keep a sealed share; the same one again changes nothing."""
        self._write(
            "insert or ignore into shares values (?, ?, ?, ?, ?, '')",
            digest,
            header.study_id,
            header.period,
            envelope,
            arrived_at_s,
        )

    def keep_closing(self, digest: Digest, closing: Closing, notice: bytes) -> None:
        """Keep a closing that is yet to be checked; of one sum at most `CLOSINGS_MAX`."""
        names = (closing.study_id, closing.period, closing.kind.value)
        self._write(
            "insert or ignore into closings select ?, ?, ?, ?, ? where (select count(*) from "
            "closings where study_id = ? and period = ? and kind = ?) < ?",
            digest,
            *names,
            notice,
            *names,
            CLOSINGS_MAX,
        )

    def keep_check_key(self, number: int, commitment: Digest) -> None:
        """Remember a check key's commitment; the first of a number stays."""
        self._write("insert or ignore into check_keys values (?, ?)", number, commitment)

    def check_key(self) -> Digest | None:
        """Return the commitment of the newest check key."""
        rows = self._rows("select commitment from check_keys order by number desc limit 1")
        return Digest(rows[0][0]) if rows else None

    def move_position(self, stream: str, position: int) -> None:
        """Remember how far a stream was read; call it after what was read is kept."""
        self._write("insert or replace into positions values (?, ?)", stream, position)

    def shares_to_try(self, under: str) -> tuple[HeldShare, ...]:
        """Return the shares that were neither opened nor tried under these circumstances."""
        rows = self._rows(
            "select digest, envelope, arrived_at_s, tried_under from shares "
            "where tried_under not in (?, ?) order by arrived_at_s, digest",
            OPENED,
            under,
        )
        return tuple(HeldShare(*row) for row in rows)

    def share(self, digest: Digest) -> HeldShare | None:
        """Return one share."""
        rows = self._rows(
            "select digest, envelope, arrived_at_s, tried_under from shares where digest = ?",
            digest,
        )
        return HeldShare(*rows[0]) if rows else None

    def set_tried(self, digest: Digest, under: str) -> None:
        """Remember that a share was refused under these circumstances."""
        self._write("update shares set tried_under = ? where digest = ?", under, digest)

    def acknowledge(self, digest: Digest, receipt: bytes) -> None:
        """Remember that a share was opened, together with the receipt to publish."""
        with self._transaction():
            self._connection.execute(
                "update shares set tried_under = ? where digest = ?", (OPENED, digest)
            )
            self._connection.execute(
                "insert or ignore into outgoing (notice) values (?)", (receipt,)
            )

    def open_closings(self) -> tuple[bytes, ...]:
        """Return the closings of sums that have no answer, the first kept first."""
        rows = self._rows(
            "select notice from closings c where not exists (select 1 from answers a where "
            "a.study_id = c.study_id and a.period = c.period and a.kind = c.kind) order by rowid"
        )
        return tuple(row[0] for row in rows)

    def answer(self, closing: Closing, digest: Digest, notice: bytes) -> None:
        """Remember an answer for good, with the notice to publish, before anybody sees it.

        Args:
            closing, digest: what is answered.
            notice: the answer.

        Raises:
            ProtocolError: V17, when the sum was answered for another closing.
        """
        if self._depth:
            message = "an answer is on disk by itself, before anything else is done"
            raise RuntimeError(message)
        with self._transaction():
            answered = self.answered(closing.study_id, closing.period, closing.kind)
            if answered is not None and answered != digest:
                raise ProtocolError(
                    "a closing is refused",
                    expected="the closing that was answered for this study, period and kind",
                    arrived="another one: two sets of sites would tell of their difference",
                    todo="ask the board why it closed the period twice",
                    number="V17",
                )
            if answered is None:
                self._insert_answer(closing.study_id, closing.period, closing.kind, digest)
                self._connection.execute("insert into outgoing (notice) values (?)", (notice,))

    def keep_answer(
        self, study_id: StudyId, period: str, kind: ReportKind, closing: Digest
    ) -> None:
        """Remember an answer that the relay shows and this store, being new, does not know."""
        with self._transaction():
            if self.answered(study_id, period, kind) is None:
                self._insert_answer(study_id, period, kind, closing)

    def answered(self, study_id: StudyId, period: str, kind: ReportKind) -> Digest | None:
        """Return the digest of the closing that was answered, if any."""
        rows = self._rows(
            "select closing from answers where study_id = ? and period = ? and kind = ?",
            study_id,
            period,
            kind.value,
        )
        return Digest(rows[0][0]) if rows else None

    def unpublished(self) -> tuple[tuple[int, bytes], ...]:
        """Return what is to be published, in order, with its number."""
        rows = self._rows("select id, notice from outgoing where not is_published order by id")
        return tuple((int(row[0]), row[1]) for row in rows)

    def set_published(self, number: int) -> None:
        """Remember that the relay has a notice."""
        self._write("update outgoing set is_published = 1 where id = ?", number)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _insert_answer(
        self, study_id: StudyId, period: str, kind: ReportKind, closing: Digest
    ) -> None:
        self._connection.execute(
            "insert into answers values (?, ?, ?, ?)", (study_id, period, kind.value, closing)
        )

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._refusing():
            return self._connection.execute(statement, values).fetchall()

    def _write(self, statement: str, *values: object) -> None:
        with self._transaction():
            self._connection.execute(statement, values)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Commit what is written inside at once, or nothing of it: one flush to disk, not many."""
        with self._transaction():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._depth:
            yield
            return
        # Immediate: two processes on one file take turns, so that only one of them answers.
        with self._refusing():
            self._connection.execute("begin immediate")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._connection.execute("rollback")
                raise
            finally:
                self._depth -= 1
            self._connection.execute("commit")

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                "the aggregator's store does not answer",
                expected=f"a readable and writable file {self._path.name} of this version",
                arrived=type(error).__name__,
                todo="check disk space and permissions; never replace the file by an older copy",
            ) from None
