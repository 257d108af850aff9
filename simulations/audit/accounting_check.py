"""Direct tests of the books: steps done are steps charged, and all rounds' charges add up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.privacy.accountant import epsilon_of
from common.study.plan import StudyPlan
from simulations.audit.evidence import StudyEvidence
from simulations.audit.one_run import CONFIDENCE, OneRunResult
from simulations.audit.report import Check

EPSILON_TOLERANCE: Final = 1e-6
UPDATE_TOLERANCE: Final = 1e-4


def check_steps(studies: Sequence[StudyEvidence]) -> Check:
    """Check that every round took as many noisy steps as its record says, empty batches too."""
    wrong = [
        (done, record.steps)
        for study in studies
        for done, record in zip(study.noised_steps, study.records, strict=True)
        if done != record.steps
    ]
    empty = sum(int((study.batch_sizes == 0).sum()) for study in studies)
    total = sum(sum(study.noised_steps) for study in studies)
    measured = f"{total} noisy steps in all, {empty} of them on empty batches"
    if wrong:
        measured += f"; a round took {wrong[0][0]} where its record says {wrong[0][1]}"
    return Check(
        "steps",
        not wrong,
        measured,
        "as many as each mechanism record says",
        "steps that are not what is accounted: a skipped empty batch tells that nobody was drawn",
    )


def check_records(studies: Sequence[StudyEvidence]) -> Check:
    """Check that every round returned the record of the mechanism that it was asked for."""
    wrong = sum(
        record != planned
        for study in studies
        for record, planned in zip(study.records, study.planned, strict=True)
    )
    return Check(
        "records",
        wrong == 0,
        f"{wrong} rounds with another record than asked for",
        "none",
        "an update with another mechanism than the plan's",
    )


def check_claim(plan: StudyPlan, studies: Sequence[StudyEvidence], claimed: float) -> Check:
    """Check the stated epsilon against all rounds' records of one study, composed anew.

    Args:
        plan: its epsilon is the promise.
        studies: the first is the one whose statement is checked.
        claimed: epsilon that was stated after its last round.
    """
    composed = epsilon_of(studies[0].records, delta=plan.privacy.delta)
    most = min(claimed, plan.privacy.epsilon) * (1 + EPSILON_TOLERANCE)
    return Check(
        "claim",
        composed <= most,
        f"epsilon {composed:.4f} over all {len(studies[0].records)} rounds",
        f"at most the stated {claimed:.4f} and the plan's {plan.privacy.epsilon:g}",
        "an epsilon that forgets earlier rounds, as when accounting begins anew in each",
    )


def check_updates(studies: Sequence[StudyEvidence]) -> Check:
    """Check that every released update follows from the noised sums alone."""
    worst = max((error for study in studies for error in study.update_errors), default=0.0)
    return Check(
        "updates",
        worst <= UPDATE_TOLERANCE,
        f"{worst:.2g} of an update is not explained by its noised sums, at most",
        f"{UPDATE_TOLERANCE}",
        "something besides noised sums reaches the update",
    )


def check_one_run(result: OneRunResult, claimed: float) -> Check:
    """Check that the canaries do not refute the stated epsilon."""
    return Check(
        "one-run",
        result.epsilon_min <= claimed,
        f"epsilon at least {result.epsilon_min:.3f} with {CONFIDENCE:.0%} confidence, "
        f"{result.correct} of {result.guesses} guesses right",
        f"at most the stated {claimed:.4f}",
        "canaries can be told from the releases better than the statement allows",
    )
