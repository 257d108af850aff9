"""The only way out: check, reserve the budget, compute the noise, log, sign.

The order is the crash rule. The budget is on disk before any noise is drawn, so a crash can only
over-count. The payload and its log entry are on disk, together, before anything is returned, so a
retry sends the same bytes: a second noise draw for one charge would tell more than was paid for.
Nothing of an interrupted computation ever left, so its reservation is completed by a fresh one. A
computation that ends in an error is final: that release is never computed again, whatever is asked,
because a coordinator that could provoke errors would otherwise ask without limit for one charge.

    (1) already released?       the cached payload, sealed for this request
    (2) commit, then reserve    fsync each; refused above a limit, before training
    (3) compute                 training and evaluation draw fresh noise
    (4) check                   G1 to G8
    (5) log                     payload and entry in one transaction, fsync; then the ledger
    (6) seal and sign           `Released`

Steps 1 to 5 of a monitoring report are in `report_release`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from common.canonical import digest_bytes
from common.crypto.keys import AnySealingKey, SealingKey, SigningKey, VerifyKey
from common.errors import LedgerError, ReleaseRefused
from common.ids import Digest, ReleaseId, SiteId, StudyId
from common.privacy.accounts import monitoring_account
from common.privacy.ledger import Ledger
from common.privacy.ledger_entry import Commitment
from common.privacy.mechanism import MechanismRecord
from common.protocol.arrays import encode_parameters
from common.protocol.codec import encode_reply
from common.protocol.counts import encode_counts
from common.protocol.envelope import seal_envelope
from common.protocol.messages import (
    EnvelopeHeader,
    LedgerStatement,
    RefusedTask,
    ReleasedTask,
    TaskKind,
)
from common.protocol.monitoring.check_key import CheckKey
from common.protocol.monitoring.report_content import decode_content
from common.protocol.monitoring.report_envelope import seal_report
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B, ReportDraft
from common.study.contingency import ContingencyTable, cell_count
from common.study.plan import StudyPlan
from site_client.release.checks import Asked, Produced, check_produced, check_size
from site_client.release.release_log import LoggedReport, ReleaseLog
from site_client.release.report_shares import split_content
from site_client.release.site_limits import SiteLimits

_MAKER: Final = object()


class Released:
    """Bytes that may leave the site; only this file can make one."""

    __slots__ = ("envelope",)

    def __init__(self, envelope: bytes, *, maker: object) -> None:
        if maker is not _MAKER:
            message = "only the gate makes a Released"
            raise TypeError(message)
        self.envelope = envelope


@dataclass(frozen=True)
class ReleaseRequest:
    """One release that was asked for and may be made.

    Args:
        study_id, plan_digest, round_number, kind, base_version: name it.
        plan: approved.
        evaluate: whether an evaluation is part of it.
        mechanisms: what the plan does in this round.
        planned: all that the plan does in all rounds, each record with how often.
        declared_cohort_size: public.
        tables: to be counted; none unless it is a count.
    """

    study_id: StudyId
    plan_digest: Digest
    round_number: int
    kind: TaskKind
    base_version: Digest
    plan: StudyPlan
    evaluate: bool
    mechanisms: tuple[MechanismRecord, ...]
    planned: tuple[tuple[MechanismRecord, int], ...]
    declared_cohort_size: int
    tables: tuple[ContingencyTable, ...] = ()

    @property
    def commitment(self) -> Commitment:
        """All that the plan may ever do at this site."""
        privacy = self.plan.privacy
        return Commitment(
            study_id=self.study_id,
            plan_digest=self.plan_digest,
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            planned=self.planned,
        )

    def release_id(self, site_id: SiteId) -> ReleaseId:
        """Return the name of this release, the same on every retry."""
        return ReleaseId(
            digest_bytes(
                "release",
                site_id.encode(),
                self.study_id.encode(),
                self.plan_digest.encode(),
                str(self.round_number).encode(),
                self.kind.value.encode(),
                self.base_version.encode(),
            )
        )


class Gate:
    """The gate of one site.

    Args:
        site_id: the site.
        ledger, log: where spending and releases are recorded.
        limits: the site's own.
        signing_key: the site's.
        coordinator: to whom everything is sealed.
        is_real_ledger: true when the ledger is on disk; then test randomness is refused.
    """

    def __init__(
        self,
        site_id: SiteId,
        *,
        ledger: Ledger,
        log: ReleaseLog,
        limits: SiteLimits,
        signing_key: SigningKey,
        coordinator: SealingKey,
        is_real_ledger: bool,
    ) -> None:
        self._site_id = site_id
        self._ledger = ledger
        self._log = log
        self._limits = limits
        self._signing_key = signing_key
        self._coordinator = coordinator
        self._is_real_ledger = is_real_ledger

    @property
    def verify_key(self) -> VerifyKey:
        """The key with which everything that leaves can be verified."""
        return self._signing_key.verify_key

    def release(
        self,
        request: ReleaseRequest,
        header: EnvelopeHeader,
        *,
        request_digest: str,
        produce: Callable[[], Produced],
    ) -> Released:
        """Let one release out, or raise.

        Args:
            request: what is released.
            header: of the reply.
            request_digest: of the request's bytes, so that the same bytes get the same reply.
            produce: trains and evaluates; called once, after the budget is reserved.

        Raises:
            BudgetError: R11 or R12; nothing was computed.
            LedgerError: the ledger or log cannot be written; nothing leaves.
            ReleaseRefused: a G number; nothing leaves.
        """
        release_id = request.release_id(self._site_id)
        payload = self._log.payload(release_id)
        if payload is None:
            payload = self._make_payload(request, release_id, produce)
        # After a crash between log and ledger the payload is there and this is still owed.
        self._ledger.record_released(release_id, digest_bytes("payload", payload))
        released = self._seal(header, payload)
        self._log.keep_reply(request_digest, release_id, released.envelope)
        return released

    def resend(self, request_digest: str) -> Released | None:
        """Return the reply already sent to exactly these request bytes, or None."""
        envelope = self._log.reply(request_digest)
        return None if envelope is None else Released(envelope, maker=_MAKER)

    def refuse(self, refusal: RefusedTask, header: EnvelopeHeader) -> Released:
        """Let a numbered refusal out: it carries a number from a table and nothing else."""
        self._log.append_refusal(
            study_id=header.study_id,
            round_number=refusal.round_number,
            number=refusal.number,
            ledger_head=self._ledger.head(),
        )
        return self._seal(header, encode_reply(refusal))

    def refuse_unlogged(self, refusal: RefusedTask, header: EnvelopeHeader) -> Released:
        """Let out a refusal that is not logged: the log cannot be written, or would be flooded."""
        return self._seal(header, encode_reply(refusal))

    def seal_report(
        self, report: LoggedReport, draft: ReportDraft, *, recipients: Sequence[AnySealingKey]
    ) -> Released:
        """Seal a logged monitoring report to its receivers and sign it; what is not logged stays.

        Args:
            report: as the log returned it.
            draft: what its header says.
            recipients: sealing keys of the pinned roster.

        Raises:
            LedgerError: the log does not hold exactly this report, or the ledger no reservation.
            ProtocolError: a header or receivers that would be refused.
        """
        self._check_logged(report, draft, kinds=(report.kind.value,))
        envelope = seal_report(
            report.content, draft, signing_key=self._signing_key, recipients=recipients
        )
        return Released(envelope, maker=_MAKER)

    def seal_share(
        self,
        report: LoggedReport,
        draft: ReportDraft,
        *,
        cells: int,
        check_key: CheckKey,
        recipient: AnySealingKey,
    ) -> Released:
        """Seal one of the two shares of a logged report to its aggregator and sign it.

        Args:
            report: as the log returned it; it is split once.
            draft: what the header says; its kind says which share.
            cells: counts of the report.
            check_key: used when the report is split.
            recipient: the aggregator's sealing key in the pinned roster.

        Raises:
            LedgerError, ProtocolError: as `seal_report`.
        """
        self._check_logged(report, draft, kinds=(SHARE_A, SHARE_B))
        first, second = self._log.keep_split(
            report.release_id,
            lambda: split_content(
                decode_content(report.content, cells=cells),
                study_id=draft.study_id,
                site_id=draft.site_id,
                schema=draft.schema,
                check_key=check_key,
            ),
        )
        envelope = seal_report(
            {SHARE_A: first, SHARE_B: second}[draft.kind],
            draft,
            signing_key=self._signing_key,
            recipients=[recipient],
        )
        return Released(envelope, maker=_MAKER)

    def _check_logged(
        self, report: LoggedReport, draft: ReportDraft, *, kinds: Sequence[str]
    ) -> None:
        logged = self._log.report(report.release_id)
        said = (monitoring_account(draft.study_id), draft.period, draft.model_version)
        stands = (report.account, report.period, report.model_version)
        if logged != report or said != stands or draft.kind not in kinds:
            raise LedgerError(
                "a report that was not logged is not sealed",
                expected="a report as the release log holds it",
                arrived="another",
                todo="report this as a fault; nothing left",
            )
        self._ledger.record_released(report.release_id, digest_bytes("payload", report.content))

    def _make_payload(
        self, request: ReleaseRequest, release_id: ReleaseId, produce: Callable[[], Produced]
    ) -> bytes:
        if self._log.is_failed(release_id):
            raise _failed("it failed before")
        self._reserve(request, release_id)
        asked = Asked(
            plan=request.plan,
            kind=request.kind,
            evaluate=request.evaluate,
            base_version=request.base_version,
            mechanisms=request.mechanisms,
            cells=cell_count(request.tables),
            declared_cohort_size=request.declared_cohort_size,
        )
        try:
            produced = produce()
            check_produced(produced, asked, is_real_ledger=self._is_real_ledger)
        except Exception as error:
            self._log.record_failed(release_id)
            # One number for every fault, and no text: either could tell about a patient.
            number = error.number if isinstance(error, ReleaseRefused) else type(error).__name__
            raise _failed(number) from None
        payload = encode_reply(
            ReleasedTask(
                plan_digest=request.plan_digest,
                round_number=request.round_number,
                kind=request.kind,
                base_version=request.base_version,
                release_id=release_id,
                declared_cohort_size=request.declared_cohort_size,
                update=_body(produced),
                evaluation=produced.evaluation,
                mechanisms=request.mechanisms,
                statement=self._statement(request),
            )
        )
        check_size(payload)
        self._log.append_release(
            release_id,
            study_id=request.study_id,
            round_number=request.round_number,
            payload=payload,
            ledger_head=self._ledger.head(),
        )
        return payload

    def _reserve(self, request: ReleaseRequest, release_id: ReleaseId) -> None:
        limits = self._limits.for_plan(request.plan)
        self._ledger.commit(request.commitment, limits)
        self._ledger.reserve(
            release_id,
            study_id=request.study_id,
            round_number=request.round_number,
            mechanisms=request.mechanisms,
            limits=limits,
            plan_digest=request.plan_digest,
        )

    def _statement(self, request: ReleaseRequest) -> LedgerStatement:
        # The total needs no place here: it was charged with the whole study when that began.
        limits = self._limits.for_plan(request.plan)
        spent = self._ledger.spent(request.study_id, limits.delta).epsilon
        return LedgerStatement(
            epsilon_spent=spent,
            epsilon_remaining=max(0.0, limits.epsilon_study_max - spent),
            delta=limits.delta,
            ledger_head=self._ledger.head(),
        )

    def _seal(self, header: EnvelopeHeader, payload: bytes) -> Released:
        envelope = seal_envelope(
            header, payload, signing_key=self._signing_key, recipient=self._coordinator
        )
        return Released(envelope, maker=_MAKER)


def _body(produced: Produced) -> bytes:
    if produced.counts is not None:
        return encode_counts(produced.counts)
    return b"" if produced.update is None else encode_parameters(produced.update)


def _failed(how: str) -> ReleaseRefused:
    return ReleaseRefused(
        "training, evaluation or counting let nothing out",
        expected="a result that passes checks G1 to G8",
        arrived=how,
        todo="report this as a fault; this round is over for this site, the next one is asked anew",
        number=how if how.startswith("G") else "",
    )
