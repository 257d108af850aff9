"""How often the monitor board's 95 % intervals hold the truth, noise of privacy included.

    nice python -m benchmarks.monitoring_intervals [--replicates 10000] [--processes 2]

Patients are drawn from populations whose truth is known exactly, counted into an outcome report's
bins, and given the discrete Gaussian noise that a plan's epsilon per report asks for. "Binned" is
the statistic of the whole population's bins; "unbinned" that of its scores, which no counts hold.
"Missed" counts over all reports, those without a number too.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import norm

from common.study.plan_file import read_plan
from common.study.report_tensors import ReportKind, TensorFamily, report_tensors
from server.monitor_board.statistics.group_intervals import group_intervals
from server.monitor_board.statistics.intervals import Intervals
from server.monitor_board.statistics.performance import auroc, calibration_fit
from server.monitor_board.statistics.performance_estimates import performance_intervals
from server.monitor_board.statistics.projection import project_counts
from server.monitor_board.statistics.score_scale import ScoreScale, bin_means

Float = npt.NDArray[np.float64]
PLAN = Path(__file__).parents[1] / "docs/examples/stroke-outcome.toml"
EQUAL = tuple(round(0.1 * place, 1) for place in range(1, 10))
FITTED = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
WHOLE = 1e8
EPSILONS = (1.0, 2.0, 4.0)
PATIENTS = (10_000, 1_000)


@dataclass(frozen=True)
class Population:
    """Patients of both outcomes with normal risk scores one deviation wide.

    Args:
        apart: distance of the two means.
        intercept, slope: what recalibration would find: 0 and 1 are perfect.
    """

    name: str
    prevalence: float
    apart: float
    intercept: float
    slope: float
    edges: tuple[float, ...]
    threshold: float

    @property
    def scale(self) -> ScoreScale:
        return ScoreScale(self.edges, self.threshold)

    def scores(self) -> tuple[Float, Float]:
        """Return scores, and the probability of each by outcome [2, scores]."""
        at = np.linspace(-7, 9, 200_001)
        joint = np.stack(
            [
                norm.pdf(at) * (1 - self.prevalence),
                norm.pdf(at, self.apart) * self.prevalence,
            ]
        )
        true_logit = np.log(joint[1] / joint[0])
        return expit((true_logit - self.intercept) / self.slope), joint / joint.sum()

    def cells(self) -> Float:
        """Return the probability of each cell [2, bins]."""
        scores, joint = self.scores()
        place = np.searchsorted(self.edges, scores, side="right")
        return np.stack([np.bincount(place, row, len(self.edges) + 1) for row in joint])

    def unbinned(self) -> dict[str, float]:
        """Return the statistics of the scores themselves."""
        scores, joint = self.scores()
        lower = np.cumsum(joint[0]) - joint[0] / 2
        return {
            "auroc": float((joint[1] * lower).sum() / joint[0].sum() / joint[1].sum()),
            "brier": float((joint[0] * scores**2 + joint[1] * (1 - scores) ** 2).sum()),
            "calibration_intercept": self.intercept,
            "calibration_slope": self.slope,
            "observed_to_expected": float(joint[1].sum() / (joint.sum(axis=0) * scores).sum()),
        }


POPULATIONS = (
    Population("12 %, calibrated, equal bins", 0.12, 1.19, 0.0, 1.0, EQUAL, 0.2),
    Population("12 %, intercept 0.1, fitted bins", 0.12, 1.19, 0.1, 1.0, FITTED, 0.2),
    Population("12 %, too extreme, fitted bins", 0.12, 1.19, -0.3, 0.7, FITTED, 0.2),
    Population("30 %, too extreme, equal bins", 0.30, 1.19, 0.0, 0.8, EQUAL, 0.5),
    Population("5 %, promises too little, fitted bins", 0.05, 1.7, 0.3, 1.2, FITTED, 0.1),
)
GROUP_EDGES = (0.1, 0.2, 0.4)
LEVEL_SHARES = (0.50, 0.30, 0.14, 0.06)
LEVELS = (
    Population("half", 0.12, 1.3, 0.0, 1.0, GROUP_EDGES, 0.2),
    Population("third", 0.20, 1.1, 0.1, 1.0, GROUP_EDGES, 0.2),
    Population("seventh", 0.15, 1.0, -0.2, 0.9, GROUP_EDGES, 0.2),
    Population("seventeenth", 0.25, 0.9, 0.3, 0.8, GROUP_EDGES, 0.2),
)


def noise_sd(epsilon: float, family: TensorFamily) -> float:
    """Return the noise of one family in the example plan with two groups and delta 1e-6."""
    plan = read_plan(PLAN)
    assert plan.monitoring is not None
    monitoring = plan.monitoring.model_copy(update={"epsilon_per_report": epsilon})
    plan = plan.model_copy(
        update={
            "monitoring": monitoring,
            "fairness_groups": plan.fairness_groups * 2,
            "privacy": plan.privacy.model_copy(update={"delta": 1e-6}),
        }
    )
    tensors = report_tensors(plan, ReportKind.OUTCOME)
    return next(item.noise_multiplier for item in tensors if item.family is family)


def reports(cells: Float, patients: int, sd: float, count: int, rng: np.random.Generator) -> Float:
    """Return `count` reports of that many patients, each [*cells.shape]."""
    exact = rng.multinomial(patients, cells.ravel() / cells.sum(), count)
    exact = exact.reshape(count, *cells.shape).astype(np.float64)
    return exact + discrete_gaussian(sd, exact.shape, rng)


def discrete_gaussian(sd: float, shape: tuple[int, ...], rng: np.random.Generator) -> Float:
    """Return integers k with probability proportional to exp(-k^2 / 2 sd^2); 0 for sd 0."""
    if sd == 0:
        return np.zeros(shape)
    support = np.arange(-int(12 * sd) - 2, int(12 * sd) + 3)
    weight = np.exp(-(support**2) / (2 * sd**2))
    return rng.choice(support, size=shape, p=weight / weight.sum()).astype(np.float64)


@dataclass(frozen=True)
class Cover:
    """How one statistic's intervals fared.

    Args:
        held: share of shown intervals that hold the binned truth; nan when none is shown.
        held_unbinned: the same of the unbinned truth, where there is one.
        shown: share of reports in which data sufficed.
        missed: share of all reports that show an interval without the truth.
    """

    population: str
    patients: int
    epsilon: float
    statistic: str
    truth: float
    held: float
    held_unbinned: float
    shown: float
    missed: float
    width: float


def overall_cover(case: tuple[Population, int, float, float, int]) -> list[Cover]:
    """Return the cover of every statistic of the whole population."""
    population, patients, epsilon, sd, count = case
    rng = np.random.default_rng([patients, int(epsilon * 100), POPULATIONS.index(population)])
    cells, scale = population.cells(), population.scale
    truth = performance_intervals(cells[None] * WHOLE, np.zeros(1), scale)
    drawn = reports(cells, patients, sd, count, rng)
    found = performance_intervals(drawn, np.full(count, sd), scale)
    unbinned = population.unbinned()
    return [
        _cover(population.name, patients, epsilon, name, many, truth[name].value[0], unbinned)
        for name, many in found.items()
        if name not in ("patients", "events")
    ]


def group_cover(case: tuple[int, float, float, int]) -> list[Cover]:
    """Return the cover of every level's statistics and of its gaps."""
    patients, epsilon, sd, count = case
    rng = np.random.default_rng([patients, int(epsilon * 100), 1_000])
    cells = np.stack(
        [share * level.cells() for share, level in zip(LEVEL_SHARES, LEVELS, strict=True)]
    )
    scale = LEVELS[0].scale
    drawn, sds = reports(cells, patients, sd, count, rng), np.full((count, 1), sd)
    whole, none = cells[None] * WHOLE, np.zeros((1, 1))
    exact, shown = group_intervals(whole, none, scale), group_intervals(drawn, sds, scale)
    found: list[Cover] = []
    for place, level in enumerate(LEVELS):
        for name, many in shown.levels.items():
            if name not in ("patients", "events"):
                one, truth = _column(many, place), exact.levels[name].value[0, place]
                found.append(_cover(level.name, patients, epsilon, name, one, truth))
        for name, (many, _) in shown.gaps.items():
            one, truth = _column(many, place), exact.gaps[name][0].value[0, place]
            found.append(_cover(level.name, patients, epsilon, f"gap {name}", one, truth))
    return found


def _column(many: Intervals, place: int) -> Intervals:
    parts = (many.value, many.low, many.high, many.standard_error)
    return Intervals(*(part[:, place] for part in parts))


def _cover(
    population: str,
    patients: int,
    epsilon: float,
    name: str,
    many: Intervals,
    truth: float,
    unbinned: dict[str, float] | None = None,
) -> Cover:
    shown = np.isfinite(many.value)
    low, high = many.low[shown], many.high[shown]

    def held(value: float) -> float:
        return float(np.mean((low <= value) & (value <= high))) if shown.any() else np.nan

    other = held(unbinned[name]) if unbinned and name in unbinned else np.nan
    width = float(np.mean(high - low)) if shown.any() else np.nan
    binned, often = held(truth), float(shown.mean())
    missed = often * (1 - binned) if shown.any() else 0.0
    return Cover(population, patients, epsilon, name, truth, binned, other, often, missed, width)


def bootstrap_cover(
    case: tuple[Population, int, float, int, int],
) -> dict[str, tuple[float, float]]:
    """Return by statistic how often basic and percentile bootstrap intervals hold the truth.

    Project, draw as many patients, add fresh noise, project, calculate.
    """
    population, patients, sd, count, draws = case
    rng = np.random.default_rng([patients, 7])
    cells, edges = population.cells(), population.edges

    def statistics(counts: Float) -> Float:
        projected = project_counts(counts, cell_axes=2)
        with np.errstate(all="ignore"):
            slope = calibration_fit(projected, bin_means(projected.sum(axis=-2), edges))[1]
            return np.stack([auroc(projected), slope])

    truth = statistics(cells * WHOLE)
    held = np.zeros((2, 2))
    for one in reports(cells, patients, sd, count, rng):
        likely = project_counts(one, cell_axes=2)
        again = statistics(reports(likely, max(round(one.sum()), 1), sd, draws, rng))
        low, high = np.nanquantile(again, [0.025, 0.975], axis=1)
        shown = statistics(one)
        held[:, 0] += (2 * shown - high <= truth) & (truth <= 2 * shown - low)
        held[:, 1] += (low <= truth) & (truth <= high)
    names = ("auroc", "calibration_slope")
    return {
        name: (float(row[0]), float(row[1])) for name, row in zip(names, held / count, strict=True)
    }


def print_ranges(title: str, covers: Iterable[Cover]) -> None:
    """Print by statistic the lowest and highest cover over populations, and the share shown."""
    print(f"\n{title}\n| statistic | binned | unbinned | shown | missed | width |")
    print("|---|---|---|---|---|---|")
    ordered = sorted(covers, key=lambda cover: cover.statistic)
    for name, group in itertools.groupby(ordered, key=lambda cover: cover.statistic):
        rows = list(group)
        cells = [_range([row.held for row in rows]), _range([row.held_unbinned for row in rows])]
        cells += [
            _range([row.shown for row in rows]),
            f"{max(row.missed for row in rows):.3f}",
            _range([row.width for row in rows]),
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def _range(values: list[float]) -> str:
    known = [value for value in values if not np.isnan(value)]
    return f"{min(known):.3f} to {max(known):.3f}" if known else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    count = options.replicates
    print_binning()
    overall = {epsilon: noise_sd(epsilon, TensorFamily.OVERALL) for epsilon in EPSILONS}
    groups = {epsilon: noise_sd(epsilon, TensorFamily.GROUPS) for epsilon in EPSILONS}
    print("noise of overall", overall, "of groups", groups)
    with ProcessPoolExecutor(options.processes) as pool:
        for patients, epsilon in itertools.product(PATIENTS, EPSILONS):
            title = f"{patients:,} patients, epsilon {epsilon:g}"
            cases = [(who, patients, epsilon, overall[epsilon], count) for who in POPULATIONS]
            found = pool.map(overall_cover, cases)
            levels = pool.map(group_cover, [(patients, epsilon, groups[epsilon], count)])
            print_ranges(title, itertools.chain.from_iterable(found))
            print_ranges(f"{title}, levels", itertools.chain.from_iterable(levels))
        for patients in PATIENTS:
            case = (POPULATIONS[0], patients, overall[1.0], max(count // 10, 1), 400)
            found_by = pool.submit(bootstrap_cover, case).result()
            print(f"bootstrap, basic and percentile, {patients:,} patients, epsilon 1: {found_by}")


def print_binning() -> None:
    """Print what counting into bins does to each statistic, without chance and noise."""
    print(
        "| population | bins | "
        + " | ".join(POPULATIONS[0].unbinned())
        + " |\n|---|---|---|---|---|---|---|"
    )
    for population in POPULATIONS:
        for name, edges in (("equal", EQUAL), ("fitted", FITTED)):
            whole = Population(
                population.name, population.prevalence, population.apart, population.intercept,
                population.slope, edges, edges[4],
            )  # fmt: skip
            found = performance_intervals(whole.cells()[None] * WHOLE, np.zeros(1), whole.scale)
            differences = {
                key: found[key].value[0] - value for key, value in whole.unbinned().items()
            }
            off = ["" if np.isnan(value) else f"{value:+.4f}" for value in differences.values()]
            print(f"| {population.name} | {name} | {' | '.join(off)} |")


if __name__ == "__main__":
    main()
