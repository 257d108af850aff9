"""What an honest site never sends is flagged; what it sends is not, in hundreds of reports."""

from __future__ import annotations

import numpy as np

from common.study.report_tensors import ReportKind
from server.monitor_board.kept_reports import CountedTensors, report_layout
from server.monitor_board.plausibility import Flag, find_flags
from tests.lib.board_world import PLAN, World

KIND = ReportKind.CASE_MIX
LAYOUT = report_layout(PLAN, KIND)
CLEAN: tuple[Flag, ...] = ()


def _tensors(counts: np.ndarray) -> CountedTensors:
    return CountedTensors(LAYOUT, counts.astype(np.int64))


def _exact(draws: np.random.Generator, patients: int) -> np.ndarray:
    parts = []
    for tensor, _ in LAYOUT.places.values():
        share = draws.dirichlet(np.ones(tensor.cells))
        parts.append(draws.multinomial(patients, share))
    return np.concatenate(parts)


def _names(found: tuple[Flag, ...]) -> list[str]:
    return [flag.check for flag in found]


def test_honest_reports_are_not_flagged() -> None:
    world, draws = World(), np.random.default_rng(5)
    earlier: list[CountedTensors] = []
    for _ in range(300):
        patients = int(draws.integers(20, 20_000))
        report = _tensors(world.noisy(KIND, patients))
        assert find_flags(report, earlier=earlier[-12:], patients_max=None) == CLEAN
        earlier.append(report)


def test_counts_without_noise_are_flagged() -> None:
    exact = _tensors(_exact(np.random.default_rng(6), 500))
    assert "no-noise" in _names(find_flags(exact, earlier=(), patients_max=None))


def test_tensors_that_count_different_numbers_of_patients_are_flagged() -> None:
    counts = World().noisy(KIND, 5000)
    tensor, start = LAYOUT.places["scores"]
    counts[start : start + tensor.cells] += 500 // tensor.cells * 4
    assert _names(find_flags(_tensors(counts), earlier=(), patients_max=None)) == ["totals"]


def test_a_cell_far_below_zero_is_flagged() -> None:
    world = World()
    counts = world.noisy(KIND, 5000)
    tensor, start = LAYOUT.places["sentinels/age"]
    fall = counts[start] + int(7 * tensor.noise_multiplier) + 1
    counts[start] -= fall
    counts[start + 1] += fall  # the total stays: only the cell gives it away
    assert _names(find_flags(_tensors(counts), earlier=(), patients_max=None)) == ["negative"]


def test_more_patients_than_the_site_can_have_are_flagged() -> None:
    report = _tensors(World().noisy(KIND, 3000))
    assert find_flags(report, earlier=(), patients_max=2990) == CLEAN
    assert _names(find_flags(report, earlier=(), patients_max=1000)) == ["cohort"]


def test_noise_that_was_used_before_is_flagged_though_every_count_differs() -> None:
    draws = np.random.default_rng(7)
    first = _exact(draws, 800)
    noise = World().noisy(KIND, 0)
    second = _exact(draws, 950)
    before = _tensors(first + noise)
    assert find_flags(before, earlier=(), patients_max=None) == CLEAN
    again = _tensors(second + noise)
    assert _names(find_flags(again, earlier=[before], patients_max=None)) == ["same-noise"]
