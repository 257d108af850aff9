"""The board's signals and Evidently's default drift preset on the same patients, side by side.

    python -m benchmarks.monitoring_evidently [--years 20] [--itself 2] [--size 1000,1000 ...]

Invented sites like those of benchmarks/monitoring_alarms.py, with rows: 18 numbers, 5 % of each
missing, and two categories. Evidently reads the rows; the board counts of them with exact discrete
Gaussian noise. Evidently itself runs in an environment of its own, made when it is first asked for
(benchmarks/peers/environments.py), on the first `--itself` runs; its rules, written anew
(benchmarks/evidently_rules.py), on all. Where the two differ in any verdict the command fails.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.monitoring_alarms import SEED, SHIFT, WEEKS
from benchmarks.monitoring_readers import (
    Agreement,
    Run,
    Verdicts,
    agreement,
    board_run,
    evidently_run,
    evidently_verdicts,
    rules_verdicts,
)
from benchmarks.monitoring_rows import Rows, draw_rows
from benchmarks.peers.environments import (
    EVIDENTLY,
    FOLDER_VARIABLE,
    NotInstalled,
    environments_folder,
    python_of,
)
from common.study.plan import StudyPlan
from tests.lib.monitored import monitored_plan

SIZES = ((10_000, 20_000), (2_000, 5_000), (1_000, 2_000), (1_000, 1_000), (200, 5_000))
"""Patients in a week and in the reference."""
BEFORE, AFTER = 6, 8
"""Weeks before and after a shift begins."""
WITHIN = (1, 2, 8)
ITSELF = f"{EVIDENTLY.title} itself"
ANEW = "its rules, written anew"
BOARD = "the board, ε = 2"
HEADS = (
    "patients a week, reference",
    "reader",
    "runs",
    "tests flagged",
    "weeks with one",
    "years with one",
    "years with an alarm",
    "shift alarmed within 1, 2, 8 reports",
)


def main() -> None:
    """Print the table of docs/benchmarks.md."""
    asked = _options()
    plan = monitored_plan()
    try:
        python = python_of(EVIDENTLY, environments_folder(), may_install=not asked.no_install)
    except NotInstalled as error:
        python = None
        print(f"skipped: {error}; only its rules, written anew, run", file=sys.stderr)
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---|" * len(HEADS), flush=True)
    checked = Agreement()
    for patients, reference in asked.size or SIZES:
        of_readers, alike = run_size(
            plan, patients, reference, runs=asked.years, itself=asked.itself, python=python
        )
        checked = checked.with_more(alike)
        for reader, (unchanged, shifted) in of_readers.items():
            line = _line(f"{patients:,}, {reference:,}", reader, unchanged, shifted)
            print(line, flush=True)
    if checked.columns:
        print(f"\n{checked.words()}")
    if not checked.is_alike:
        raise SystemExit("not alike: the rules written anew are not Evidently's")


def run_size(
    plan: StudyPlan, patients: int, reference: int, *, runs: int, itself: int, python: Path | None
) -> tuple[dict[str, tuple[list[Run], list[Run]]], Agreement]:
    """Return each reader's unchanged years and its runs with a shift, and how alike two are."""
    found: dict[str, tuple[list[Run], list[Run]]] = {}
    if python is not None and itself:
        found[ITSELF] = [], []
    found |= {ANEW: ([], []), BOARD: ([], [])}
    checked = Agreement()
    for number in range(runs):
        for kind, is_shifted in enumerate((False, True)):
            rng = np.random.default_rng([SEED, patients, reference, kind, number])
            shifts = [0.0] * BEFORE + [SHIFT] * AFTER if is_shifted else [0.0] * WEEKS
            rows = draw_rows(plan, shifts, patients=patients, reference=reference, rng=rng)
            found[BOARD][kind].append(board_run(plan, rows, rng=rng))
            anew = rules_verdicts(rows)
            found[ANEW][kind].append(evidently_run(anew))
            if python is not None and number < itself:
                own, alike = _compared(python, rows, anew, is_shifted=is_shifted)
                found[ITSELF][kind].append(own)
                checked = checked.with_more(alike)
        print(f"{patients}, {reference}: run {number + 1} of {runs}", file=sys.stderr)
    return found, checked


def _compared(
    python: Path, rows: Rows, anew: list[Verdicts], *, is_shifted: bool
) -> tuple[Run, Agreement]:
    """Return Evidently's own run; of a run with a shift, the weeks after it began alone."""
    begin = BEFORE if is_shifted else 0
    own = evidently_verdicts(python, rows.from_week(begin))
    # It keeps nothing from week to week, so that the weeks before a shift change nothing after it.
    return evidently_run([*anew[:begin], *own]), agreement(own, anew[begin:])


def _line(size: str, reader: str, unchanged: list[Run], shifted: list[Run]) -> str:
    flagged = np.array([run.flagged for run in unchanged])
    firsts = [run.first_alarm(BEFORE) for run in shifted]
    shares = [np.mean([item is not None and item <= most for item in firsts]) for most in WITHIN]
    cells = [
        size,
        reader,
        str(len(unchanged)),
        f"{100 * flagged.mean():.2f} %",
        f"{100 * flagged.any(axis=2).mean():.0f} %",
        f"{100 * flagged.any(axis=(1, 2)).mean():.0f} %",
        f"{100 * np.mean([run.is_alarmed for run in unchanged]):.0f} %",
        ", ".join(f"{100 * share:.0f} %" for share in shares),
    ]
    if any(run.is_insufficient for run in unchanged):
        cells[-1] += " (insufficient data)"
    return "| " + " | ".join(cells) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.monitoring_evidently",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Evidently's environment lies in {environments_folder()} ({FOLDER_VARIABLE}).",
    )
    parser.add_argument("--years", type=int, default=20, help="runs of each size")
    parser.add_argument("--itself", type=int, default=2, help="runs of each size by Evidently")
    parser.add_argument("--size", type=_size, action="append", help="patients a week,reference")
    parser.add_argument("--no-install", action="store_true", help="use it only where it is there")
    return parser.parse_args()


def _size(words: str) -> tuple[int, int]:
    patients, reference = words.split(",")
    return int(patients), int(reference)


if __name__ == "__main__":
    main()
