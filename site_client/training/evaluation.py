"""Score held-out patients with a received model: noisy counts by label and score bin."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from common.ids import Digest
from common.models import build_model, load_parameters
from common.privacy.discrete_gaussian import discrete_gaussian, variance_of
from common.privacy.mechanism import DiscreteGaussianCounts
from common.privacy.patient_parts import share_of
from common.protocol.arrays import Parameters
from common.protocol.messages import EvaluationCounts
from common.study.plan import StudyPlan
from site_client.features.matrix import FeatureMatrix
from site_client.training.randomness import Randomness
from site_client.training.slots import seat, slot_count

ROWS_AT_ONCE: Final = 256
"""Rows of one forward pass, always so many: a score may not depend on who else is there."""


def score(plan: StudyPlan, parameters: Parameters, x: npt.NDArray[np.float32]) -> np.ndarray:
    """Return predicted probabilities [rows] of the outcome, float64.

    Args:
        plan: says which model.
        parameters: the trained ones.
        x: [rows, columns], already in the model's scaling if it has one (`features.scaled.scale`).
    """
    model = build_model(plan)
    load_parameters(model, parameters)
    rows = torch.from_numpy(x)
    logits = []
    with torch.no_grad():
        for start in range(0, len(rows), ROWS_AT_ONCE):
            piece = rows.new_zeros(ROWS_AT_ONCE, *rows.shape[1:])
            here = rows[start : start + ROWS_AT_ONCE]
            piece[: len(here)] = here
            logits.append(model(piece).squeeze(1)[: len(here)])
    found = torch.cat(logits) if logits else rows.new_zeros(0)
    # Whatever the model, each patient has a score: an answer must not tell that one has none.
    return np.asarray(np.nan_to_num(torch.sigmoid(found.double()).numpy(), nan=0.5))


def score_in_slots(
    plan: StudyPlan,
    parameters: Parameters,
    x: npt.NDArray[np.float32],
    *,
    expected: float,
    stream: np.random.Generator,
) -> np.ndarray:
    """Return `score` of patients who stand in random slots: nobody's score depends on another.

    Args:
        plan, parameters: the model.
        x: [patients, columns].
        expected: the public number of patients.
        stream: secret coins.
    """
    slots = slot_count(len(x), expected)
    seats = seat(len(x), slots, stream)
    standing = np.zeros((slots, *x.shape[1:]), dtype=np.float32)
    is_taken = seats < len(x)
    standing[is_taken] = x[seats[is_taken]]
    probabilities = score(plan, parameters, standing)
    found = np.empty(len(x))
    found[seats[is_taken]] = probabilities[is_taken]
    return found


def count_by_score(
    probabilities: npt.NDArray[np.float64], y: npt.NDArray[np.float32], *, bins: int
) -> npt.NDArray[np.int64]:
    """Return exact counts [2, bins] by label and equal-width score bin; never released."""
    cell = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    counts = np.zeros((2, bins), dtype=np.int64)
    np.add.at(counts, (y.astype(np.int64), cell), 1)
    return counts


def evaluate(
    held_out: FeatureMatrix,
    parameters: Parameters,
    *,
    plan: StudyPlan,
    model_version: Digest,
    mechanism: DiscreteGaussianCounts,
    declared_cohort_size: int,
    randomness: Randomness,
) -> EvaluationCounts:
    """Return noisy counts: each patient adds 1 to one cell; the noise is exact, of integers."""
    bins = plan.evaluation.score_bins
    probabilities = score_in_slots(
        plan,
        parameters,
        held_out.x,
        expected=declared_cohort_size * share_of(mechanism.part),
        stream=randomness.sampling,
    )
    exact = count_by_score(probabilities, held_out.y, bins=bins)
    variance = variance_of(mechanism.noise_multiplier)
    rows = [
        tuple(int(count) + discrete_gaussian(variance, randomness.noise_words) for count in row)
        for row in exact
    ]
    return EvaluationCounts(
        model_version=model_version,
        counts=(rows[0], rows[1]),
        noise_multiplier=mechanism.noise_multiplier,
    )
