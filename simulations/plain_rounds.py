"""The rounds of a plan without coordinator, keys, gate and ledger: what comparisons are made with.

Sites train by the product's engine, updates are averaged and applied by the product's code, and the
randomness is that of the study, so a federation trained here is the study's own model to the bit.
What differs between two comparisons is therefore who trained together, and not code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.ids import SiteId
from common.privacy.calibration import plan_mechanisms
from common.privacy.mechanism import GaussianVector
from common.protocol.arrays import Parameters
from common.study.columns import initial_parameters, parameter_shapes
from common.study.plan import StudyPlan
from common.study.scaling import MOMENTS, Scaling, moment_shapes
from server.aggregation import WeightedMean
from server.scaling_estimate import estimate_scaling
from server.server_optimizer import ServerOptimizer
from simulations.randomness import SiteRandomness
from site_client.features.matrix import FeatureMatrix, split
from site_client.features.scaled import scale
from site_client.training.dp_sgd_engine import DpSgdEngine
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
        trainees: one trains alone.
        randomness: of each site.
        has_noise: False: clipped as the plan says, without noise; such a model has no privacy.
    """
    planned = plan_mechanisms(plan)
    steps, moments = planned.train_per_round, planned.scaling
    if not has_noise:
        steps = replace(steps, noise_multiplier=0.0)
        moments = None if moments is None else replace(moments, noise_multiplier=0.0)
    # Sums of floats depend on their order: the study's own is that of the sites' ids.
    trainees = sorted(trainees, key=lambda item: item.site_id)
    engines = {item.site_id: DpSgdEngine() for item in trainees}
    scaling = None if moments is None else _scaling(plan, trainees, moments, randomness)
    trained = {
        item.site_id: split(scale(item.patients, plan, scaling), plan)[0] for item in trainees
    }
    optimizer = ServerOptimizer(
        plan.training.strategy, average_decay=plan.training.model_average_decay
    )
    model: Parameters = initial_parameters(plan)
    for number in range(1, plan.training.rounds + 1):
        mean = WeightedMean(parameter_shapes(plan))
        for item in trainees:
            task = TrainingTask(plan, steps, item.declared_cohort_size)
            streams = randomness(SiteId(item.site_id))(number)
            update = engines[item.site_id].train(trained[item.site_id], model, task, streams)
            mean.add(update.update, weight=float(item.declared_cohort_size))
        model = optimizer.step(model, mean.mean())
    model = optimizer.last(model)
    return dict(model) if scaling is None else {**model, **scaling.arrays()}


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
