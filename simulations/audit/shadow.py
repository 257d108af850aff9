"""Shadow studies: the plan's rounds on generated patients with canaries, watched from inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from common.canonical import digest_bytes
from common.clock import FixedClock
from common.ids import ReleaseId, StudyId
from common.privacy.calibration import plan_mechanisms
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.privacy.mechanism import DpSgdSteps
from common.privacy.spending_limits import SpendingLimits
from common.protocol.arrays import Parameters
from common.study.columns import initial_parameters, parameter_count
from common.study.plan import StudyPlan
from simulations.audit.canaries import Canaries, add_canaries, draw_canaries
from simulations.audit.evidence import StudyEvidence
from simulations.audit.patients import generate_patients
from simulations.audit.recorder import Recorder
from site_client.training.clipped_sum import ChooseClippedSum, choose_clipped_sum
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.engine import TrainingEngine, TrainingTask
from site_client.training.randomness import Randomness

STUDIES_MIN: Final = 4
"""So that noise which repeats from study to study shows."""
SPARSE_ROUNDS: Final = 2
SPARSE_STEPS: Final = 50
SPARSE_BATCH: Final = 0.5
"""Expected batch size of the sparse study: six of ten batches are empty."""

PlanRound: TypeAlias = Callable[[StudyPlan], DpSgdSteps]
Claim: TypeAlias = Callable[[StudyPlan, Sequence[DpSgdSteps]], float]


def planned_round(plan: StudyPlan) -> DpSgdSteps:
    """Return what the product plans for one training round."""
    return plan_mechanisms(plan).train_per_round


def ledger_claim(plan: StudyPlan, rounds: Sequence[DpSgdSteps]) -> float:
    """Return the epsilon that the product's ledger states after these rounds, one release each.

    Raises:
        BudgetError: when the rounds pass the plan's epsilon, as they would at a site.
    """
    ledger = Ledger(MemoryLedgerStore(), FixedClock(0))
    study, privacy = StudyId(plan.study.id), plan.privacy
    limits = SpendingLimits(
        epsilon_study_max=privacy.epsilon,
        delta=privacy.delta,
        epsilon_total_max=privacy.epsilon,
        delta_total=privacy.delta,
    )
    for number, mechanism in enumerate(rounds, start=1):
        ledger.reserve(
            ReleaseId(digest_bytes("audit", str(number).encode())),
            study_id=study,
            round_number=number,
            mechanisms=(mechanism,),
            limits=limits,
        )
    return ledger.spent(study, privacy.delta).epsilon


def product_engine(choose_sum: ChooseClippedSum) -> TrainingEngine:
    """Return the product's engine around a clipped sum."""
    return DpSgdEngine(choose_sum=choose_sum)


@dataclass(frozen=True)
class AuditedParts:
    """The parts under audit, by default the product's own.

    Args:
        engine: makes the engine of one study around a clipped sum.
        choose_sum: the clipped sum.
        randomness: fresh streams for each release.
        plan_round: the mechanism of one round.
        claim: the epsilon stated after the rounds whose records it gets.
    """

    engine: Callable[[ChooseClippedSum], TrainingEngine] = product_engine
    choose_sum: ChooseClippedSum = choose_clipped_sum
    randomness: Callable[[], Randomness] = Randomness.from_system
    plan_round: PlanRound = planned_round
    claim: Claim = ledger_claim


@dataclass(frozen=True)
class ShadowSize:
    """How much is simulated.

    Args:
        rounds: of each study.
        patients: generated, besides the canaries.
        canaries: over all studies.
    """

    rounds: int
    patients: int
    canaries: int


def study_sizes(plan: StudyPlan, canaries: int) -> tuple[int, ...]:
    """Return the number of canaries of each study: never more than the model has parameters."""
    each = min(parameter_count(plan), math.ceil(canaries / STUDIES_MIN))
    whole, rest = divmod(canaries, each)
    return (each,) * whole + ((rest,) if rest else ())


def run_studies(
    plan: StudyPlan, size: ShadowSize, parts: AuditedParts, rng: np.random.Generator
) -> Iterator[StudyEvidence]:
    """Yield the evidence of each shadow study; the sparse one comes last.

    Args:
        plan: under audit.
        size: how much.
        parts: under audit.
        rng: of the simulation: patients, canaries and starting models, never noise or sampling.
    """
    mechanism = parts.plan_round(plan)
    parameters = parameter_count(plan)
    for count in study_sizes(plan, size.canaries):
        canaries = draw_canaries(count, parameters, rng)
        yield run_study(plan, mechanism, canaries, parts, rng, size=size)
    sparse = replace(
        mechanism, sampling_probability=min(1.0, SPARSE_BATCH / size.patients), steps=SPARSE_STEPS
    )
    none = draw_canaries(0, parameters, rng)
    sparse_size = replace(size, rounds=SPARSE_ROUNDS)
    yield run_study(plan, sparse, none, parts, rng, size=sparse_size, is_last_again=True)


def run_study(
    plan: StudyPlan,
    mechanism: DpSgdSteps,
    canaries: Canaries,
    parts: AuditedParts,
    rng: np.random.Generator,
    *,
    size: ShadowSize,
    is_last_again: bool = False,
) -> StudyEvidence:
    """Return the evidence of one shadow study: one engine, all rounds, one site.

    With `is_last_again` the last round is trained twice, as after a release that failed.
    """
    cohort = add_canaries(generate_patients(plan, size.patients, rng), canaries)
    recorder = Recorder(parts.choose_sum, canaries, rounds=size.rounds)
    engine = parts.engine(recorder.choose)
    task = TrainingTask(plan, mechanism, declared_cohort_size=len(cohort.y))
    base: Parameters = initial_parameters(plan)
    records = []
    for number in range(size.rounds + is_last_again):
        is_again = number == size.rounds
        with recorder.round(task, base, is_again=is_again):
            done = engine.train(cohort, base, task, parts.randomness())
        recorder.note_update(task, base, done.update)
        records.append(done.mechanism)
        if number < size.rounds - 1:
            base = {name: base[name] + done.update[name] for name in base}
    return StudyEvidence(
        cohort=len(cohort.y),
        records=tuple(records),
        planned=(mechanism,) * len(records),
        noised_steps=tuple(recorder.noised_steps),
        blocks=recorder.blocks(),
        noise=np.array(recorder.noise).reshape(len(recorder.noise), -1),
        rounds=np.array(recorder.noise_rounds, np.int64),
        batch_sizes=np.array(recorder.batch_sizes, np.int64),
        inclusions=np.array(recorder.inclusions, np.int8).reshape(len(recorder.batch_sizes), -1),
        share_max=recorder.share_max,
        canaries=canaries,
        scores=recorder.scores,
        update_errors=tuple(recorder.update_errors),
    )
