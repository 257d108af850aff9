"""The figures of the runs as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

_OURS = "ours"
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def print_table(
    job: str, titles: Mapping[str, str], runs: Runs, *, our_epsilon: float | None
) -> None:
    """Print one line for each program: medians over its finished runs, with ratios to ours.

    `our_epsilon` is of our ledgers' records by the rivals' accountant, if that was computed.
    """
    print(
        f"\n| {job} | runs | wall s (range) | of ours | CPU s | of ours | PSS MB | RSS MB "
        "| processes | AUROC | ε (RDP) |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, all_runs in runs.items():
        done = _done(all_runs)
        if not done:
            print(f"| {titles[name]} | 0 of {len(all_runs)} | did not finish | | | | | | | | |")
            continue
        wall = [run["wall_s"] for run in done]
        epsilon = done[0]["told"].get("epsilon", our_epsilon)
        cells = (
            titles[name],
            f"{len(done)} of {len(all_runs)}",
            f"{statistics.median(wall):.1f} ({min(wall):.1f} to {max(wall):.1f})",
            _times(runs, name, "wall_s"),
            f"{_median(done, 'cpu_s'):.1f}",
            _times(runs, name, "cpu_s"),
            f"{_median(done, 'pss_mb'):.0f}",
            f"{_median(done, 'rss_mb'):.0f}",
            f"{max(run['processes'] for run in done)}",
            f"{statistics.mean(run['told']['auroc'] for run in done):.3f}",
            "" if epsilon is None else f"{epsilon:.3f}",
        )
        print(f"| {' | '.join(cells)} |")


def ratio_lines(titles: Mapping[str, str], runs: Runs) -> list[str]:
    """Return a sentence for each rival, and one about the load when the machine was not quiet."""
    lines = [""]
    for name in runs:
        if name != _OURS and _done(runs[name]) and _done(runs[_OURS]):
            lines.append(
                f"{titles[name]}: {_times(runs, name, 'wall_s')} times our wall time, "
                f"{_times(runs, name, 'cpu_s')} times our processor time, "
                f"{_times(runs, name, 'pss_mb')} times our memory (PSS)."
            )
    loads = [run["load"] for some in runs.values() for run in some]
    if max(loads, default=0.0) > 1.0:
        # The run before counts in the load average too, so a little of it is always there.
        lines.append(
            f"Load when a run began: {min(loads):.1f} to {max(loads):.1f}. Above what the run "
            "before leaves, others were at work: compare processor seconds, not wall times."
        )
    return lines


def _done(some: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [run for run in some if run["told"] is not None]


def _median(some: Sequence[Mapping[str, Any]], figure: str) -> float:
    return float(statistics.median(run[figure] for run in some))


def _times(runs: Runs, name: str, figure: str) -> str:
    ours = _done(runs[_OURS])
    if not ours or not _median(ours, figure):
        return ""
    return f"{_median(_done(runs[name]), figure) / _median(ours, figure):.2f}"
