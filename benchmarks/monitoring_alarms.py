"""How often the board's signals alarm when nothing changed, and how soon when something did.

    python -m benchmarks.monitoring_alarms [--site-years 200] [--detections 200]

Invented sites whose patients follow known laws (tests/lib/monitored.py): 18 numbers and two
categories as sentinels, two fairness groups, a report of case mix and one of outcomes every week,
epsilon 2 for both together, exact discrete Gaussian noise. Beside Evidently's default preset:
benchmarks/monitoring_evidently.py.
"""

from __future__ import annotations

import argparse
import collections
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.study.plan import StudyPlan
from common.study.report_periods import REFERENCE
from common.study.report_tensors import ReportKind
from server.monitor_board.courses import Course
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.signals import BoardSignals, assess
from tests.lib.monitored import (
    World,
    make_reports,
    monitored_plan,
    weeks,
)

Floats = npt.NDArray[np.float64]
SEED = 20_261_121
WEEKS = 52
QUARTER_ENDS = (13, 26, 39, 52)
SIZES = ((10_000, 20_000), (2_000, 5_000), (1_000, 2_000))
"""Patients in a week and in the reference."""
SHIFTED, SHIFT = 10, 0.25
AT_ONCE = 50


@dataclass(frozen=True)
class NullYears:
    """What happened in years in which nothing changed.

    Args:
        rates: by metric: tests, and the share of p-values of at most 0.01.
        at_alarm: share of site-years in which any level reached its alarm.
        alerted: share with an ALERT, a quarterly look's included.
        pooled_at_alarm: share of runs in which all sites together reached it.
    """

    site_years: int
    rates: Mapping[str, tuple[int, float]]
    at_alarm: float
    alerted: float
    pooled_at_alarm: float
    seconds: float


def null_years(
    plan: StudyPlan, *, patients: int, reference: int, site_years: int, seed: int
) -> NullYears:
    """Run unchanged sites for a year of weeks."""
    begun = time.perf_counter()
    p_values: dict[str, list[Floats]] = collections.defaultdict(list)
    at_alarm, alerted, pooled = [], [], []
    for start in range(0, site_years, AT_ONCE):
        sites = [f"site-{start + place}" for place in range(min(AT_ONCE, site_years - start))]
        reports = make_reports(
            plan,
            weeks(WEEKS),
            sites=sites,
            patients=patients,
            reference_patients=reference,
            rng=np.random.default_rng([seed, patients, start]),
        )
        board = assess(plan, reports, now_s=0, expected={})
        for course in board.courses:
            found = np.array([item.p_value for item in course.track.comparisons])
            p_values[course.watch.metric.value].append(found[:, :-1].ravel())
        levels = np.array([course.track.levels for course in board.courses])
        is_at = np.asarray((levels >= board.levels.sequential).any(axis=(0, 1)))
        at_alarm.append(is_at[:-1])
        pooled.append(is_at[-1])
        alerted.append(ever_alerted(plan, reports, board))
    rates = {}
    for metric, parts in p_values.items():
        tested = np.concatenate(parts)
        tested = tested[~np.isnan(tested)]
        if len(tested):
            rates[metric] = len(tested), float((tested <= 0.01).mean())
    return NullYears(
        site_years,
        rates,
        float(np.concatenate(at_alarm).mean()),
        float(np.concatenate(alerted).mean()),
        float(np.mean(pooled)),
        time.perf_counter() - begun,
    )


def ever_alerted(
    plan: StudyPlan, reports: Sequence[KeptReport], board: BoardSignals
) -> npt.NDArray[np.bool_]:
    """Return which sites were in ALERT in any week, the looks of all whole quarters included."""
    found = np.zeros(len(board.site_ids), dtype=np.bool_)
    for course in (course for course in board.courses if course.periods):
        beyond = np.array([item.is_beyond for item in course.track.comparisons])
        is_at = course.track.levels >= board.levels.sequential
        found |= (beyond & is_at)[:, :-1].any(axis=0)
    labels = weeks(WEEKS)
    reported = max(len(course.periods) for course in board.courses)
    for end in (end for end in QUARTER_ENDS if end <= reported):
        seen = {REFERENCE, *labels[end - 13 : end]}
        quarter = assess(
            plan, [item for item in reports if item.period in seen], now_s=0, expected={}
        )
        found |= _alerts_of_looks(quarter.courses, quarter.levels.look_p_value_max)
    return found


def _alerts_of_looks(courses: Sequence[Course], p_value_max: float) -> npt.NDArray[np.bool_]:
    looks = [course.look for course in courses if course.look is not None]
    fired = [(look.p_value <= p_value_max) & look.is_beyond for look in looks]
    return np.asarray(np.any(fired, axis=0)[:-1])


def reports_to_alert(
    plan: StudyPlan, world: World, *, patients: int, reference: int, runs: int, seed: int
) -> list[int | None]:
    """Return for each run after how many changed reports its site alerts; None for never in 8."""
    labels, begin = weeks(14), 6
    sites = [f"site-{place}" for place in range(runs)]
    reports = make_reports(
        plan,
        labels,
        sites=sites,
        patients=patients,
        reference_patients=reference,
        rng=np.random.default_rng([seed, patients, 7]),
        worlds=dict.fromkeys(labels[begin:], world),
        kinds=(ReportKind.CASE_MIX,),
    )
    # Each run is a study of one site, so all sites together must not freeze what one has learned.
    found: list[int | None] = []
    for site in sites:
        own = [item for item in reports if item.site_id == site]
        board = assess(plan, own, now_s=0, expected={})
        first = [_first_alert(course, board, begin) for course in board.courses]
        hits = [item for item in first if item is not None]
        found.append(min(hits) if hits else None)
    return found


def _first_alert(course: Course, board: BoardSignals, begin: int) -> int | None:
    for place, found in enumerate(course.track.comparisons):
        is_at = course.track.levels[place][0] >= board.levels.sequential
        if place >= begin and is_at and found.is_beyond[0]:
            return place - begin + 1
    return None


def shifted_world() -> World:
    """Return the world of the promise: a quarter deviation in 10 of 20 features."""
    return World(shifts={f"marker_{place:02d}": SHIFT for place in range(SHIFTED)})


def main() -> None:
    """Print the tables of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site-years", type=int, default=200)
    parser.add_argument("--detections", type=int, default=200)
    asked = parser.parse_args()
    plan = monitored_plan()
    for patients, reference in SIZES:
        _print_null(plan, patients, reference, asked.site_years)
    for patients, reference in SIZES:
        _print_detections(plan, patients, reference, asked.detections)


def _print_null(plan: StudyPlan, patients: int, reference: int, site_years: int) -> None:
    years = null_years(
        plan, patients=patients, reference=reference, site_years=site_years, seed=SEED
    )
    print(f"null: {patients} a week, reference {reference}, {years.seconds:.0f} s")
    for metric, (tests, rate) in years.rates.items():
        print(f"  {metric:24} {tests:8} tests  {100 * rate:.2f} % at 1 %")
    print(f"  site-years at alarm {100 * years.at_alarm:.2f} %, ALERT {100 * years.alerted:.2f} %")
    print(f"  all sites together {100 * years.pooled_at_alarm:.1f} % of runs", flush=True)


def _print_detections(plan: StudyPlan, patients: int, reference: int, runs: int) -> None:
    found = reports_to_alert(
        plan, shifted_world(), patients=patients, reference=reference, runs=runs, seed=SEED
    )
    counts = collections.Counter(found)
    shares = [100 * sum(counts[n] for n in range(1, most + 1)) / runs for most in (1, 2, 4, 8)]
    print(f"shift: {patients} a week: {shares} % within 1, 2, 4, 8 reports", flush=True)


if __name__ == "__main__":
    main()
