"""Score held-out patients with a received model: noisy counts by label and score bin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from common.ids import Digest
from common.models import build_model, load_parameters
from common.privacy.discrete_gaussian import discrete_gaussian, variance_of
from common.privacy.mechanism import DiscreteGaussianCounts
from common.protocol.arrays import Parameters
from common.protocol.messages import EvaluationCounts
from common.study.plan import StudyPlan
from site_client.features.matrix import FeatureMatrix
from site_client.training.randomness import Randomness


def score(plan: StudyPlan, parameters: Parameters, x: npt.NDArray[np.float32]) -> np.ndarray:
    """Return predicted probabilities [patients] of the outcome, float64."""
    model = build_model(plan)
    load_parameters(model, parameters)
    with torch.no_grad():
        logits = model(torch.from_numpy(x)).squeeze(1)
    # Whatever the model, each patient has a score: an answer must not tell that one has none.
    return np.asarray(np.nan_to_num(torch.sigmoid(logits.double()).numpy(), nan=0.5))


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
    randomness: Randomness,
) -> EvaluationCounts:
    """Return noisy counts: each patient adds 1 to one cell; the noise is exact, of integers."""
    bins = plan.evaluation.score_bins
    exact = count_by_score(score(plan, parameters, held_out.x), held_out.y, bins=bins)
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
