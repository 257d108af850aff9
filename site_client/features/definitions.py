"""What is asked of the event table: index dates, criteria, outcome, variables.

All times are relative to a row's index date. A window says how long before it it begins and ends;
what is later than the index date is out of reach of every window, by type and not by care.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal, TypeAlias

from common.errors import InternalError
from common.units.conversions import Conversion


@dataclass(frozen=True)
class Window:
    """The time from `begins` before the index date (excluded) to `ends` before it (included).

    Args:
        begins: longer than `ends`.
        ends: zero for the index date itself, never negative.
    """

    begins: timedelta
    ends: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.ends < self.begins:
            raise InternalError(
                "a window is not in the past",
                expected="0 <= ends < begins, both before the index date",
                arrived="another order",
                todo="report this as a fault; no feature was built",
            )


class Aggregate(StrEnum):
    """How the values of a window become one; simultaneous values count as their largest."""

    LAST = "last"
    FIRST = "first"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    MEDIAN = "median"
    COUNT = "count"
    ANY = "any"
    TIME_SINCE = "time_since"
    """Days from the last event to the index date."""
    SLOPE = "slope"
    """Least-squares change a day; missing with fewer than two times."""


@dataclass(frozen=True)
class NumericVariable:
    """One number a row.

    Args:
        codes: all that mean this quantity, narrower ones included.
        conversions: by unit as recorded, "" for none; an event in another unit is left out and
            counted. None: the number itself does not matter (count, any, time since).
        plausible: in the plan's unit; a value outside is left out and counted.
        aggregate: see `Aggregate`.
        window: before the index date.
    """

    codes: frozenset[str]
    conversions: Mapping[str, Conversion] | None
    plausible: tuple[float, float]
    aggregate: Aggregate
    window: Window


@dataclass(frozen=True)
class CategoricalVariable:
    """One level a row: of the last event whose text is a level's; events without time come first.

    Args:
        codes: all that mean this quantity.
        levels: text as recorded, to the level's index.
        window: before the index date; an event without time is in every window.
    """

    codes: frozenset[str]
    levels: Mapping[str, int]
    window: Window


Variable: TypeAlias = NumericVariable | CategoricalVariable


@dataclass(frozen=True)
class IndexEvent:
    """From which events rows are made.

    Args:
        codes: of the entry event.
        occurrence: which of a patient's entry events count, after the criteria.
        delay: from the event to the index date.
        observed: how long before the index date the patient's first event must lie.
        rows_max: of a patient; the earliest are kept.
        ages: least and most completed years at the index date; who has no birth is left out. None:
            any, known or not.
    """

    codes: frozenset[str]
    occurrence: Literal["first", "last", "every"] = "first"
    delay: timedelta = timedelta(0)
    observed: timedelta = timedelta(0)
    rows_max: int = 1
    ages: tuple[int, int] | None = None


@dataclass(frozen=True)
class Criterion:
    """A condition on a row: at least `count_min` events of these codes in the window.

    Args:
        codes: counted.
        window: before the index date.
        count_min: at least 1.
        excludes: the row is left out when the condition is met (an exclusion, a wash-out).
    """

    codes: frozenset[str]
    window: Window
    count_min: int = 1
    excludes: bool = False


@dataclass(frozen=True)
class Outcome:
    """The label: whether one of the codes is met after the index date.

    The outcome window is from `gap` after the index date (excluded) to `horizon` (included).

    Args:
        codes: of the event, or of death.
        gap: events this soon after the index date are not counted.
        horizon: end of the outcome window.
        conversions, above, below: with either bound, only an event whose converted value passes it.
        followed: a negative row is kept only if the patient has an event at or after the window's
            end, or has died; without it, a patient who left is a patient who was well.
    """

    codes: frozenset[str]
    horizon: timedelta
    gap: timedelta = timedelta(0)
    conversions: Mapping[str, Conversion] | None = None
    above: float | None = None
    below: float | None = None
    followed: bool = False
