"""Split a vector of counts into a seed and a masked vector, each uniform alone; add and join them.

Elements of a vector are its cells and, last, its check tag. With seed s the one aggregator has
G(s), the other x - G(s) modulo 2^61 - 1; each adds what it has, and the two sums add to the sum of
all x. (Additive sharing with a compressed share as in Prio3, draft-irtf-cfrg-vdaf, section 6.2.)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.errors import ProtocolError
from common.secure_sum import field
from common.secure_sum.check_tag import SumKey
from common.secure_sum.field import Elements
from common.secure_sum.stream import KEY_BYTES, elements_of

SEED_BYTES: Final = KEY_BYTES
CELL_MAX: Final = 2**31 - 1
"""Of one site in magnitude; `limits.SITES_MAX` such sites stay far below 2^60."""


@dataclass(frozen=True, repr=False)
class SplitVector:
    """What each aggregator gets of one vector.

    Args:
        seed: for aggregator A, 32 bytes.
        masked: for aggregator B, the cells and the tag less the seed's elements.
    """

    seed: bytes
    masked: Elements


def split(cells: npt.NDArray[np.int64], *, key: SumKey, context: bytes) -> SplitVector:
    """Split noised counts with a fresh seed of the operating system's randomness.

    Args:
        cells: flat, at most `CELL_MAX` in magnitude.
        key: of this sum.
        context: names study, site, period and kind.

    Raises:
        ProtocolError: for a count that no cohort and no noise can make.
    """
    if cells.ndim != 1 or bool((np.abs(cells) > CELL_MAX).any()):
        raise _refuse(f"a flat vector of counts of at most {CELL_MAX}", "another")
    seed = os.urandom(SEED_BYTES)
    elements = field.to_field(cells)
    whole = np.append(elements, np.uint64(key.tag(elements)))
    return SplitVector(seed, field.subtract(whole, expand(seed, context=context, cells=len(cells))))


def expand(seed: bytes, *, context: bytes, cells: int) -> Elements:
    """Return the elements of a seed, one for each cell and one for the tag."""
    return elements_of(seed, label="share", context=context, count=cells + 1)


def add_shares(shares: Sequence[Elements]) -> Elements:
    """Return the sum of at least one share; raises `ProtocolError` for shares of other lengths."""
    if not shares or len({share.shape for share in shares}) != 1:
        raise _refuse("at least one share, all of one length", "others")
    total = shares[0]
    for share in shares[1:]:
        total = field.add(total, share)
    return total


def join(first: Elements, second: Elements, *, key: SumKey) -> npt.NDArray[np.int64]:
    """Return the sum over sites from the two aggregators' sums, if its tag is right.

    Raises:
        ProtocolError: V22, when it is not.
    """
    whole = add_shares([first, second])
    cells, tag = whole[:-1], int(whole[-1])
    if key.tag(cells) != tag:
        raise ProtocolError(
            "a secure sum does not fit its check tag",
            expected="the sum of what the sites sent",
            arrived="other numbers: an aggregator changed or left out a share, or a site sent "
            "a false tag",
            todo="do not use this sum; ask both operators, and the sites for their versions",
            number="V22",
        )
    return field.from_field(cells)


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "shares of a secure sum are refused",
        expected=expected,
        arrived=arrived,
        todo="report this as a fault",
    )
