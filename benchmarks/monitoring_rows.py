"""Rows of invented patients, and the board's reports of the same patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.monitoring_alarms import SHIFTED
from common.study.plan import StudyPlan
from common.study.report_tensors import report_tensors
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.statistics.noisy_counts import NoisyCounts
from tests.lib.monitored import CLIP, discrete_gaussian, make_reports, weeks

Floats = npt.NDArray[np.float64]
MISSING_SHARE = 0.05
LEVEL_SHARES = {2: (0.52, 0.48), 4: (0.2, 0.3, 0.3, 0.2)}


@dataclass(frozen=True)
class Rows:
    """One site's patients.

    Args:
        categories: of each column: how many, or 0 for numbers.
        reference: [patients, columns]; NaN is missing.
        weeks: the same of each week.
    """

    names: tuple[str, ...]
    categories: tuple[int, ...]
    reference: Floats
    weeks: tuple[Floats, ...]

    def from_week(self, begin: int) -> Rows:
        """Return the same patients without the first weeks."""
        return replace(self, weeks=self.weeks[begin:])


def draw_rows(
    plan: StudyPlan,
    shifts: Sequence[float],
    *,
    patients: int,
    reference: int,
    rng: np.random.Generator,
) -> Rows:
    """Draw a reference and weeks; a week's shift is that of ten numbers, in deviations."""
    categories = [0 if item.kind == "numeric" else len(item.levels) for item in plan.features]
    return Rows(
        names=tuple(feature.name for feature in plan.features),
        categories=tuple(categories),
        reference=_draw(categories, 0.0, reference, rng),
        weeks=tuple(_draw(categories, shift, patients, rng) for shift in shifts),
    )


def _draw(
    categories: Sequence[int], shift: float, patients: int, rng: np.random.Generator
) -> Floats:
    columns: list[Floats] = []
    for place, levels in enumerate(categories):
        if levels:
            drawn = rng.choice(levels, patients, p=LEVEL_SHARES[levels])
            columns.append(drawn.astype(np.float64))
        else:
            values = rng.normal(shift if place < SHIFTED else 0.0, 1, patients)
            columns.append(np.where(rng.random(patients) < MISSING_SHARE, np.nan, values))
    return np.stack(columns, axis=1)


def board_reports(plan: StudyPlan, rows: Rows, *, rng: np.random.Generator) -> list[KeptReport]:
    """Return one site's reports of these patients, with noise.

    Scores and outcomes, which rows have not, follow the laws of the benchmark of alarms.
    """
    labels = weeks(len(rows.weeks))
    of_period = dict(zip(labels, rows.weeks, strict=True))
    reports = make_reports(
        plan,
        labels,
        sites=["site"],
        patients=len(rows.weeks[0]),
        reference_patients=len(rows.reference),
        rng=rng,
    )
    return [
        _with_counts(plan, report, of_period.get(report.period, rows.reference), rows, rng)
        for report in reports
    ]


def _with_counts(
    plan: StudyPlan, report: KeptReport, values: Floats, rows: Rows, rng: np.random.Generator
) -> KeptReport:
    """Return the report with its sentinels counted from rows."""
    tensors = dict(report.tensors)
    for tensor in report_tensors(plan, report.kind):
        if tensor.subject in rows.names and tensor.name.startswith("sentinels/"):
            place, bins = rows.names.index(tensor.subject), tensor.cells - 1
            column = values[:, place]
            present = np.clip(column[~np.isnan(column)], -CLIP, CLIP)
            edges = np.arange(bins + 1) - 0.5
            if rows.categories[place] == 0:
                edges = np.linspace(-CLIP, CLIP, bins + 1)
            counts = np.append(np.histogram(present, edges)[0], len(column) - len(present))
            noise = discrete_gaussian(rng, tensor.noise_multiplier, tensor.shape)
            tensors[tensor.name] = NoisyCounts(counts + noise, tensor.noise_multiplier)
    return replace(report, tensors=tensors)
