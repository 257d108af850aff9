"""A site's chain of sealed reports for each study: what left, in which order, and who has it.

A report is sealed when its turn comes, and not before: then it names the newest roster. Its number
in the chain and its bytes are kept before they are handed to the courier. When the newest is sealed
anew, the seal that it replaces is kept: the relay may hold that one, and then it stands.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.errors import CohortiumError, LedgerError
from common.ids import BoardId, Digest, ReleaseId, SiteId, StudyId
from common.protocol.monitoring.chain import ChainState
from common.protocol.monitoring.notice_checks import verify_receipt
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.report_envelope import read_report_header, report_digest
from common.protocol.monitoring.report_header import ReportHeader
from common.protocol.monitoring.roster import MonitoringRoster
from site_client.monitoring.outcomes import KNOWN, LATER, TAKEN, refused
from site_client.site_database import SiteDatabase


@dataclass(frozen=True)
class SealedReport:
    """One envelope of the chain.

    Args:
        release_id: of the report in it.
        envelope: its bytes.
        header: as it says.
    """

    release_id: ReleaseId
    envelope: bytes
    header: ReportHeader

    @property
    def state(self) -> ChainState:
        """The chain up to it."""
        header = self.header
        digest = report_digest(self.envelope)
        return ChainState(header.study_id, header.site_id, header.sequence, digest)


class ReportOutbox:
    """The chains of one site."""

    def __init__(self, database: SiteDatabase, site_id: SiteId) -> None:
        self._database = database
        self._site_id = site_id

    def sealed(self, study_id: StudyId) -> tuple[SealedReport, ...]:
        """Return a study's envelopes, the first one first; raises `LedgerError`."""
        rows = self._database.rows(
            "SELECT release_id, envelope FROM monitoring_envelopes WHERE study_id = ? "
            "ORDER BY sequence",
            study_id,
        )
        found: list[SealedReport] = []
        state = ChainState.start(study_id, self._site_id)
        for release_id, envelope in rows:
            if not isinstance(envelope, bytes):
                raise _broken(study_id)
            header = _read(envelope, study_id)
            if (header.sequence, header.previous) != (state.sequence + 1, state.head):
                raise _broken(study_id)
            found.append(SealedReport(ReleaseId(str(release_id)), envelope, header))
            state = found[-1].state
        return tuple(found)

    def append(
        self, study_id: StudyId, release_id: ReleaseId, seal: Callable[[ChainState], list[bytes]]
    ) -> None:
        """Seal a report's envelopes into the next places of the chain, durable on return.

        Args:
            study_id: whose chain.
            release_id: of the report; one that is in the chain is not sealed again.
            seal: returns the envelopes that follow a state of the chain.

        Raises:
            LedgerError: the chain cannot be read or written.
        """
        chain = self.sealed(study_id)
        if any(item.release_id == release_id for item in chain):
            return
        state = chain[-1].state if chain else ChainState.start(study_id, self._site_id)
        envelopes = seal(state)
        with self._database.transaction() as connection:
            # The number is the primary key: two processes cannot fork the chain.
            for place, envelope in enumerate(envelopes, start=state.sequence + 1):
                connection.execute(
                    "INSERT INTO monitoring_envelopes VALUES (?, ?, ?, ?)",
                    (study_id, place, release_id, sqlite3.Binary(envelope)),
                )

    def exchange(self, old: Sequence[SealedReport], envelopes: Sequence[bytes]) -> None:
        """Put another seal of the same report in the place of the chain's last, durable on return.

        What is replaced is kept beside the chain: it may have left, and `settle` brings it back.

        Args:
            old: the chain's last envelopes; two of one report when it was split.
            envelopes: as many.

        Raises:
            LedgerError: it cannot be written.
        """
        header = read_report_header(envelopes[0])
        first = old[0].header
        if (header.sequence, header.previous) != (first.sequence, first.previous):
            raise _broken(first.study_id)
        with self._database.transaction() as connection:
            for item, envelope in zip(old, envelopes, strict=True):
                connection.execute(
                    "INSERT OR IGNORE INTO monitoring_replaced VALUES (?, ?, ?, ?)",
                    (
                        first.study_id,
                        item.header.sequence,
                        item.state.head,
                        sqlite3.Binary(item.envelope),
                    ),
                )
                connection.execute(
                    "UPDATE monitoring_envelopes SET envelope = ? "
                    "WHERE study_id = ? AND sequence = ?",
                    (sqlite3.Binary(envelope), first.study_id, item.header.sequence),
                )

    def settle(self, study_id: StudyId, receipts: Sequence[Receipt]) -> None:
        """Let the seal of the chain's last report stand that boards hold, durable on return.

        Only a seal of the same report that this site kept, and only when all boards name that one:
        anything else is a fork, and stays one. Behind the last report nothing was sealed.

        Args:
            study_id: whose chain.
            receipts: of boards that the roster has not revoked.

        Raises:
            LedgerError: the chain cannot be read or written.
        """
        chain = self.sealed(study_id)
        for place, item in enumerate(chain):
            held = {receipt.head for receipt in receipts if receipt.sequence == place + 1}
            if item.release_id != chain[-1].release_id or held <= {item.state.head}:
                continue
            standing = self._kept_seal(chain[place:], held.pop()) if len(held) == 1 else []
            if standing:
                self.exchange(chain[place:], standing)
                self.settle(study_id, receipts)  # of two shares, the second
            return

    def _kept_seal(self, old: Sequence[SealedReport], head: Digest) -> list[bytes]:
        """Return the kept envelopes for these places, the first with this head; empty if none."""
        first = old[0].header
        rows = self._database.rows(
            "SELECT envelope FROM monitoring_replaced WHERE study_id = ? AND sequence >= ? "
            "ORDER BY rowid DESC",
            first.study_id,
            first.sequence,
        )
        kept = [envelope for (envelope,) in rows if isinstance(envelope, bytes)]
        found: list[bytes] = []
        before = first.previous
        for sequence in range(first.sequence, first.sequence + len(old)):
            for envelope in (*kept, *(item.envelope for item in old)):
                header, digest = _read(envelope, first.study_id), report_digest(envelope)
                is_next = (header.sequence, header.previous) == (sequence, before)
                if is_next and (found or digest == head):
                    found.append(envelope)
                    before = digest
                    break
            else:
                return []
        return found

    def take_receipt(self, notice: bytes, roster: MonitoringRoster | None) -> str:
        """Keep a receipt of this site's chain that an active board signed; return the outcome.

        One that names another head than this site sent is kept as well: it is the proof of a fork.
        """
        if roster is None:
            return LATER
        try:
            receipt = verify_receipt(notice, roster)
        except CohortiumError as error:
            return refused(error)
        if receipt.site_id != self._site_id:
            return KNOWN
        known = self.receipts(receipt.study_id)
        if _place(receipt) in map(_place, known):
            return KNOWN
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO monitoring_receipts VALUES (?, ?, ?, ?, ?)",
                (
                    receipt.study_id,
                    receipt.sequence,
                    receipt.board_id,
                    receipt.head,
                    sqlite3.Binary(notice),
                ),
            )
        return TAKEN

    def receipts(self, study_id: StudyId) -> tuple[Receipt, ...]:
        """Return what boards confirmed of a study's chain, by number; raises `LedgerError`."""
        rows = self._database.rows(
            "SELECT sequence, board_id, head FROM monitoring_receipts WHERE study_id = ? "
            "ORDER BY sequence, board_id",
            study_id,
        )
        return tuple(
            Receipt(
                study_id=study_id,
                site_id=self._site_id,
                sequence=int(str(sequence)),
                head=Digest(str(head)),
                board_id=BoardId(str(board_id)),
                at_s=0,
            )
            for sequence, board_id, head in rows
        )


def _read(envelope: bytes, study_id: StudyId) -> ReportHeader:
    try:
        return read_report_header(envelope)
    except CohortiumError:
        raise _broken(study_id) from None


def _place(receipt: Receipt) -> tuple[int, BoardId, Digest]:
    return receipt.sequence, receipt.board_id, receipt.head


def _broken(study_id: StudyId) -> LedgerError:
    return LedgerError(
        f"the chain of reports of {study_id} does not hold together",
        expected="reports 1, 2, 3 and so on, each naming the one before",
        arrived="another chain",
        todo="stop reporting, keep the file as it is, and restore the newest backup",
    )
