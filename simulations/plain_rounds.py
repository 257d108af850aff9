"""The rounds of a plan without coordinator, keys, gate and ledger: what comparisons are made with.

Sites train by the product's engine, updates are aggregated as the plan says and applied by the
product's code, and the randomness is that of the study, so a federation trained here is the study's
own model to the bit. What differs between two comparisons is therefore who trained together, and
not code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from common.ids import SiteId
from common.privacy.calibration import plan_mechanisms
from common.privacy.mechanism import GaussianVector
from common.protocol.arrays import Parameters
from common.protocol.messages import TaskKind
from common.study.columns import initial_parameters, parameter_shapes
from common.study.plan import StudyPlan
from common.study.scaling import MOMENTS, Scaling, moment_shapes
from server.aggregation import WeightedMean
from server.robust_aggregation import Aggregation, aggregation_of
from server.scaling_estimate import estimate_scaling
from server.server_optimizer import ServerOptimizer
from simulations.batched.training_table import TrainingTable
from simulations.randomness import SiteRandomness
from site_client.features.matrix import FeatureMatrix, split
from site_client.features.scaled import scale
from site_client.training.engine import TrainingTask
from site_client.training.scaling_moments import release_moments


@dataclass(frozen=True)
class Trainee:
    """Patients who train as one site.

    Args:
        site_id: names its randomness.
        declared_cohort_size: its weight.
        patients: all of them, as the plan's public bounds scale them.
    """

    site_id: str
    declared_cohort_size: int
    patients: FeatureMatrix


def pool(site_id: str, trainees: Sequence[Trainee]) -> Trainee:
    """Return all patients as one site; each keeps the part to which the own site sent them."""
    matrices = [item.patients for item in trainees]
    weights = [item.weight for item in matrices if item.weight is not None]
    return Trainee(
        site_id,
        sum(item.declared_cohort_size for item in trainees),
        FeatureMatrix(
            matrices[0].columns,
            np.concatenate([item.x for item in matrices]),
            np.concatenate([item.y for item in matrices]),
            np.concatenate([item.part for item in matrices]),
            np.concatenate(weights) if weights else None,
        ),
    )


@dataclass(frozen=True)
class Company:
    """Who trains one model together.

    Args:
        trainees: one trains alone.
        has_noise: False: clipped as the plan says, without noise; such a model has no privacy.
    """

    trainees: Sequence[Trainee]
    has_noise: bool = True


def train_plainly(
    plan: StudyPlan,
    trainees: Sequence[Trainee],
    *,
    randomness: SiteRandomness,
    has_noise: bool = True,
) -> Parameters:
    """Return the model that these sites make together in the plan's rounds.

    Args:
        plan: that trains, from its own start.
        trainees, has_noise: see `Company`.
        randomness: of each site.
    """
    return train_companies(plan, [Company(trainees, has_noise)], randomness=randomness)[0]


def train_companies(
    plan: StudyPlan,
    companies: Sequence[Company],
    *,
    randomness: SiteRandomness,
    progress: Callable[[int, int], None] = lambda done, rounds: None,
) -> list[Parameters]:
    """Return the model of each company; all go through a round before any begins the next.

    So many small sites train as one program (`simulations.batched`), each as if it were alone.

    Args:
        plan, randomness: see `train_plainly`.
        companies: none knows of another.
        progress: told rounds done and rounds in all.
    """
    table = TrainingTable()
    studies = [_PlainStudy(plan, company, randomness, table) for company in companies]
    for number in range(1, plan.training.rounds + 1):
        progress(number - 1, plan.training.rounds)
        asked = {
            (place, site_id): partial(study.train, site_id, number)
            for place, study in enumerate(studies)
            for site_id in study.site_ids
        }
        for (place, site_id), update in table.answer_together(asked):
            studies[place].take(site_id, update)
        for study in studies:
            study.close_round()
    progress(plan.training.rounds, plan.training.rounds)
    return [study.last() for study in studies]


class _PlainStudy:
    """One company's study: its model, its sites' features and engines, and the aggregation."""

    def __init__(
        self, plan: StudyPlan, company: Company, randomness: SiteRandomness, table: TrainingTable
    ) -> None:
        planned = plan_mechanisms(plan)
        self._plan, self._randomness = plan, randomness
        self._steps, moments = planned.train_per_round, planned.scaling
        if not company.has_noise:
            self._steps = replace(self._steps, noise_multiplier=0.0)
            moments = None if moments is None else replace(moments, noise_multiplier=0.0)
        # Sums of floats depend on their order: the study's own is that of the sites' ids.
        trainees = sorted(company.trainees, key=lambda item: item.site_id)
        self._declared = {item.site_id: item.declared_cohort_size for item in trainees}
        self._scaling = None if moments is None else _scaling(plan, trainees, moments, randomness)
        self._trained = {
            item.site_id: split(scale(item.patients, plan, self._scaling), plan)[0]
            for item in trainees
        }
        self._engines = {item.site_id: table.seat() for item in trainees}
        self._optimizer = ServerOptimizer(
            plan.training.strategy, average_decay=plan.training.model_average_decay
        )
        self._model: Parameters = initial_parameters(plan)
        self._aggregation = self._new_aggregation()

    @property
    def site_ids(self) -> tuple[str, ...]:
        """Who trains, in the order in which updates are added."""
        return tuple(self._declared)

    def train(self, site_id: str, number: int) -> Parameters:
        """Return one site's update of a round."""
        task = TrainingTask(self._plan, self._steps, self._declared[site_id])
        streams = self._randomness(SiteId(site_id))(number)
        return (
            self._engines[site_id].train(self._trained[site_id], self._model, task, streams).update
        )

    def take(self, site_id: str, update: Parameters) -> None:
        """Add one site's update to the round's aggregation."""
        self._aggregation.add(update, weight=float(self._declared[site_id]))

    def close_round(self) -> None:
        """Step the model, and begin the next round's aggregation."""
        self._model = self._optimizer.step(self._model, self._aggregation.mean())
        self._aggregation = self._new_aggregation()

    def _new_aggregation(self) -> Aggregation:
        # One site alone is its own mean, median and nearest; a bound of the norm holds for it too.
        return aggregation_of(self._plan, TaskKind.TRAIN, parameter_shapes(self._plan))

    def last(self) -> Parameters:
        """Return the final model, with its scaling if it has one."""
        model = self._optimizer.last(self._model)
        return dict(model) if self._scaling is None else {**model, **self._scaling.arrays()}


def _scaling(
    plan: StudyPlan,
    trainees: Sequence[Trainee],
    mechanism: GaussianVector,
    randomness: SiteRandomness,
) -> Scaling:
    mean = WeightedMean(moment_shapes(plan))
    for item in trainees:
        moments = release_moments(
            split(item.patients, plan)[0],
            plan,
            mechanism=mechanism,
            declared_cohort_size=item.declared_cohort_size,
            randomness=randomness(SiteId(item.site_id))(0),
        )
        mean.add(moments, weight=1.0)
    return estimate_scaling(
        mean.mean()[MOMENTS] * mean.count,
        plan,
        noise_multiplier=mechanism.noise_multiplier,
        sites=mean.count,
    )
