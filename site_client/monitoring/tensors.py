"""Exact counts of a report's patients, cell after cell as `report_tensors` orders them.

They are a type of their own, which the gate does not let out: it takes `NoisedCounts`, and these
are made from exact ones by `site_client.release.report_noise` alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from common.protocol.arrays import Parameters
from common.study.contingency import is_counting
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from common.study.report_tensors import (
    ReportKind,
    ReportTensor,
    TensorFamily,
    level_count,
    report_tensors,
    sentinel_edges,
)
from common.study.scaling import Scaling
from site_client.features.forward_fill import forward_filled
from site_client.features.matrix import build_matrix
from site_client.features.scaled import scale
from site_client.release.report_noise import ExactCounts
from site_client.sources.table import MISSING_LEVEL, PatientTable
from site_client.training.evaluation import score_in_slots

Cells = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def score_rows(
    table: PatientTable,
    plan: StudyPlan,
    parameters: Parameters,
    scaling: Scaling | None,
    *,
    salt: bytes,
    expected: float,
    stream: np.random.Generator,
) -> Scores:
    """Return the model's probability [rows]; a patient's depends on that patient alone.

    Args:
        table: one row a patient.
        plan, parameters, scaling: the model.
        salt: of the site.
        expected: the public number of patients.
        stream: secret coins for their places in memory.
    """
    matrix = scale(build_matrix(table, plan, salt=salt), plan, scaling).first_samples()
    return score_in_slots(plan, parameters, matrix.x, expected=expected, stream=stream)


def exact_counts(
    table: PatientTable, scores: Scores, plan: StudyPlan, kind: ReportKind
) -> ExactCounts:
    """Return the exact counts of a report [cells]; never released.

    Args:
        table: one row a patient; of a report with outcomes, each with a label.
        scores: the model's probability [rows].
        plan: with `[monitoring]`.
        kind: of the report.
    """
    return ExactCounts(
        np.concatenate(
            [_counted(tensor, table, scores, plan) for tensor in report_tensors(plan, kind)]
        )
    )


def _counted(tensor: ReportTensor, table: PatientTable, scores: Scores, plan: StudyPlan) -> Cells:
    places = _PLACES[tensor.family](tensor, table, scores, plan)
    cell = np.ravel_multi_index(places, tensor.shape)
    return np.bincount(cell, minlength=tensor.cells).astype(np.int64)


def _sentinel(
    tensor: ReportTensor, table: PatientTable, _: Scores, plan: StudyPlan
) -> tuple[Cells, ...]:
    feature = next(item for item in plan.features if item.name == tensor.subject)
    last = tensor.shape[0] - 1
    if isinstance(feature, CategoricalFeature):
        return (_with_missing_last(table.levels[feature.name], last),)
    values = newest_values(table.numeric[feature.name], feature)
    inside = np.searchsorted(sentinel_edges(plan, feature), values, side="right")
    return (np.where(np.isnan(values), last, inside).astype(np.int64),)


def newest_values(values: npt.NDArray[np.float64], feature: NumericFeature) -> Scores:
    """Return one value a row: in time bins the newest recorded one, of events the most in a bin."""
    if values.ndim == 1:
        return values
    if is_counting(feature):
        recorded = np.where(np.isnan(values), -np.inf, values).max(axis=1)
        return np.where(np.isinf(recorded), np.nan, recorded)
    return np.asarray(forward_filled(values[..., None])[:, -1, 0])


def _scores(
    _: ReportTensor, __: PatientTable, scores: Scores, plan: StudyPlan
) -> tuple[Cells, ...]:
    return (_score_bins(scores, plan, is_group=False),)


def _overall(
    _: ReportTensor, table: PatientTable, scores: Scores, plan: StudyPlan
) -> tuple[Cells, ...]:
    return (table.label.astype(np.int64), _score_bins(scores, plan, is_group=False))


def _group_scores(
    tensor: ReportTensor, table: PatientTable, scores: Scores, plan: StudyPlan
) -> tuple[Cells, ...]:
    return (_levels(tensor, table, plan), _score_bins(scores, plan, is_group=True))


def _groups(
    tensor: ReportTensor, table: PatientTable, scores: Scores, plan: StudyPlan
) -> tuple[Cells, ...]:
    bins = _score_bins(scores, plan, is_group=True)
    return (_levels(tensor, table, plan), table.label.astype(np.int64), bins)


_PLACES: dict[
    TensorFamily,
    Callable[[ReportTensor, PatientTable, Scores, StudyPlan], tuple[Cells, ...]],
] = {
    TensorFamily.SENTINELS: _sentinel,
    TensorFamily.SCORES: _scores,
    TensorFamily.GROUP_SCORES: _group_scores,
    TensorFamily.OVERALL: _overall,
    TensorFamily.GROUPS: _groups,
}


def _levels(tensor: ReportTensor, table: PatientTable, plan: StudyPlan) -> Cells:
    feature = next(item for item in plan.features if item.name == tensor.subject)
    last = level_count(feature) - 1 if isinstance(feature, CategoricalFeature) else 0
    return _with_missing_last(table.levels[tensor.subject], last)


def _with_missing_last(levels: Cells, last: int) -> Cells:
    # Where a level may not be missing, reading has refused a row without one.
    return np.where(levels == MISSING_LEVEL, last, levels).astype(np.int64)


def _score_bins(scores: Scores, plan: StudyPlan, *, is_group: bool) -> Cells:
    if plan.monitoring is None:
        return np.zeros(len(scores), dtype=np.int64)
    edges = plan.monitoring.group_edges if is_group else plan.monitoring.score_edges
    return np.searchsorted(np.array(edges), scores, side="right").astype(np.int64)
