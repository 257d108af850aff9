"""What Evidently, its rules written anew, and the board say of the same patients."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.evidently_rules import COLUMN_SHARE_MIN, ColumnDrift, column_drift
from benchmarks.monitoring_alarms import ever_alerted
from benchmarks.monitoring_rows import Rows, board_reports
from benchmarks.peers.environments import EVIDENTLY
from common.false_discovery import benjamini_hochberg
from common.study.plan import StudyPlan
from common.study.report_tensors import ReportKind
from server.monitor_board.signal_types import State
from server.monitor_board.signals import FALSE_SHARE_MAX, BoardSignals, assess

Flags = npt.NDArray[np.bool_]
SCRIPT: Final = Path(__file__).parent / "peers" / "rivals" / EVIDENTLY.script
QUIET: Final = {"DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
SCORES_APART_MAX: Final = 1e-9


@dataclass(frozen=True)
class Verdicts:
    """Of one week: each column's, and of the data set."""

    columns: tuple[ColumnDrift, ...]
    is_drifted: bool


@dataclass(frozen=True)
class Run:
    """One reader on one site.

    Args:
        flagged: [weeks, tests]: what a reader would look at (a drifted column; WATCH or more).
        alarmed: [weeks]: of the whole (the data set drifted; ALERT by a sequential level).
        is_alarmed: in any week; of the board, in any quarterly look as well.
        is_insufficient: the board says that the site's data do not suffice.
    """

    flagged: Flags
    alarmed: Flags
    is_alarmed: bool
    is_insufficient: bool = False

    def first_alarm(self, begin: int) -> int | None:
        """Return after how many weeks from `begin` on the first alarm comes."""
        found = np.flatnonzero(self.alarmed[begin:])
        return int(found[0]) + 1 if len(found) else None


@dataclass(frozen=True)
class Agreement:
    """How alike two readers' verdicts are.

    Args:
        apart: columns or weeks with another verdict or method.
        score_apart: the largest difference of two scores.
    """

    columns: int = 0
    weeks: int = 0
    apart: int = 0
    score_apart: float = 0.0

    @property
    def is_alike(self) -> bool:
        """Whether all verdicts and methods are the same, and the scores to rounding."""
        return self.apart == 0 and self.score_apart <= SCORES_APART_MAX

    def with_more(self, other: Agreement) -> Agreement:
        """Return both together."""
        return Agreement(
            self.columns + other.columns,
            self.weeks + other.weeks,
            self.apart + other.apart,
            max(self.score_apart, other.score_apart),
        )

    def words(self) -> str:
        """Return one sentence."""
        return (
            f"{EVIDENTLY.title} itself and its rules written anew, on {self.columns:,} columns in "
            f"{self.weeks:,} weeks: {self.apart} verdicts or methods differ; largest difference "
            f"of a score {self.score_apart:.1e}."
        )


def evidently_verdicts(python: Path, rows: Rows) -> list[Verdicts]:
    """Return what Evidently itself says of each week, run by its own interpreter.

    Raises:
        RuntimeError: when it fails; the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="evidently-") as folder:
        given, found = Path(folder) / "rows.npz", Path(folder) / "found.json"
        weeks: dict[str, Any] = {f"week_{place:03d}": week for place, week in enumerate(rows.weeks)}
        np.savez(
            given,
            names=np.array(rows.names),
            categories=np.array(rows.categories),
            reference=rows.reference,
            **weeks,
        )
        done = subprocess.run(
            [str(python), str(SCRIPT), str(given), str(found)],
            env={**os.environ, **QUIET, "PYTHONPATH": ""},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{EVIDENTLY.title} failed: {done.stderr[-2000:]}")
        answers = json.loads(found.read_text())
    return [
        Verdicts(
            tuple(ColumnDrift(*column) for column in answer["columns"]),
            bool(answer["is_data_set_drifted"]),
        )
        for answer in answers
    ]


def rules_verdicts(rows: Rows) -> list[Verdicts]:
    """Return what Evidently's rules, written anew, say of each week."""
    found = []
    for week in rows.weeks:
        columns = tuple(
            column_drift(rows.reference[:, place], week[:, place], categories=categories)
            for place, categories in enumerate(rows.categories)
        )
        share = np.mean([column.is_drifted for column in columns])
        found.append(Verdicts(columns, bool(share >= COLUMN_SHARE_MIN)))
    return found


def agreement(own: Sequence[Verdicts], anew: Sequence[Verdicts]) -> Agreement:
    """Compare two readers week by week and column by column."""
    pairs = [
        pair
        for one, other in zip(own, anew, strict=True)
        for pair in zip(one.columns, other.columns, strict=True)
    ]
    apart = sum((a.method, a.is_drifted) != (b.method, b.is_drifted) for a, b in pairs)
    apart += sum(one.is_drifted != other.is_drifted for one, other in zip(own, anew, strict=True))
    score_apart = max(abs(a.score - b.score) for a, b in pairs)
    return Agreement(len(pairs), len(own), apart, score_apart)


def evidently_run(verdicts: Sequence[Verdicts]) -> Run:
    """Return verdicts as a run."""
    flagged = np.array([[column.is_drifted for column in week.columns] for week in verdicts])
    alarmed = np.array([week.is_drifted for week in verdicts])
    return Run(flagged, alarmed, bool(alarmed.any()))


def board_run(plan: StudyPlan, rows: Rows, *, rng: np.random.Generator) -> Run:
    """Return what the board says of noised counts of these patients."""
    reports = board_reports(plan, rows, rng=rng)
    board = assess(plan, reports, now_s=0, expected={})
    is_alarmed = bool(ever_alerted(plan, reports, board)[0])
    flagged, alarmed = _in_weeks(board)
    return Run(flagged, alarmed, is_alarmed, board.sites[0].state is State.INSUFFICIENT)


def _in_weeks(board: BoardSignals) -> tuple[Flags, Flags]:
    """Return which tests [weeks, tests] were in WATCH or ALERT, and which weeks in ALERT."""
    flagged, alarmed = [], []
    for kind in ReportKind:
        courses = [item for item in board.courses if item.watch.kind is kind and item.periods]
        if not courses:
            continue
        found = [course.track.comparisons for course in courses]
        p_values = np.array([[item.p_value[0] for item in items] for items in found]).T
        beyond = np.array([[item.is_beyond[0] for item in items] for items in found]).T
        levels = np.array([[level[0] for level in course.track.levels] for course in courses]).T
        is_at = levels >= board.levels.sequential
        stands = [benjamini_hochberg(week, false_share_max=FALSE_SHARE_MAX) for week in p_values]
        flagged.append(np.array(stands) | is_at)
        alarmed.append((is_at & beyond).any(axis=1))
    return np.concatenate(flagged, axis=1), np.asarray(np.any(alarmed, axis=0))
