"""Watching one quantity at many sites, report after report, with few false alarms in a year.

An e-value is at least 0 and has a mean of at most 1 if nothing changed; 0.5 p^-0.5 turns a p-value
into one (Vovk and Wang 2021, section 2). The level of a test is log max(previous, 1) + log e (an
e-detector of Shin, Ramdas and Rinaldo 2023), which stays below the sum R of products of e-values.
R less its number of terms is a supermartingale if nothing changed, so by Doob's inequality
P(level passes log c within T reports) <= T / c.

For that, each p-value must hold given the past. Against one fixed noisy reference it does not: the
reference's error is in every comparison, and among 200 features 43 to 100 % of runs had a false
alarm in a year. So each report is compared with the pool of the reference and all earlier reports,
which makes the comparisons uncorrelated. After an alarm the pool takes in no more, or it would
learn the change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from server.monitor_board.statistics.noisy_shares import Floats, Places

Flags = npt.NDArray[np.bool_]

_ABOVE_MAX: Final = 1.0
"""How far a level rises above the alarm: a change of long ago must not be felt for a year."""


class Watched(Protocol):
    """What can be compared with its past: shares or estimates of many sites."""

    def at(self: W, places: Places) -> W:
        """Return those of some sites."""
        ...

    def updated(self: W, places: Places, other: W) -> W:
        """Return these with the `other` at some sites."""
        ...

    def pooled_with(self: W, report: W) -> W:
        """Return the best weighted mean with an independent report's."""
        ...


W = TypeVar("W", bound=Watched)
W_contra = TypeVar("W_contra", bound=Watched, contravariant=True)


@dataclass(frozen=True)
class Batch(Generic[W]):
    """One report of each site, or none.

    Args:
        items: of all sites; anything where there is no report.
        is_usable: [sites], which have a report with enough patients under its noise.
        is_pooled: [sites], which of those may enter a pool: the past, and all sites together; None:
            all. An implausible report is compared and shown, and teaches nothing.
    """

    items: W
    is_usable: Flags
    is_pooled: Flags | None = None

    @property
    def teaches(self) -> Flags:
        """[sites], which have a usable report that enters pools."""
        return self.is_usable if self.is_pooled is None else self.is_usable & self.is_pooled


@dataclass(frozen=True)
class Comparison:
    """What one batch differs by from the past; each [sites], NaN where nothing was compared.

    Args:
        estimate: the quantity in the report; NaN for a distance, which is a change itself.
        change: in the quantity's unit, for a distance less what noise adds.
        low, high: 95 % interval, of the change for a distance, else of the estimate.
        p_value: that nothing changed.
        is_beyond: whether the change passes what the plan tolerates.
    """

    estimate: Floats
    change: Floats
    low: Floats
    high: Floats
    p_value: Floats
    is_beyond: Flags


class Compare(Protocol[W_contra]):
    """Compares the reports of some sites with their past.

    With `is_pooled` the result is of [1]: all these sites together.
    """

    def __call__(self, report: W_contra, past: W_contra, *, is_pooled: bool) -> Comparison:
        """Return what the reports differ by."""
        ...


@dataclass(frozen=True)
class Track:
    """A quantity's course; the last column, after the sites', is all sites together.

    Args:
        comparisons: with the pooled past, one of [sites + 1] for each report.
        levels: [reports, sites + 1], of the test after each report, in nats.
    """

    comparisons: tuple[Comparison, ...]
    levels: Floats


def alarm_level(*, tests: int, reports_per_year: int, alpha: float) -> float:
    """Return the level that all `tests` of a site pass falsely in at most `alpha` of years."""
    return math.log(tests * reports_per_year / alpha)


def log_e_value(p_value: Floats) -> Floats:
    """Return log(0.5 p^-0.5)."""
    log_e: Floats = math.log(0.5) - 0.5 * np.log(p_value)
    return log_e


def next_level(level: Floats, p_value: Floats, *, alarm: float) -> Floats:
    """Return the levels after one more report; where nothing was compared, they stay."""
    risen = np.minimum(np.maximum(level, 0.0) + log_e_value(p_value), alarm + _ABOVE_MAX)
    return np.where(np.isnan(p_value), level, risen)


def follow(
    reports: Sequence[Batch[W]], reference: Batch[W], *, compare: Compare[W], alarm: float
) -> Track:
    """Compare each report with the pooled past of its site, and raise or lower its level.

    A site without a usable reference begins with its first usable report.
    """
    past, has_past = reference.items, reference.teaches.copy()
    level = np.zeros(len(has_past) + 1)
    comparisons, levels = [], []
    for batch in reports:
        found = compare_all(
            batch.items, past, batch.is_usable & has_past, batch.is_pooled, compare=compare
        )
        level = next_level(level, found.p_value, alarm=alarm)
        is_quiet = (level[:-1] < alarm) & (level[-1] < alarm)
        learns = np.flatnonzero(batch.teaches & has_past & is_quiet)
        past = past.updated(learns, past.at(learns).pooled_with(batch.items.at(learns)))
        begins = np.flatnonzero(batch.teaches & ~has_past)
        past = past.updated(begins, batch.items.at(begins))
        has_past = has_past | batch.teaches
        comparisons.append(found)
        levels.append(level)
    return Track(tuple(comparisons), np.array(levels).reshape(len(levels), len(level)))


def follow_alone(comparisons: Sequence[Comparison], *, alarm: float) -> Track:
    """Return the course of a quantity that is judged by itself and not by its past."""
    columns = len(comparisons[0].p_value) if comparisons else 0
    level, levels = np.zeros(columns), []
    for found in comparisons:
        level = next_level(level, found.p_value, alarm=alarm)
        levels.append(level)
    return Track(tuple(comparisons), np.array(levels).reshape(len(levels), columns))


def look_back(
    reports: Sequence[Batch[W]], reference: Batch[W], *, compare: Compare[W]
) -> Comparison:
    """Compare the pool of some reports with the reference alone.

    A drift that is slow enough enters the pooled past before it alarms; this sees it. One error
    rate is spent on each look, since looks share the reference.
    """
    pool, has_pool = reports[0].items, reports[0].teaches.copy()
    for batch in reports[1:]:
        both = np.flatnonzero(batch.teaches & has_pool)
        pool = pool.updated(both, pool.at(both).pooled_with(batch.items.at(both)))
        begins = np.flatnonzero(batch.teaches & ~has_pool)
        pool = pool.updated(begins, batch.items.at(begins))
        has_pool = has_pool | batch.teaches
    return compare_all(pool, reference.items, has_pool & reference.teaches, compare=compare)


def compare_all(
    report: W, past: W, is_usable: Flags, is_pooled: Flags | None = None, *, compare: Compare[W]
) -> Comparison:
    """Return the comparisons of the usable sites, in their places, and of all of them together.

    Args:
        is_pooled: [sites], which of the usable ones are counted in the last; None: all.
    """
    places = np.flatnonzero(is_usable)
    columns = len(is_usable) + 1
    nothing = np.full(columns, np.nan)
    if len(places) == 0:
        return Comparison(nothing, nothing, nothing, nothing, nothing, np.zeros(columns, np.bool_))
    now, then = report.at(places), past.at(places)
    each = compare(now, then, is_pooled=False)
    joined = np.arange(len(places)) if is_pooled is None else np.flatnonzero(is_pooled[places])
    if len(joined) == 0:
        return _placed(each, None, places, columns)
    together = compare(now.at(joined), then.at(joined), is_pooled=True)
    return _placed(each, together, places, columns)


def _placed(
    each: Comparison, together: Comparison | None, places: npt.NDArray[np.intp], columns: int
) -> Comparison:
    """Return comparisons of some sites and of all together in their places of [columns]."""
    where = np.append(places, columns - 1) if together is not None else places

    def placed(name: str) -> Floats:
        values = np.full(columns, np.nan)
        values[where] = _joined(each, together, name)
        return values

    is_beyond = np.zeros(columns, np.bool_)
    is_beyond[where] = _joined(each, together, "is_beyond")
    return Comparison(
        placed("estimate"),
        placed("change"),
        placed("low"),
        placed("high"),
        placed("p_value"),
        is_beyond,
    )


def _joined(each: Comparison, together: Comparison | None, name: str) -> npt.NDArray[Any]:
    one: npt.NDArray[Any] = getattr(each, name)
    return one if together is None else np.append(one, getattr(together, name))
