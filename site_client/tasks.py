"""What the site does for each request: check, train, evaluate or count, and then the gate.

A refusal is an ordinary reply with a number. Whatever else goes wrong becomes R99: no text of an
exception, which could quote a patient's row, is sent or logged, only its type and place.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from common.clock import Clock
from common.crypto.keys import OpeningKey, SealingKey, SigningKey, VerifyKey
from common.errors import (
    ApprovalError,
    CohortiumError,
    DataSourceError,
    LedgerError,
    PlanError,
    ReleaseRefused,
)
from common.ids import Digest, SiteId
from common.privacy.calibration import PlannedMechanisms, plan_mechanisms
from common.privacy.ledger import Ledger
from common.privacy.mechanism import MechanismRecord
from common.protocol.arrays import Parameters
from common.protocol.envelope import envelope_digest, read_header
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    EvaluationCounts,
    RefusedTask,
    TaskKind,
    TaskRequest,
)
from common.protocol.refusals import REFUSALS
from common.study.plan import StudyPlan
from common.study.scaling import Scaling, split_model
from site_client import request_checks
from site_client.approvals import Approval, Approvals
from site_client.config import SiteConfig, SitePaths
from site_client.features.matrix import FeatureMatrix, split
from site_client.features.scaled import scale
from site_client.release.checks import Produced
from site_client.release.gate import Gate, Released, ReleaseRequest
from site_client.release.release_log import ReleaseLog
from site_client.release.site_limits import SiteLimits
from site_client.scaling_pin import ScalingPin
from site_client.source_pin import SourcePin
from site_client.training.counts import count_patients
from site_client.training.engine import TrainingEngine, TrainingTask
from site_client.training.evaluation import evaluate
from site_client.training.randomness import Randomness
from site_client.training.scaling_moments import release_moments

if TYPE_CHECKING:
    from site_client.feature_use import FeaturePins
    from site_client.site_features import Features

BUSY_WAIT_S: Final = 600.0
WAITING_MAX: Final = 4
"""Requests that wait for their turn, or work; another one is told to come again."""
UNSIGNED_LOGGED_PER_HOUR_MAX: Final = 60
"""Refusals of what the coordinator did not sign: anyone on the way could send them without end."""
_UNSIGNED: Final = frozenset({"R1", "R2", "R3"})
_NO_PLAN: Final = Digest("0" * 64)

logger = logging.getLogger("cohortium.agent")


@dataclass(frozen=True)
class SiteKeys:
    """The agent's keys, and the coordinator's that it pinned at enrolment."""

    signing: SigningKey
    opening: OpeningKey
    salt: bytes
    coordinator_verify: VerifyKey
    coordinator_sealing: SealingKey


@dataclass(frozen=True)
class SiteRecords:
    """The agent's records."""

    ledger: Ledger
    log: ReleaseLog
    approvals: Approvals
    scaling_pin: ScalingPin
    source_pin: SourcePin | None = None
    feature_pins: FeaturePins | None = None


class SiteTasks:
    """One site's answers.

    Args:
        config: hospital IT's.
        folder: where site.toml lies.
        keys, records, clock: of the site.
        engine: trains.
        randomness: makes fresh streams for each release.
        is_real_ledger: true when the ledger is on disk.
        features: None: of the source in `config`.
    """

    def __init__(
        self,
        config: SiteConfig,
        *,
        folder: Path,
        keys: SiteKeys,
        records: SiteRecords,
        clock: Clock,
        engine: TrainingEngine,
        randomness: Callable[[], Randomness] = Randomness.from_system,
        is_real_ledger: bool = True,
        features: Features | None = None,
    ) -> None:
        self._config = config
        self._keys = keys
        self._records = records
        self._clock = clock
        self._engine = engine
        self._randomness = randomness
        self._busy = threading.Lock()
        self._places = threading.BoundedSemaphore(WAITING_MAX)
        self._unsigned_s: deque[int] = deque(maxlen=UNSIGNED_LOGGED_PER_HOUR_MAX)
        self._site_id = SiteId(config.site.id)
        self._limits = SiteLimits.of(config.limits)
        self._gate = Gate(
            self._site_id,
            ledger=records.ledger,
            log=records.log,
            limits=self._limits,
            signing_key=keys.signing,
            coordinator=keys.coordinator_sealing,
            is_real_ledger=is_real_ledger,
        )
        if features is None:
            # Imported here: only a site with a source of its own loads DuckDB and Arrow.
            from site_client.site_features import source_features

            features = source_features(
                config, SitePaths(folder), salt=keys.salt, records=records, clock=clock
            )
        self._features = features
        self._planned: tuple[Digest, PlannedMechanisms] | None = None

    def handle(self, envelope: bytes) -> Released:
        """Return the reply to one request envelope.

        Raises:
            ProtocolError: when not even the header can be read, so that there is nobody to answer.
        """
        header = read_header(envelope)
        if not self._places.acquire(blocking=False):
            return self._refuse("R16", _NO_PLAN, self._reply_header(header))
        try:
            return self._handle_in_turn(envelope, header)
        finally:
            self._places.release()

    def _handle_in_turn(self, envelope: bytes, header: EnvelopeHeader) -> Released:
        reply_header = self._reply_header(header)
        if not self._busy.acquire(timeout=BUSY_WAIT_S):
            return self._refuse("R16", _NO_PLAN, reply_header)
        plan_digest = _NO_PLAN
        try:
            request = request_checks.open_request(
                envelope,
                header,
                site_id=self._site_id,
                coordinator=self._keys.coordinator_verify,
                opening_key=self._keys.opening,
                now_s=self._clock.now_s(),
            )
            plan_digest = request.plan_digest
            logger.info("round %d of %s asked", header.round_number, header.study_id)
            return self._answer(envelope, header, request, reply_header)
        except Exception as error:
            number = _refusal_number(error)
            # No traceback and no text but ours: both could quote a patient's row.
            told = str(error) if isinstance(error, CohortiumError) else type(error).__name__
            logger.error("%s: %s", number, told)  # noqa: TRY400
        finally:
            self._busy.release()
        return self._refuse(number, plan_digest, reply_header)

    def _answer(
        self,
        envelope: bytes,
        header: EnvelopeHeader,
        request: TaskRequest,
        reply_header: EnvelopeHeader,
    ) -> Released:
        digest = envelope_digest(envelope)
        sent = self._gate.resend(digest)
        if sent is not None:
            logger.info("round %d: the same reply again", header.round_number)
            return sent
        if self._records.approvals.is_training_paused(header.study_id):
            request_checks.refuse("R17")
        plan = self._approved(request, header).plan
        planned = self._plan_mechanisms(request.plan_digest, plan)
        evaluates = request.round_number in planned.evaluation_rounds
        request_checks.check_round(request, plan, evaluates=evaluates)
        is_count = request.kind is TaskKind.COUNT
        tables = request_checks.check_candidates(request, plan) if is_count else ()
        release = ReleaseRequest(
            study_id=header.study_id,
            plan_digest=request.plan_digest,
            round_number=request.round_number,
            kind=request.kind,
            base_version=request.base_version,
            plan=plan,
            evaluate=evaluates,
            mechanisms=_mechanisms(request, planned, evaluates=evaluates),
            planned=planned.counted,
            declared_cohort_size=self._config.site.declared_cohort_size,
            tables=tables,
        )
        release_id = release.release_id(self._site_id)
        request_checks.check_stale(
            self._records.ledger.entries(),
            header,
            release_id=release_id,
            is_cached=self._records.log.payload(release_id) is not None,
        )
        parameters, scaling = ({}, None) if is_count else self._model(request, plan)
        request_checks.check_study_limit(plan, self._limits)
        matrix = self._features.matrix(request.plan_digest, plan)
        request_checks.check_cohort(
            len(matrix.y), cohort_size_min=self._config.limits.cohort_size_min
        )
        released = self._gate.release(
            release,
            reply_header,
            request_digest=digest,
            produce=partial(self._produce, release, parameters, scaling, matrix),
        )
        logger.info("round %d of %s answered", header.round_number, header.study_id)
        return released

    def _model(self, request: TaskRequest, plan: StudyPlan) -> tuple[Parameters, Scaling | None]:
        parameters, scaling = split_model(request_checks.check_model(request, plan))
        request_checks.check_scaling(
            scaling, plan, is_same=partial(self._records.scaling_pin.is_same, request.plan_digest)
        )
        return parameters, scaling

    def _produce(
        self,
        release: ReleaseRequest,
        parameters: Parameters,
        scaling: Scaling | None,
        matrix: FeatureMatrix,
    ) -> Produced:
        scaled = scale(matrix, release.plan, scaling)
        trained, _ = split(scaled, release.plan)
        randomness = self._randomness()
        planned = self._plan_mechanisms(release.plan_digest, release.plan)
        done: list[MechanismRecord] = []
        update: Parameters | None = None
        evaluation: EvaluationCounts | None = None
        counts: tuple[int, ...] | None = None
        if release.kind is TaskKind.COUNT and planned.selection is not None:
            mechanism = planned.selection.of_round(release.round_number)
            counts = count_patients(
                trained.first_samples(),
                release.tables,
                plan=release.plan,
                mechanism=mechanism,
                randomness=randomness,
            )
            done.append(mechanism)
        if release.kind is TaskKind.TRAIN:
            result = self._engine.train(
                trained,
                parameters,
                TrainingTask(release.plan, planned.train_per_round, release.declared_cohort_size),
                randomness,
            )
            update = result.update
            done.append(result.mechanism)
        if release.kind is TaskKind.SCALE and planned.scaling is not None:
            update = release_moments(
                trained,
                release.plan,
                mechanism=planned.scaling,
                declared_cohort_size=release.declared_cohort_size,
                randomness=randomness,
            )
            done.append(planned.scaling)
        if release.evaluate:
            counted = planned.evaluation_of(release.round_number)
            evaluation = evaluate(
                scaled.of_part(counted.part).first_samples(),
                parameters,
                plan=release.plan,
                model_version=release.base_version,
                mechanism=counted,
                declared_cohort_size=release.declared_cohort_size,
                randomness=randomness,
            )
            done.append(counted)
        return Produced(update, evaluation, tuple(done), randomness.is_reproducible, counts)

    def _approved(self, request: TaskRequest, header: EnvelopeHeader) -> Approval:
        try:
            approval = self._records.approvals.find(request.plan_digest)
        except ApprovalError:
            approval = None
        return request_checks.check_approval(approval, header, now_s=self._clock.now_s())

    def _plan_mechanisms(self, digest: Digest, plan: StudyPlan) -> PlannedMechanisms:
        if self._planned is None or self._planned[0] != digest:
            self._planned = (digest, plan_mechanisms(plan))
        return self._planned[1]

    def _refuse(self, number: str, plan_digest: Digest, header: EnvelopeHeader) -> Released:
        refusal = RefusedTask(plan_digest, header.round_number, number)
        if number == "R15":
            return self._gate.refuse_unlogged(refusal, header)
        if number in _UNSIGNED and not self._may_log_unsigned():
            return self._gate.refuse_unlogged(refusal, header)
        try:
            return self._gate.refuse(refusal, header)
        except LedgerError:
            return self._gate.refuse_unlogged(replace(refusal, number="R15"), header)

    def _may_log_unsigned(self) -> bool:
        now_s, times = self._clock.now_s(), self._unsigned_s
        if len(times) == UNSIGNED_LOGGED_PER_HOUR_MAX and now_s - times[0] < 3600:
            return False
        times.append(now_s)
        return True

    def _reply_header(self, header: EnvelopeHeader) -> EnvelopeHeader:
        now_s = self._clock.now_s()
        return EnvelopeHeader(
            direction=Direction.REPLY,
            study_id=header.study_id,
            site_id=self._site_id,
            round_number=header.round_number,
            request_id=header.request_id,
            issued_at_s=now_s,
            expires_at_s=now_s + max(3600, header.expires_at_s - header.issued_at_s),
            sender_fingerprint=self._keys.signing.fingerprint,
            recipient_fingerprint=self._keys.coordinator_sealing.fingerprint,
        )


def _refusal_number(error: Exception) -> str:
    """Return the number of the refusal that an exception becomes."""
    if isinstance(error, LedgerError):
        return "R15"
    if isinstance(error, DataSourceError | PlanError):
        return error.number or "R14"
    if isinstance(error, ReleaseRefused):
        return "R18"
    if isinstance(error, CohortiumError) and error.number in REFUSALS:
        return error.number
    return "R99"


def _mechanisms(
    request: TaskRequest, planned: PlannedMechanisms, *, evaluates: bool
) -> tuple[MechanismRecord, ...]:
    if request.kind is TaskKind.COUNT and planned.selection is not None:
        return (planned.selection.of_round(request.round_number),)
    mechanisms: list[MechanismRecord] = []
    if request.kind is TaskKind.TRAIN:
        mechanisms.append(planned.train_per_round)
    if request.kind is TaskKind.SCALE and planned.scaling is not None:
        mechanisms.append(planned.scaling)
    if evaluates:
        mechanisms.append(planned.evaluation_of(request.round_number))
    return tuple(mechanisms)
