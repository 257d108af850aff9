"""Plan rules about cohort, model, training, evaluation and privacy. Numbers are in `rules`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from common import limits
from common.errors import AccountingError
from common.privacy.accountant import epsilon_of
from common.privacy.calibration import (
    calibrate_evaluation,
    calibrate_training,
    plan_mechanisms,
    scaling_noise_of,
)
from common.privacy.mechanism import DpSgdSteps, GaussianVector
from common.study.columns import column_count, parameter_count
from common.study.plan import Adam, StudyPlan
from common.study.problems import Problem

HELD_OUT_FRACTION_MIN: Final = 0.01  # below it a hospital of a thousand holds out a few patients
_TAIL: Final = 4.0  # standard deviations: an honest site stays within them but once in 30,000


def rule_ages_are_ordered(plan: StudyPlan) -> Iterator[Problem]:
    """The cohort's lowest age is not above its highest."""
    cohort = plan.cohort
    if cohort.age_years_min > cohort.age_years_max:
        yield Problem(
            "cohort.age_years_min",
            f"{cohort.age_years_min}, above age_years_max = {cohort.age_years_max}",
            "age_years_min at most age_years_max",
            "exchange the two ages",
        )


def rule_model_fits_a_message(plan: StudyPlan) -> Iterator[Problem]:
    """The model's parameters fit one message; a plan that selects trains none."""
    if plan.selection is not None:
        return
    needed, most = 4 * parameter_count(plan), limits.PARAMETERS_BYTES_MAX
    if needed > most:
        yield Problem(
            "model",
            f"{needed / 2**20:.0f} MiB of parameters",
            f"at most {most // 2**20} MiB",
            "choose fewer or narrower hidden layers, or fewer columns",
        )


def rule_patients_fit_into_memory(plan: StudyPlan) -> Iterator[Problem]:
    """A patient's rows and columns are few enough to be held for a whole cohort."""
    rows = plan.privacy.rows_per_patient_max
    columns = column_count(plan)
    if rows * columns > limits.PATIENT_NUMBERS_MAX:
        yield Problem(
            "features",
            f"{columns} columns for each of {rows} row(s) of a patient",
            f"at most {limits.PATIENT_NUMBERS_MAX:,} numbers a patient",
            "plan fewer features, time_bins or rows_per_patient_max",
        )


def rule_quorum_hides_each_site(plan: StudyPlan) -> Iterator[Problem]:
    """A round is made of two sites or more."""
    if plan.training.quorum < 2:
        yield Problem(
            "training.quorum",
            str(plan.training.quorum),
            "2 or more",
            "ask for two sites or more: the model of a round of one site is that site's update, "
            "which every other site would receive",
        )


def rule_releases_fit_the_rounds(plan: StudyPlan) -> Iterator[Problem]:
    """There are not more evaluations than rounds."""
    if plan.evaluation.releases > plan.training.rounds:
        yield Problem(
            "evaluation.releases",
            str(plan.evaluation.releases),
            f"at most training.rounds = {plan.training.rounds}",
            "evaluate less often: every evaluation makes the others noisier",
        )


def rule_both_parts_have_patients(plan: StudyPlan) -> Iterator[Problem]:
    """The held-out share is not so small that it holds nobody."""
    share = plan.evaluation.held_out_fraction
    if share < HELD_OUT_FRACTION_MIN:
        yield Problem(
            "evaluation.held_out_fraction",
            str(share),
            f"at least {HELD_OUT_FRACTION_MIN}",
            "hold out about a quarter of the patients",
        )


def rule_tuning_is_of_use(plan: StudyPlan) -> Iterator[Problem]:
    """Tuning patients are not too few, leave some to train, and have a model to score."""
    evaluation = plan.evaluation
    if evaluation.tuning_fraction is None:
        return
    room = 0.9 - evaluation.held_out_fraction
    if not HELD_OUT_FRACTION_MIN <= evaluation.tuning_fraction <= room:
        yield Problem(
            "evaluation.tuning_fraction",
            str(evaluation.tuning_fraction),
            f"at least {HELD_OUT_FRACTION_MIN}, and with held_out_fraction at most 0.9",
            "a tenth of the patients tunes well; the others should train",
        )
    if evaluation.releases < 2:
        yield Problem(
            "evaluation.releases",
            str(evaluation.releases),
            "2 or more, for the last is of held-out patients and no other would be of tuning ones",
            "ask for more evaluations, or remove tuning_fraction",
        )


def rule_steps_can_be_accounted(plan: StudyPlan) -> Iterator[Problem]:
    """All steps of the study together stay within what is accounted."""
    steps = plan.training.rounds * plan.training.local_steps
    if steps > limits.STEPS_TOTAL_MAX:
        yield Problem(
            "training.local_steps",
            f"{plan.training.rounds} rounds of {plan.training.local_steps} steps, {steps} in all",
            f"at most {limits.STEPS_TOTAL_MAX} steps in all",
            "plan fewer rounds or steps; each needs more noise in every other",
        )


def rule_delta_is_small(plan: StudyPlan) -> Iterator[Problem]:
    """Delta is small against a cohort, and not too small to be computed."""
    if not limits.DELTA_MIN <= plan.privacy.delta <= limits.DELTA_PLAN_MAX:
        yield Problem(
            "privacy.delta",
            f"{plan.privacy.delta:g}",
            f"{limits.DELTA_MIN:g} to {limits.DELTA_PLAN_MAX:g}",
            "choose delta below one over the number of patients of the largest site",
        )


def rule_training_noise_meets_epsilon(plan: StudyPlan) -> Iterator[Problem]:
    """The training noise keeps all rounds inside epsilon and delta, or can be calibrated to."""
    training, privacy = plan.training, plan.privacy
    steps = training.rounds * training.local_steps
    try:
        scaling_noise = scaling_noise_of(plan, epsilon=privacy.epsilon)
        if privacy.noise_multiplier == "calibrate":
            calibrate_training(
                epsilon=privacy.epsilon,
                delta=privacy.delta,
                sampling_probability=training.sampling_probability,
                steps=steps,
                scaling_noise=scaling_noise,
            )
            return
        record = DpSgdSteps(privacy.noise_multiplier, training.sampling_probability, steps)
        before = () if scaling_noise is None else (GaussianVector(scaling_noise),)
        epsilon = epsilon_of((record, *before), delta=privacy.delta)
    except AccountingError as error:
        yield Problem("privacy.noise_multiplier", error.arrived, error.expected, error.todo)
        return
    if epsilon > privacy.epsilon:
        yield Problem(
            "privacy.noise_multiplier",
            f"{privacy.noise_multiplier}, with which {steps} steps"
            f"{' and the scaling release' if before else ''} spend epsilon {epsilon:.4f}",
            f"noise with which they spend at most epsilon = {privacy.epsilon}",
            'write noise_multiplier = "calibrate", or plan fewer rounds or steps',
        )


def rule_evaluation_noise_can_be_calibrated(plan: StudyPlan) -> Iterator[Problem]:
    """Some noise keeps all evaluations inside epsilon and delta."""
    try:
        calibrate_evaluation(
            epsilon=plan.privacy.epsilon,
            delta=plan.privacy.delta,
            releases=plan.evaluation.releases,
        )
    except AccountingError as error:
        yield Problem("evaluation.releases", error.arrived, error.expected, error.todo)


def rule_update_norm_is_achievable(plan: StudyPlan) -> Iterator[Problem]:
    """An honest update of a small site passes the norm bound; a plan that selects has none."""
    if plan.selection is not None:
        return
    needed = honest_update_norm(plan, cohort_size=limits.COHORT_SIZE_MIN)
    if plan.training.update_norm_max < needed:
        yield Problem(
            "training.update_norm_max",
            str(plan.training.update_norm_max),
            f"at least {needed:.4g}, the norm that an honest update of a site with "
            f"{limits.COHORT_SIZE_MIN} patients can have",
            "raise update_norm_max, or lower the learning rate, local_steps or clipping_norm: "
            "sites scale a longer update down, and what was paid for in privacy is not learnt",
        )


def honest_update_norm(plan: StudyPlan, *, cohort_size: int) -> float:
    """Return the L2 norm that an honest site's update exceeds about once in 30,000 updates.

    The sum of clipped gradients of a step is at most clipping_norm for each sampled patient; the
    noise has `noise_multiplier * clipping_norm` in each of P coordinates. Both are divided by the
    expected batch, stepped with the learning rate, and grow by momentum at most 1 / (1 - m). A step
    of Adam moves a parameter by about the learning rate, whatever the gradient's length; four times
    that is allowed. Weight decay and the proximal term only shrink.

    Args:
        plan: whose noise can be calibrated.
        cohort_size: patients that the site declares, those held out among them.

    Raises:
        AccountingError: when the noise cannot be calibrated.
    """
    training = plan.training
    noise = plan_mechanisms(plan).train_per_round.noise_multiplier
    trained = cohort_size * plan.evaluation.training_fraction
    batch = training.sampling_probability * trained
    steps = training.local_steps
    sampled = steps + _TAIL * math.sqrt(steps * (1 - training.sampling_probability) / batch)
    noisy = noise * math.sqrt(steps) * (math.sqrt(parameter_count(plan)) + _TAIL) / batch
    optimizer = training.optimizer
    if isinstance(optimizer, Adam):
        return _TAIL * steps * optimizer.learning_rate * math.sqrt(parameter_count(plan))
    step_size = optimizer.learning_rate * plan.privacy.clipping_norm / (1 - optimizer.momentum)
    return step_size * (sampled + noisy)


def rule_report_costs_no_more_than_study(plan: StudyPlan) -> Iterator[Problem]:
    """One monitoring report spends no more than the whole study."""
    if plan.monitoring is None:
        return
    if plan.monitoring.epsilon_per_report > plan.privacy.epsilon:
        yield Problem(
            "monitoring.epsilon_per_report",
            str(plan.monitoring.epsilon_per_report),
            f"at most privacy.epsilon = {plan.privacy.epsilon}",
            "choose a smaller epsilon for each report",
        )
