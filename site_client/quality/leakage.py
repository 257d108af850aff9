"""Likely leakage: how well one feature alone, missing values included, tells the outcome.

The area under the ROC curve is the Mann-Whitney U over the pairs of a patient with and one without
the outcome, a tie counting half (Hanley and McNeil 1982); either direction counts, so it is never
below 0.5. A feature that is nearly enough alone is more often the outcome in disguise (a discharge
code, a treatment for it) than a discovery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

AUROC_SUSPICIOUS: Final = 0.95
OUTCOMES_MIN: Final = 10
"""Of either outcome; with fewer, chance alone reaches 0.95 among some dozens of features."""
LEVEL_ROWS_MIN: Final = 10
"""Smaller levels count as one: a level of one patient tells that patient's outcome by itself."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SoleAuroc:
    """Areas under the ROC curve of one feature alone, 0.5 to 1; None where not assessed.

    Args:
        rows: with and without a value.
        recorded: rows with a value.
        value: among rows with a value.
        missing: of the missing indicator alone.
        both: over all rows, a missing value being one of its own, below or above all others.
    """

    rows: int
    recorded: int
    value: float | None
    missing: float | None
    both: float | None

    @property
    def largest(self) -> float | None:
        """The largest of the three, or None."""
        return max(
            (item for item in (self.value, self.missing, self.both) if item is not None),
            default=None,
        )

    @property
    def is_suspicious(self) -> bool:
        """Whether the feature alone predicts the outcome too well."""
        return self.largest is not None and self.largest > AUROC_SUSPICIOUS


def numeric_auroc(with_outcome: Floats, without: Floats) -> SoleAuroc:
    """Return the areas of a numeric feature.

    Args:
        with_outcome: values of rows with the outcome, sorted, NaN (missing) last.
        without: likewise of the others.
    """
    recorded_1, recorded_0 = _recorded(with_outcome), _recorded(without)
    missing_1, missing_0 = len(with_outcome) - recorded_1, len(without) - recorded_0
    wins = _wins(with_outcome[:recorded_1], without[:recorded_0])
    pairs, recorded_pairs = len(with_outcome) * len(without), recorded_1 * recorded_0
    # Pairs of a missing and a recorded value go to one side or the other, missing pairs are ties.
    ties = missing_1 * missing_0 / 2
    lowest, highest = recorded_1 * missing_0, missing_1 * recorded_0
    both = [(wins + ties + side) / max(pairs, 1) for side in (lowest, highest)]
    return _assessed(
        (recorded_1, missing_1),
        (recorded_0, missing_0),
        value=_either_way(wins / max(recorded_pairs, 1)),
        both=max(_either_way(item) for item in both),
    )


def categorical_auroc(
    with_outcome: npt.NDArray[np.int64], without: npt.NDArray[np.int64]
) -> SoleAuroc:
    """Return the areas of a categorical feature, its levels in the order of their prevalence.

    Args:
        with_outcome: rows with the outcome, per level, the last entry for missing.
        without: likewise of the others.
    """
    ones, zeros = with_outcome.astype(np.float64), without.astype(np.float64)
    return _assessed(
        (int(ones[:-1].sum()), int(ones[-1])),
        (int(zeros[:-1].sum()), int(zeros[-1])),
        value=_by_prevalence(ones[:-1], zeros[:-1]),
        both=_by_prevalence(ones, zeros),
    )


def _assessed(
    ones: tuple[int, int], zeros: tuple[int, int], *, value: float, both: float
) -> SoleAuroc:
    """Keep what enough patients stand behind; `ones` and `zeros` are (recorded, missing)."""
    (recorded_1, missing_1), (recorded_0, missing_0) = ones, zeros
    all_1, all_0 = recorded_1 + missing_1, recorded_0 + missing_0
    is_known = min(all_1, all_0) >= OUTCOMES_MIN
    missing = _either_way(0.5 + (missing_1 / max(all_1, 1) - missing_0 / max(all_0, 1)) / 2)
    return SoleAuroc(
        rows=all_1 + all_0,
        recorded=recorded_1 + recorded_0,
        value=value if min(recorded_1, recorded_0) >= OUTCOMES_MIN else None,
        missing=missing if is_known else None,
        both=both if is_known else None,
    )


def _recorded(sorted_values: Floats) -> int:
    return int(np.searchsorted(sorted_values, np.nan, side="left"))


def _wins(ones: Floats, zeros: Floats) -> float:
    """Return over how many pairs the first is the larger, a tie counting half; both sorted."""
    below = np.searchsorted(zeros, ones, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(zeros, ones, side="right").sum(dtype=np.int64)
    return float(below + not_above) / 2


def _by_prevalence(ones: Floats, zeros: Floats) -> float:
    rows = ones + zeros
    small = rows < LEVEL_ROWS_MIN
    ones = np.append(ones[~small], ones[small].sum())
    zeros = np.append(zeros[~small], zeros[small].sum())
    order = np.argsort(ones / np.maximum(ones + zeros, 1), kind="stable")
    ones, zeros = ones[order], zeros[order]
    wins = float((ones * (np.cumsum(zeros) - zeros / 2)).sum())
    return _either_way(wins / max(float(ones.sum() * zeros.sum()), 1.0))


def _either_way(area: float) -> float:
    return max(area, 1 - area)
