"""How the board takes a report: numbered steps, in this order; the numbers are `BOARD_REFUSALS`'.

What the relay can check as well, by the roster in force when the relay received the report:
    B13, B1  a whole envelope of a known version, not too large
    B11      of a study whose plan this board has
    B2, B12  of a site in the roster that is active
    B3       under a roster that is in force, or was a moment ago
    B2, B4   signed by that site's key of that epoch, in an allowed suite
    B5       sealed to all receivers of that roster, and to no other
    B14      not more reports than the plan lets a site send
Its place in the site's chain, by its header alone:
    B7       not received before
    B8       no other report has its place, and it follows the one that is held
    B9       all before it are here; if not, it waits, and every missing number is raised
From here on the report has its place, and its site gets a receipt. What follows only decides
whether it is used, so that a refused content never breaks a chain:
    B5       it opens with a key of this board
    B6       its content is what header and plan say: cells, kind, period, mechanisms
    B11      its schema is the plan's, and its model was promoted
    B7       the site has not told of the same kind and period before
    B10      its period was over, and it is not late
A report that is used is looked through for what is implausible; that flags it and refuses nothing.

A report under a roster that is not here yet, or of a site that is suspended, waits until another
roster comes. Everything of a batch, with the position up to which the relay was read, is one
transaction: a process killed at any point loses nothing and counts nothing twice.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from sqlalchemy import Connection

from common.clock import Clock
from common.crypto.keys import SigningKey
from common.errors import CohortiumError
from common.ids import BoardId, Digest, SiteId, StudyId
from common.protocol.mechanisms import mechanism_to_record
from common.protocol.monitoring.chain import check_chain
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.refusals import refusal
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.report_content import ReportContent
from common.protocol.monitoring.report_envelope import read_report_header, report_digest
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B, ReportHeader
from common.protocol.monitoring.roster import MonitoringRoster, Standing
from common.study.report_tensors import ReportKind
from server.monitor_board.kept_reports import CountedTensors
from server.monitor_board.notices_out import put_notice
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.plan_book import PlanOnBoard, read_plans
from server.monitor_board.plausibility import find_flags
from server.monitor_board.report_chain import Arrived, Opened, ReportChain
from server.monitor_board.report_content_checks import (
    check_model_and_schema,
    check_time,
    open_content,
)
from server.monitor_board.roster_book import read_book
from server.monitor_board.storage.database import BoardDatabase

WAITING_MAX: Final = 10
"""Reports of one site in a study that may wait for another roster: unverified ones end here."""
SHARE: Final = "share"
"""What stands in the place of a refusal for a share: the aggregators read it, a board does not."""


class Outcome(enum.Enum):
    """What became of a report."""

    USED = "used"
    NOT_USED = "in the chain, not used"
    WAITS = "waits"
    REFUSED = "refused"


@dataclass(frozen=True)
class Taken:
    """One report's outcome, and the number of its refusal if it has one."""

    outcome: Outcome
    number: str = ""


class Inbox:
    """Takes reports for one board.

    Args:
        database: the board's.
        keys: what opens reports; a board without any keeps the chains alone.
        board_id, signing_key: sign receipts.
        clock: for the rows that say when; whether a report is late is by the relay's clock.
    """

    def __init__(
        self,
        database: BoardDatabase,
        keys: OpeningKeys,
        *,
        board_id: BoardId,
        signing_key: SigningKey,
        clock: Clock,
    ) -> None:
        self._database = database
        self.keys = keys
        self._board_id = board_id
        self._signing_key = signing_key
        self._clock = clock

    def take(self, batch: Sequence[Arrived], *, stream: str) -> tuple[Taken, ...]:
        """Take reports in the order of the relay's positions, all in one transaction.

        Args:
            batch: as the relay gave them.
            stream: whose position moves behind the last of them.

        Raises:
            StoreError: nothing of the batch was taken; take it again.
            ProtocolError: O5 or O9 when no roster is in force here; nothing was taken.
        """
        if not batch:
            return ()
        with self._database.transaction() as connection:
            work = self._work(connection)
            taken = tuple(work.take(arrived) for arrived in batch)
            work.chain.move_position(stream, batch[-1].position)
            self._sign_receipts(connection, work)
        return taken

    def take_waiting(self) -> tuple[Taken, ...]:
        """Try the reports again that wait for another roster; call it when one was taken."""
        with self._database.transaction() as connection:
            work = self._work(connection)
            taken = []
            for arrived in work.chain.waiting_for_roster():
                work.chain.stop_waiting(report_digest(arrived.envelope))
                taken.append(work.take(arrived))
            self._sign_receipts(connection, work)
        return tuple(taken)

    def look_again(self) -> int:
        """Use reports whose model was unknown and is now promoted; return how many."""
        with self._database.transaction() as connection:
            work = self._work(connection)
            return sum(
                work.use_now(report_digest(arrived.envelope), arrived)
                for arrived in work.chain.not_used("B11")
            )

    def _work(self, connection: Connection) -> _Work:
        now_s = self._clock.now_s()
        book = read_book(connection)
        roster = book.in_force(now_s)
        return _Work(
            chain=ReportChain(connection, now_s=now_s),
            roster=roster,
            earlier=book.before(roster),
            plans=read_plans(connection),
            keys=self.keys,
            now_s=now_s,
            moved={},
        )

    def _sign_receipts(self, connection: Connection, work: _Work) -> None:
        for (study_id, site_id), (sequence, head) in sorted(work.moved.items()):
            receipt = Receipt(study_id, site_id, sequence, head, self._board_id, work.now_s)
            signed = sign_notice(receipt, {self._board_id: self._signing_key})
            put_notice(connection, signed, now_s=work.now_s)


@dataclass(frozen=True)
class _Work:
    """One transaction's view: chains, rosters and plans as of its beginning."""

    chain: ReportChain
    roster: MonitoringRoster
    earlier: tuple[MonitoringRoster, ...]
    plans: Mapping[StudyId, PlanOnBoard]
    keys: OpeningKeys
    now_s: int
    moved: dict[tuple[StudyId, SiteId], tuple[int, Digest]]

    def take(self, arrived: Arrived) -> Taken:
        """Take one report, and those that waited for it."""
        digest = report_digest(arrived.envelope)
        header: ReportHeader | None = None
        try:
            header = read_report_header(arrived.envelope)
            self._check_envelope(header, arrived)
            state = self.chain.state(header.study_id, header.site_id)
            check_chain(header, digest, state, held=self.chain.held_at(header))
        except CohortiumError as error:
            if header is not None and self._may_wait(error, header):
                return self._let_wait(header, digest, arrived, error.number)
            self.chain.refuse(arrived, digest, error, header)
            return Taken(Outcome.REFUSED, error.number)
        taken = self._append(header, digest, arrived)
        self._take_followers(header)
        return taken

    def use_now(self, digest: Digest, arrived: Arrived) -> bool:
        """Use a report that is in its chain, if it may be used by now."""
        header = read_report_header(arrived.envelope)
        try:
            self._check_use(header, arrived)
        except CohortiumError:
            return False
        self.chain.use(digest)
        return True

    def _check_envelope(self, header: ReportHeader, arrived: Arrived) -> None:
        on_board = self.plans.get(header.study_id)
        if on_board is None:
            raise refusal("B11", expected="a study whose plan is here", arrived=header.study_id)
        check_report(
            arrived.envelope,
            roster=self.roster,
            arrived_at_s=arrived.received_at_s,
            earlier=self.earlier,
        )
        if header.sequence > on_board.reports_max:
            raise refusal(
                "B14",
                expected=f"at most {on_board.reports_max} reports of a site in this study",
                arrived=f"report {header.sequence}",
            )

    def _may_wait(self, error: CohortiumError, header: ReportHeader) -> bool:
        if error.number == "B9":
            return True
        is_unknown = error.number == "B3" and self._named_roster(header) is None
        is_suspended = (
            error.number == "B12" and self.roster.site(header.site_id).status is Standing.SUSPENDED
        )
        return (is_unknown or is_suspended) and self.chain.count_waiting(header) < WAITING_MAX

    def _let_wait(
        self, header: ReportHeader, digest: Digest, arrived: Arrived, number: str
    ) -> Taken:
        if self.chain.is_waiting(digest):
            again = refusal("B7", expected="a new report", arrived="one that waits already")
            self.chain.refuse(arrived, digest, again, header)
            return Taken(Outcome.REFUSED, "B7")
        self.chain.set_aside(header, digest, arrived, number)
        if number == "B9":
            self.chain.open_gaps(header, self.chain.state(header.study_id, header.site_id))
        return Taken(Outcome.WAITS, number)

    def _take_followers(self, header: ReportHeader) -> None:
        """Take the reports that waited for this one, in order, until the next gap."""
        while True:
            state = self.chain.state(header.study_id, header.site_id)
            waiting = self.chain.waiting_at(header.study_id, header.site_id, state.sequence + 1)
            if not waiting:
                return
            for arrived in waiting:
                digest = report_digest(arrived.envelope)
                follower = read_report_header(arrived.envelope)
                self.chain.stop_waiting(digest)
                try:
                    check_chain(follower, digest, state)
                except CohortiumError as error:
                    self.chain.refuse(arrived, digest, error, follower)
                    continue
                self._append(follower, digest, arrived)
                break
            else:  # nothing that waited follows: what does is missing still
                self.chain.raise_gap(header, state.sequence + 1)
                return

    def _append(self, header: ReportHeader, digest: Digest, arrived: Arrived) -> Taken:
        """Give a report its place, used or not."""
        number, opened, content = "", Opened(), None
        if header.kind in (SHARE_A, SHARE_B):
            number = SHARE
        else:
            try:
                content, opened = self._open(header, arrived)
                self._check_use(header, arrived)
            except CohortiumError as error:
                number = error.number
                self.chain.refuse(arrived, digest, error, header)
        if content is not None and number in ("", "B11"):  # B11 may be used later, as it is
            self._flag(header, content)
        self.chain.append(header, digest, arrived, opened, number)
        self.moved[header.study_id, header.site_id] = (header.sequence, digest)
        return Taken(Outcome.NOT_USED if number else Outcome.USED, number)

    def _open(self, header: ReportHeader, arrived: Arrived) -> tuple[ReportContent, Opened]:
        signer = (self._named_roster(header) or self.roster).site(header.site_id)
        content = open_content(
            header,
            arrived.envelope,
            self.plans[header.study_id],
            keys=self.keys,
            verify_key=signer.verify_key,
        )
        return content, Opened(
            counts=content.counts.astype("<i4").tobytes(),
            epsilon_spent=content.epsilon_spent,
            epsilon_remaining=content.epsilon_remaining,
            delta=content.delta,
            detail={
                "ledger_head": content.ledger_head,
                "mechanisms": [mechanism_to_record(item) for item in content.mechanisms],
                "software_version": content.software_version,
            },
        )

    def _check_use(self, header: ReportHeader, arrived: Arrived) -> None:
        on_board = self.plans[header.study_id]
        check_model_and_schema(header, on_board)
        if self.chain.period_taken(header):
            raise refusal(
                "B7",
                expected="one report of a kind and period",
                arrived=f"another {header.kind} of {header.period}",
            )
        check_time(header, on_board.plan, arrived.received_at_s)

    def _flag(self, header: ReportHeader, content: ReportContent) -> None:
        on_board = self.plans[header.study_id]
        layout = on_board.schema(ReportKind(header.kind)).layout
        earlier = [
            CountedTensors(layout, np.frombuffer(counts, "<i4"))
            for counts in self.chain.counts_before(header)
        ]
        found = find_flags(
            CountedTensors(layout, content.counts),
            earlier=earlier,
            patients_max=on_board.patients_max(header.site_id, ReportKind(header.kind)),
        )
        self.chain.flag(header, found)

    def _named_roster(self, header: ReportHeader) -> MonitoringRoster | None:
        named = (item for item in (self.roster, *self.earlier) if item.digest == header.roster)
        return next(named, None)
