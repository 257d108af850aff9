"""The smallest noise multiplier that keeps a plan inside its budget.

Training, tuning and evaluation touch disjoint patients, so each is calibrated to the plan's whole
epsilon and delta. A release for scaling touches those who train:
its noise is fixed first, and training gets what the composition of both leaves. Parameters are
fixed before the first release and a study stops at its planned number of rounds, so composition at
that number holds however the releases are used in between.
"""

from __future__ import annotations

import math
from collections.abc import Sized
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from common import limits
from common.privacy.accountant import epsilon_of, epsilon_of_counted
from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)
from common.privacy.noise_search import GRID, gaussian_guess, smallest_noise
from common.privacy.patient_parts import patient_parts


class TrainingNumbers(Protocol):
    """What calibration reads of a plan's training part."""

    @property
    def rounds(self) -> int:
        """Number of training rounds."""

    @property
    def local_steps(self) -> int:
        """DP-SGD steps in a round."""

    @property
    def sampling_probability(self) -> float:
        """Poisson rate of each patient in a step."""


class EvaluationNumbers(Protocol):
    """What calibration reads of a plan's evaluation part."""

    @property
    def held_out_fraction(self) -> float:
        """Share of patients who only score."""

    @property
    def tuning_fraction(self) -> float | None:
        """Share of patients who score the models before the final one, if they are others."""

    @property
    def releases(self) -> int:
        """Number of evaluations in the study."""


class PrivacyNumbers(Protocol):
    """What calibration reads of a plan's privacy part."""

    @property
    def epsilon(self) -> float:
        """The study's promise to each patient."""

    @property
    def delta(self) -> float:
        """At which epsilon is stated."""

    @property
    def noise_multiplier(self) -> Literal["calibrate"] | float:
        """Of a training step, or calibrate."""


class SelectionNumbers(Protocol):
    """What calibration reads of a plan that only selects."""

    @property
    def joint_candidates(self) -> int:
        """Candidates whose pairs are counted in the second round."""


class ScalingNumbers(Protocol):
    """What calibration reads of a plan's scaling part."""

    @property
    def epsilon_fraction(self) -> float:
        """Share of epsilon that the scaling release alone may spend; 0 releases nothing."""


class PlanNumbers(Protocol):
    """A study plan, as far as its noise is concerned."""

    @property
    def features(self) -> Sized:
        """The features, in a selection the candidates."""

    @property
    def scaling(self) -> ScalingNumbers | None:
        """The scaling release, if there is one."""

    @property
    def training(self) -> TrainingNumbers:
        """Rounds, steps and sampling."""

    @property
    def evaluation(self) -> EvaluationNumbers:
        """Held-out share and releases."""

    @property
    def privacy(self) -> PrivacyNumbers:
        """Epsilon, delta and noise."""

    @property
    def selection(self) -> SelectionNumbers | None:
        """Of a plan that only selects among its features, or None."""


@dataclass(frozen=True)
class SelectionMechanisms:
    """The two releases of a plan that selects: counts of single candidates, then of pairs."""

    single: DiscreteGaussianCounts
    joint: DiscreteGaussianCounts

    def of_round(self, round_number: int) -> DiscreteGaussianCounts:
        """Return the record of round 1 or 2."""
        return (self.single, self.joint)[round_number - 1]


@dataclass(frozen=True)
class PlannedMechanisms:
    """Every noisy step that a plan makes at one site.

    A plan that selects makes those of `selection` and no other: its training and evaluation records
    say what a study of its training part would do.

    Args:
        train_per_round: the record of one training round.
        evaluation_per_release: the record of one evaluation by held-out patients.
        rounds: number of training rounds.
        releases: number of evaluations.
        evaluation_rounds: rounds whose request asks for an evaluation of the received model,
            rising; the last is rounds + 1, the final model; none of a plan that selects.
        scaling: the record of the one release before round 1, if the plan has it.
        selection: of a plan that selects, else None.
        tuning_per_release: the record of one evaluation by tuning patients, who then make all but
            the last.
    """

    train_per_round: DpSgdSteps
    evaluation_per_release: DiscreteGaussianCounts
    rounds: int
    releases: int
    evaluation_rounds: tuple[int, ...]
    scaling: GaussianVector | None = None
    selection: SelectionMechanisms | None = None
    tuning_per_release: DiscreteGaussianCounts | None = None

    def evaluation_of(self, round_number: int) -> DiscreteGaussianCounts:
        """Return the record of the evaluation in a round; the final model's is rounds + 1."""
        if self.tuning_per_release is None or round_number > self.rounds:
            return self.evaluation_per_release
        return self.tuning_per_release

    @property
    def counted(self) -> tuple[tuple[MechanismRecord, int], ...]:
        """Each record of the plan with how often it is done at most: what a site commits to."""
        if self.selection is not None:
            if self.selection.single == self.selection.joint:
                return ((self.selection.single, 2),)
            return ((self.selection.single, 1), (self.selection.joint, 1))
        before = () if self.scaling is None else ((self.scaling, 1),)
        trained = (*before, (self.train_per_round, self.rounds))
        if self.tuning_per_release is None:
            return (*trained, (self.evaluation_per_release, self.releases))
        tuned = (self.tuning_per_release, self.releases - 1)
        return (*trained, tuned, (self.evaluation_per_release, 1))


def plan_mechanisms(plan: PlanNumbers) -> PlannedMechanisms:
    """Return every noisy step that the plan makes at one site; raises `AccountingError`."""
    training, evaluation, privacy = plan.training, plan.evaluation, plan.privacy
    selection = _selection_mechanisms(plan)
    noise_multiplier = privacy.noise_multiplier
    scaling_noise = scaling_noise_of(plan, epsilon=privacy.epsilon)
    if noise_multiplier == "calibrate":
        noise_multiplier = calibrate_training(
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            sampling_probability=training.sampling_probability,
            steps=training.rounds * training.local_steps,
            scaling_noise=scaling_noise,
        )
    parts = patient_parts(evaluation)
    return PlannedMechanisms(
        train_per_round=DpSgdSteps(
            noise_multiplier=noise_multiplier,
            sampling_probability=training.sampling_probability,
            steps=training.local_steps,
            part=parts.training,
        ),
        evaluation_per_release=_evaluation(
            plan, parts.held_out, releases=evaluation.releases if parts.tuning is None else 1
        ),
        tuning_per_release=None
        if parts.tuning is None
        else _evaluation(plan, parts.tuning, releases=max(1, evaluation.releases - 1)),
        rounds=training.rounds,
        releases=evaluation.releases,
        evaluation_rounds=()
        if selection is not None
        else evaluation_rounds(rounds=training.rounds, releases=evaluation.releases),
        scaling=None
        if scaling_noise is None or selection is not None
        else GaussianVector(scaling_noise, parts.training),
        selection=selection,
    )


def _evaluation(plan: PlanNumbers, part: PatientPart, *, releases: int) -> DiscreteGaussianCounts:
    noise = calibrate_evaluation(
        epsilon=plan.privacy.epsilon, delta=plan.privacy.delta, releases=releases
    )
    return DiscreteGaussianCounts(noise_multiplier=noise, cells_per_patient_max=1, part=part)


def _selection_mechanisms(plan: PlanNumbers) -> SelectionMechanisms | None:
    if plan.selection is None:
        return None
    return calibrate_selection(
        epsilon=plan.privacy.epsilon,
        delta=plan.privacy.delta,
        candidates=len(plan.features),
        joint_candidates=plan.selection.joint_candidates,
        part=patient_parts(plan.evaluation).training,
    )


def scaling_noise_of(plan: PlanNumbers, *, epsilon: float) -> float | None:
    """Return the noise multiplier of the plan's scaling release at an epsilon, None without one.

    Raises:
        AccountingError: when no noise multiplier that makes sense keeps the release's share.
    """
    if plan.scaling is None or plan.scaling.epsilon_fraction == 0:
        return None
    return calibrate_scaling(
        epsilon=plan.scaling.epsilon_fraction * epsilon, delta=plan.privacy.delta
    )


def evaluation_rounds(*, rounds: int, releases: int) -> tuple[int, ...]:
    """Return the rounds that evaluate the received model, evenly spread, the last rounds + 1.

    Round 1 receives the untrained model and is never among them while releases <= rounds.
    """
    return tuple(1 + (number * rounds) // releases for number in range(1, releases + 1))


@lru_cache(maxsize=256)
def calibrate_scaling(*, epsilon: float, delta: float) -> float:
    """Return the smallest noise multiplier whose one Gaussian vector stays within (epsilon, delta).

    Raises:
        AccountingError: when no noise multiplier that makes sense keeps it.
    """

    def spent(noise_multiplier: float) -> float:
        return epsilon_of((GaussianVector(noise_multiplier),), delta=delta)

    return smallest_noise(spent, epsilon, guess=gaussian_guess(epsilon, delta))


@lru_cache(maxsize=256)
def calibrate_training(
    *,
    epsilon: float,
    delta: float,
    sampling_probability: float,
    steps: int,
    scaling_noise: float | None = None,
) -> float:
    """Return the smallest noise multiplier whose `steps` DP-SGD steps stay within the budget.

    Args:
        epsilon, delta: the budget.
        sampling_probability: Poisson rate of each patient in a step.
        steps: all steps of the study, at most `limits.STEPS_TOTAL_MAX`.
        scaling_noise: noise multiplier of the release before them about the same patients, if any.

    Raises:
        AccountingError: when no noise multiplier that makes sense keeps the budget.
    """

    before = () if scaling_noise is None else (GaussianVector(scaling_noise),)

    def spent(noise_multiplier: float) -> float:
        record = DpSgdSteps(noise_multiplier, sampling_probability, steps)
        return epsilon_of((record, *before), delta=delta)

    # Central limit: T steps at rate q are about one Gaussian release at noise sigma / (q sqrt(T)).
    guess = sampling_probability * math.sqrt(steps) * gaussian_guess(epsilon, delta)
    return smallest_noise(spent, epsilon, guess=max(guess, 0.5))


@lru_cache(maxsize=256)
def calibrate_evaluation(*, epsilon: float, delta: float, releases: int) -> float:
    """Return the smallest noise multiplier whose `releases` tables stay within the budget.

    Args:
        epsilon, delta: the budget.
        releases: number of tables released about the same patients, each patient in one cell.

    Raises:
        AccountingError: when no noise multiplier that makes sense keeps the budget.
    """

    def spent(noise_multiplier: float) -> float:
        record = DiscreteGaussianCounts(noise_multiplier, 1)
        return epsilon_of_counted({record: releases}, delta=delta)

    return smallest_noise(
        spent,
        epsilon,
        guess=math.sqrt(releases) * gaussian_guess(epsilon, delta),
        noise_multiplier_max=limits.DISCRETE_NOISE_MULTIPLIER_MAX,
    )


@lru_cache(maxsize=256)
def calibrate_selection(
    *, epsilon: float, delta: float, candidates: int, joint_candidates: int, part: PatientPart
) -> SelectionMechanisms:
    """Return the least noise whose two rounds of counts stay within the budget, half for each.

    T tables with noise multiplier s * sqrt(2 T) tell as much as one count with noise s * sqrt(2),
    so the two rounds tell as much as each other, and together as one count with noise s.

    Args:
        epsilon, delta: the budget.
        candidates: tables of round 1, in each of which every patient has one cell.
        joint_candidates: whose pairs are the tables of round 2.
        part: the patients who are counted.

    Raises:
        AccountingError: when no noise multiplier that makes sense keeps the budget.
    """
    tables = (candidates, math.comb(joint_candidates, 2))

    def records(noise: float) -> SelectionMechanisms:
        single, joint = (
            DiscreteGaussianCounts(
                math.ceil(noise * math.sqrt(2 * number) * GRID) / GRID, number, part
            )
            for number in tables
        )
        return SelectionMechanisms(single, joint)

    def spent(noise: float) -> float:
        made = records(noise)
        counted: dict[MechanismRecord, int] = {made.single: 1}
        counted[made.joint] = counted.get(made.joint, 0) + 1
        return epsilon_of_counted(counted, delta=delta)

    noise_max = limits.DISCRETE_NOISE_MULTIPLIER_MAX / math.sqrt(2 * max(tables)) - 1
    guess = gaussian_guess(epsilon, delta)
    return records(smallest_noise(spent, epsilon, guess=guess, noise_multiplier_max=noise_max))
