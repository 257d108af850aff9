"""Counts that together make up a known total, shown so that no small one can be worked out.

Primary suppression hides counts below ten and rounds the others to five: the 10-5 rule of the UK's
Office for National Statistics (Comparison of post-tabular statistical disclosure control methods).
Secondary suppression holds back further counts, the smallest first, until for each hidden count
every number from 0 to 9 is possible to a reader who knows the total exactly and all that is shown.
Who also replays this rule may exclude some of the ten, never all but one. This is disclosure
control and not differential privacy: it holds for one report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from common.privacy.disclosure import ROUNDING_MULTIPLE

SHOWN_MIN: Final = 10
"""More than `common.privacy.disclosure` hides in one number: here many stand side by side."""
_HALF: Final = ROUNDING_MULTIPLE // 2


class Hidden(Enum):
    """Why a count is not shown."""

    SMALL = f"<{SHOWN_MIN}"
    HELD_BACK = "held back"
    """At least ten, but a small one could be worked out from it."""
    NOT_SHOWN = "not shown"
    """Small or not: nothing of this total's parts is shown."""


Shown = int | Hidden


@dataclass(frozen=True)
class Shared:
    """One part of a total, as it may leave."""

    label: str
    count: Shown

    @property
    def text(self) -> str:
        """The count in words."""
        return count_text(self.count)


def count_text(count: Shown) -> str:
    """Return a count as a reader outside sees it."""
    return count.value if isinstance(count, Hidden) else f"{count:,}"


def shown_alone(count: int) -> Shown:
    """Return a count that is part of no total."""
    if count < SHOWN_MIN:
        return Hidden.SMALL
    return (count + _HALF) // ROUNDING_MULTIPLE * ROUNDING_MULTIPLE


def shown_parts(counts: Sequence[int]) -> tuple[Shown, ...]:
    """Return the parts of a total that a reader may know, in their order.

    Args:
        counts: of patients, disjoint, each at least 0.
    """
    shown = [shown_alone(count) for count in counts]
    total = sum(counts)
    while not _is_protected(shown, total):
        candidates = [place for place, item in enumerate(shown) if isinstance(item, int)]
        if not candidates:
            return (Hidden.NOT_SHOWN,) * len(counts)
        shown[min(candidates, key=lambda place: counts[place])] = Hidden.HELD_BACK
    return tuple(shown)


def _is_protected(shown: Sequence[Shown], total: int) -> bool:
    """Return whether every small count may still be anything from 0 to 9."""
    small = sum(item is Hidden.SMALL for item in shown)
    held = sum(item is Hidden.HELD_BACK for item in shown)
    visible = [item for item in shown if isinstance(item, int)]
    if small == 0:
        return True
    rest_least = total - sum(item + _HALF for item in visible)
    rest_most = total - sum(max(item - _HALF, SHOWN_MIN) for item in visible)
    # The smallest are held back first, so none of them is larger than what is still visible.
    held_most = (min(visible) + _HALF if visible else total) * held
    others = SHOWN_MIN - 1
    may_be_none = rest_least - others * (small - 1) - held_most <= 0
    may_be_most = rest_most - SHOWN_MIN * held >= others
    return may_be_none and may_be_most
