"""The noise a plan needs at each epsilon, what of epsilon that leaves, and what a step then is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.privacy.accountant import epsilon_of
from common.privacy.calibration import calibrate_training, scaling_noise_of
from common.privacy.mechanism import DpSgdSteps, GaussianVector
from common.study.plan import StudyPlan

EPSILONS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
COHORT_SIZES: Final = (100, 300, 1000, 10_000)


@dataclass(frozen=True)
class NoiseLine:
    """The calibrated training noise at one epsilon.

    Args:
        epsilon: promised.
        noise_multiplier: the smallest that keeps the promise over all rounds.
        epsilon_spent: what all rounds spend with it, the scaling release among them.
        is_plans: whether this is the plan's own epsilon.
    """

    epsilon: float
    noise_multiplier: float
    epsilon_spent: float
    is_plans: bool

    @property
    def unused(self) -> float:
        """The part of epsilon that is left over, 0 to 1."""
        return 1 - self.epsilon_spent / self.epsilon


@dataclass(frozen=True)
class BatchLine:
    """What a step is at a site of one size, with the plan's own epsilon.

    Args:
        cohort_size: declared.
        batch: expected patients of a step, the public denominator.
        noise_per_coordinate: standard deviation of the noise in each coordinate of the mean
            gradient, in units of the clipping norm.
    """

    cohort_size: int
    batch: float
    noise_per_coordinate: float


def noise_lines(
    plan: StudyPlan, *, epsilons: tuple[float, ...] = EPSILONS
) -> tuple[NoiseLine, ...]:
    """Return the calibrated noise at each epsilon and at the plan's own, epsilon rising.

    Raises:
        AccountingError: when no noise keeps one of them.
    """
    training, delta = plan.training, plan.privacy.delta
    steps = training.rounds * training.local_steps
    lines = []
    for epsilon in sorted({*epsilons, plan.privacy.epsilon}):
        scaling_noise = scaling_noise_of(plan, epsilon=epsilon)
        noise = calibrate_training(
            epsilon=epsilon,
            delta=delta,
            sampling_probability=training.sampling_probability,
            steps=steps,
            scaling_noise=scaling_noise,
        )
        before = () if scaling_noise is None else (GaussianVector(scaling_noise),)
        record = DpSgdSteps(noise, training.sampling_probability, steps)
        spent = epsilon_of((record, *before), delta=delta)
        lines.append(NoiseLine(epsilon, noise, spent, epsilon == plan.privacy.epsilon))
    return tuple(lines)


def batch_lines(
    plan: StudyPlan,
    noise_multiplier: float,
    *,
    cohort_sizes: tuple[int, ...] = COHORT_SIZES,
) -> tuple[BatchLine, ...]:
    """Return what a step is at sites of several sizes."""
    trained = plan.evaluation.training_fraction
    lines = []
    for size in cohort_sizes:
        batch = max(1.0, plan.training.sampling_probability * size * trained)
        lines.append(BatchLine(size, batch, noise_multiplier / batch))
    return tuple(lines)
