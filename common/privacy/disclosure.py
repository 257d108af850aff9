"""Suppression and rounding of every count that a person outside the site may read.

This is disclosure control for people, not differential privacy: noisy counts released by the gate
need neither, and an exact count may leave a site in no other form than these.
"""

from __future__ import annotations

import itertools
from typing import Final

from common.errors import ReleaseRefused

SUPPRESSION_THRESHOLD: Final = 7
"""Counts up to this are not shown: the rule of the UK's OpenSAFELY and of NHS England."""
ROUNDING_MULTIPLE: Final = 5
"""Other counts are rounded to this multiple, so that two tables cannot be subtracted."""
_BAND_STARTS: Final = (20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000)


def round_count(count: int) -> int | None:
    """Return a count rounded for a reader outside the site, or None when it is suppressed.

    Args:
        count: at least 0. Zero is suppressed as well: that nobody has a thing can tell of everyone.

    Raises:
        ReleaseRefused: for a negative count.
    """
    _check_count(count)
    if count <= SUPPRESSION_THRESHOLD:
        return None
    # Half goes up, by integers only: Python's round() would send half to the even neighbour.
    return (count + ROUNDING_MULTIPLE // 2) // ROUNDING_MULTIPLE * ROUNDING_MULTIPLE


def count_text(count: int) -> str:
    """Return a count as text for a reader outside the site, such as "under 8" or "120"."""
    rounded = round_count(count)
    return f"under {SUPPRESSION_THRESHOLD + 1}" if rounded is None else f"{rounded:,}"


def size_band(count: int) -> str:
    """Return the band of a number of patients, such as "under 20", "100 to 199", "100,000 or more".

    Args:
        count: at least 0.

    Raises:
        ReleaseRefused: for a negative count.
    """
    _check_count(count)
    if count < _BAND_STARTS[0]:
        return f"under {_BAND_STARTS[0]}"
    for start, next_start in itertools.pairwise(_BAND_STARTS):
        if count < next_start:
            return f"{start:,} to {next_start - 1:,}"
    return f"{_BAND_STARTS[-1]:,} or more"


def _check_count(count: int) -> None:
    if count < 0:
        raise ReleaseRefused(
            "a count cannot be shown",
            expected="a number of patients, 0 or more",
            arrived="a negative number",
            todo="report this as a fault",
        )
