"""The agent's side of the courier's calls: which sealed report leaves now, and what notices change.

One report of a study is on its way at a time: the next is sealed when the boards confirmed the one
before. What stops a chain is a reason with words for `monitor status`, never an error to the
courier.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from functools import partial
from typing import Final

from common.clock import Clock
from common.crypto.keys import AnySealingKey
from common.errors import CohortiumError, LedgerError, ProtocolError
from common.ids import BoardId, SiteId, StudyId
from common.privacy.accounts import study_of_account
from common.protocol.monitoring.chain import ChainState, has_receipts
from common.protocol.monitoring.notice_codec import Notice, read_notice
from common.protocol.monitoring.notices import Promotion, Receipt
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B, ReportDraft
from common.protocol.monitoring.roster import MonitoringRoster, Standing
from common.protocol.monitoring.signed_notice import NoticeKind
from common.study.plan import StudyPlan
from common.study.report_tensors import report_tensors, schema_digest
from site_client.approvals import Approvals
from site_client.monitoring.check_key_pin import CheckKeyPin
from site_client.monitoring.decision_book import DecisionBook
from site_client.monitoring.outbox import ReportOutbox, SealedReport
from site_client.monitoring.outcomes import KNOWN, LATER, TAKEN, refused
from site_client.monitoring.promoted_models import PromotedModels
from site_client.monitoring.roster_pin import RosterPin
from site_client.monitoring.waiting_notices import WaitingNotices
from site_client.release.gate import Gate, Released
from site_client.release.release_log import LoggedReport, ReleaseLog

ENVELOPES_AT_ONCE: Final = 64

logger = logging.getLogger("cohortium.agent")


class MonitoringMailbox:
    """Envelopes out, notices in.

    Args:
        site_id: the site.
        gate: seals what was logged.
        log, approvals: of the site.
        pin, models, decisions, chain, check_keys, waiting: what the site knows, sent, and cannot
            judge yet.
        clock: of the site.
    """

    def __init__(
        self,
        site_id: SiteId,
        *,
        gate: Gate,
        log: ReleaseLog,
        approvals: Approvals,
        pin: RosterPin,
        models: PromotedModels,
        decisions: DecisionBook,
        chain: ReportOutbox,
        check_keys: CheckKeyPin,
        waiting: WaitingNotices,
        clock: Clock,
    ) -> None:
        self._site_id = site_id
        self._gate = gate
        self._log = log
        self._approvals = approvals
        self._clock = clock
        self.pin = pin
        self.models = models
        self.decisions = decisions
        self.chain = chain
        self.check_keys = check_keys
        self.waiting = waiting
        # The socket's threads: two must not seal one report, or judge one notice, at a time.
        self._lock = threading.RLock()

    def outbox(self) -> tuple[bytes, ...]:
        """Return the envelopes that should be at the relay now, one for each study.

        Raises:
            LedgerError: the site's records cannot be read or written.
        """
        with self._lock:
            self._retry_waiting()
            return self._leaving_now()

    def _leaving_now(self) -> tuple[bytes, ...]:
        leaving = []
        for study_id in self.studies():
            try:
                envelope = self.leaving(study_id)
            except LedgerError:
                raise
            except CohortiumError as error:
                logger.warning("no report of %s leaves: %s", study_id, error.refused)
                continue
            if envelope is not None:
                leaving.append(envelope)
        return tuple(leaving[:ENVELOPES_AT_ONCE])

    def deliver(self, notice: bytes, body: bytes = b"") -> str:
        """Take a notice that the courier brought; the same one again changes nothing.

        Args:
            notice: as it travelled.
            body: the parameters beside a promotion.

        Returns:
            see `outcomes`; a refusal's number, never text. What comes too early is kept, and taken
            when it can be judged.

        Raises:
            LedgerError: the site's records cannot be read or written.
        """
        try:
            read = read_notice(notice)
        except CohortiumError as error:
            return refused(error)
        with self._lock:
            outcome = self._take(read, notice, body)
            if outcome == LATER and self._is_worth_keeping(read, notice, body):
                self.waiting.keep(notice, body)
            if outcome == TAKEN:
                self._retry_waiting()
            if outcome == TAKEN and isinstance(read.content, Receipt):
                self._settle(read.content.study_id)
            return outcome

    def _is_worth_keeping(self, read: Notice, notice: bytes, body: bytes) -> bool:
        # Who a board is only a roster says; the coordinator is known, and a model is large.
        if isinstance(read.content, Promotion):
            return self.models.is_genuine(notice, body)
        return not body

    def _retry_waiting(self) -> None:
        """Take what waits and can be judged now, in the order in which it came."""
        has_moved = True
        while has_moved:
            has_moved = False
            for notice in self.waiting.notices():
                read = read_notice(notice)
                is_promotion = isinstance(read.content, Promotion)
                if isinstance(read.content, Promotion) and not self._is_known(
                    read.content.study_id
                ):
                    continue
                body = self.waiting.body(notice) if is_promotion else b""
                outcome = self._take(read, notice, body)
                if outcome != LATER:
                    self.waiting.forget(notice)
                    has_moved = has_moved or outcome == TAKEN

    def _take(self, read: Notice, notice: bytes, body: bytes) -> str:
        if isinstance(read.content, Promotion):
            is_known = self._is_known(read.content.study_id)
            return self.models.take(notice, body) if is_known else LATER
        if read.kind is NoticeKind.ROSTER:
            return self.pin.take(notice)
        if read.kind is NoticeKind.CHECK_KEY:
            return self.check_keys.take(notice, self.pin.authority())
        if read.kind is NoticeKind.DECISION:
            rosters = self.pin.rosters()
            is_ended = bool(rosters) and self._clock.now_s() > rosters[-1].not_after_s
            return LATER if is_ended else self.decisions.take(notice, rosters)  # T4
        if read.kind is NoticeKind.RECEIPT:
            return self.chain.take_receipt(notice, self.pin.roster())
        return KNOWN  # Closings and sums are between boards and aggregators.

    def studies(self) -> tuple[StudyId, ...]:
        """Return the studies for which this site made a report."""
        return tuple(sorted({study_of_account(item.account) for item in self._log.reports()}))

    def leaving(self, study_id: StudyId) -> bytes | None:
        """Return the envelope of a study that should be at the relay, or None when all have it.

        Raises:
            ProtocolError: why nothing of this study leaves now.
            LedgerError: the site's records cannot be read or written.
        """
        self._settle(study_id)
        roster = self.check_leaving(study_id)
        waiting = self._waiting(study_id, roster)
        if waiting is not None:
            return self._renewed(waiting, roster).envelope
        sealed = {item.release_id for item in self.chain.sealed(study_id)}
        for report in self._log.reports():
            if study_of_account(report.account) == study_id and report.release_id not in sealed:
                seal = partial(self._seal, study_id, report, roster)
                self.chain.append(study_id, report.release_id, seal)
                waiting = self._waiting(study_id, roster)
                return waiting.envelope if waiting is not None else None
        return None

    def check_leaving(self, study_id: StudyId) -> MonitoringRoster:
        """Return the roster under which a study's reports leave; raises as `leaving`."""
        if self._approvals.is_paused(study_id):
            raise _stopped("the study is paused here", "run `cohortium-site unpause STUDY`")
        own = [item for item in self._approvals.all_approvals() if item.study_id == study_id]
        if own and all(item.is_withdrawn for item in own):  # one that only ended paid for these
            raise _stopped("the approval was withdrawn", "approve the plan again")
        roster = self._roster()
        self._waiting(study_id, roster)
        return roster

    def _settle(self, study_id: StudyId) -> None:
        """Go back to a replaced seal where the boards hold that one: the relay had it already."""
        roster = self.pin.roster()
        if roster is not None:
            self.chain.settle(study_id, self._unrevoked(study_id, roster))

    def _unrevoked(self, study_id: StudyId, roster: MonitoringRoster) -> tuple[Receipt, ...]:
        revoked = _revoked(roster)
        receipts = self.chain.receipts(study_id)
        return tuple(item for item in receipts if item.board_id not in revoked)

    def _waiting(self, study_id: StudyId, roster: MonitoringRoster) -> SealedReport | None:
        """Return the oldest envelope without its receipts, or None."""
        chain = self.chain.sealed(study_id)
        receipts = _believed(self.chain.receipts(study_id), chain, roster)
        if any(item.sequence > len(chain) for item in receipts):
            raise _stopped(
                "the boards hold reports of this site that its own records have forgotten",
                "the site's state is older than what it sent: stop, and restore the newest backup",
            )
        for item in chain:
            is_there = has_receipts(
                receipts,
                state=item.state,
                recipients=len(item.header.recipients),
                required=roster.receipts_required,
            )
            if not is_there:
                return item
        return None

    def _renewed(self, waiting: SealedReport, roster: MonitoringRoster) -> SealedReport:
        """Return the envelope, sealed anew when its roster is no longer taken anywhere.

        Whether the relay holds the old seal is not known here: `_settle` goes back to it. What a
        board has confirmed is there, and stays as it is.
        """
        is_ended = self._clock.now_s() > roster.not_before_s + roster.grace_s
        if waiting.header.roster == roster.digest or not is_ended:
            return waiting
        held = {item.head for item in self._unrevoked(waiting.header.study_id, roster)}
        if waiting.state.head in held:
            return waiting
        report = self._log.report(waiting.release_id)
        chain = self.chain.sealed(waiting.header.study_id)
        header = waiting.header
        last = chain[header.sequence - 1 :]  # of a report that was split, both shares or the second
        if report is None or any(item.release_id != waiting.release_id for item in last):
            return waiting
        before = ChainState(header.study_id, header.site_id, header.sequence - 1, header.previous)
        kinds = [item.header.kind for item in last]
        envelopes = self._seal(header.study_id, report, roster, before, kinds=kinds)
        self.chain.exchange(last, envelopes)
        return self.chain.sealed(header.study_id)[header.sequence - 1]

    def _seal(
        self,
        study_id: StudyId,
        report: LoggedReport,
        roster: MonitoringRoster,
        before: ChainState,
        *,
        kinds: Sequence[str] = (),
    ) -> list[bytes]:
        """Return a report's envelopes behind a state of the chain: one, or its two shares."""
        plan = self._approvals.find(report.plan_digest).plan
        is_sum = plan.monitoring is not None and plan.monitoring.mode == "sum"
        envelopes: list[bytes] = []
        for kind in kinds or ((SHARE_A, SHARE_B) if is_sum else (report.kind.value,)):
            draft = ReportDraft(
                study_id=study_id,
                site_id=self._site_id,
                key_epoch=roster.site(self._site_id).key_epoch,
                kind=kind,
                period=report.period,
                sequence=before.sequence + 1,
                previous=before.head,
                model_version=report.model_version,
                schema=schema_digest(plan, report.kind),
                roster=roster.digest,
                sealed_at_s=self._clock.now_s(),
            )
            if is_sum:
                released = self._seal_share(plan, report, draft, roster)
            else:
                released = self._gate.seal_report(report, draft, recipients=_keys(roster, kind))
            envelopes.append(released.envelope)
            head = report_digest(released.envelope)
            before = ChainState(study_id, self._site_id, draft.sequence, head)
        return envelopes

    def _seal_share(
        self, plan: StudyPlan, report: LoggedReport, draft: ReportDraft, roster: MonitoringRoster
    ) -> Released:
        keys, check_key = _keys(roster, draft.kind), self.check_keys.newest()
        if len(keys) != 1:
            raise _stopped(f"the roster has no receiver of {draft.kind}", "ask for two aggregators")
        self._check_apart(report, draft, roster)
        if check_key is None:
            raise _stopped("no check key has come", "ask the consortium's authority for one")
        return self._gate.seal_share(
            report,
            draft,
            cells=sum(tensor.cells for tensor in report_tensors(plan, report.kind)),
            check_key=check_key,
            recipient=keys[0],
        )

    def _check_apart(
        self, report: LoggedReport, draft: ReportDraft, roster: MonitoringRoster
    ) -> None:
        # Rosters may let aggregators change places: who has both shares has the site's counts.
        named = {board.sealing_key.fingerprint: board.board_id for board in roster.boards}
        to_whom = {board.board_id for board in roster.recipients(draft.kind)}
        for item in self.chain.sealed(draft.study_id):
            if item.release_id == report.release_id and item.header.kind != draft.kind:
                had_other = {named.get(key, key) for key in item.header.recipients}
                if to_whom & had_other:
                    raise _stopped(
                        f"the receiver of {draft.kind} had the other share of the same report",
                        "ask for a roster in which aggregators keep their places",
                    )

    def _roster(self) -> MonitoringRoster:
        """Return the roster under which this site may send, or raise why there is none."""
        roster, now_s = self.pin.roster(), self._clock.now_s()
        if roster is None:
            raise _stopped(
                "no roster has come",
                "run `cohortium-site monitor trust KEYFILE` and keep the courier running",
            )
        if not roster.not_before_s <= now_s <= roster.not_after_s:
            raise _stopped("the pinned roster is not in force", "ask the consortium for a new one")
        site = roster.site(self._site_id)
        if site.status is not Standing.ACTIVE:
            raise _stopped(f"the roster lists this site as {site.status.value}", "ask why")
        if site.verify_key != self._gate.verify_key:
            raise _stopped(
                "the roster lists another signing key for this site",
                "tell the consortium's authority this site's key",
            )
        return roster

    def _is_known(self, study_id: StudyId) -> bool:
        return any(item.study_id == study_id for item in self._approvals.all_approvals())


def _believed(
    receipts: Sequence[Receipt], chain: Sequence[SealedReport], roster: MonitoringRoster
) -> tuple[Receipt, ...]:
    """Return the receipts without those of revoked boards that contradict this site's records.

    What a stolen board key signed must not stop a site once the roster has revoked the key.
    """
    revoked = _revoked(roster)
    sent = {(item.state.sequence, item.state.head) for item in chain}
    return tuple(
        item
        for item in receipts
        if item.board_id not in revoked or (item.sequence, item.head) in sent
    )


def _revoked(roster: MonitoringRoster) -> set[BoardId]:
    revoked = {board.board_id for board in roster.boards if board.status is Standing.REVOKED}
    return revoked - {board.board_id for board in roster.active_boards()}


def _keys(roster: MonitoringRoster, kind: str) -> Sequence[AnySealingKey]:
    return [board.sealing_key for board in roster.recipients(kind)]


def _stopped(refused_: str, todo: str) -> ProtocolError:
    return ProtocolError(
        refused_,
        expected="a site in an up-to-date roster, with its own records and an unpaused study",
        arrived="another state",
        todo=todo,
    )
