"""Where patients stand in memory, so that one patient more or less moves nobody else.

The last bits of a floating-point sum depend on its order, and those of a matrix product on where a
row stands in it and on how many rows there are. A model that is chosen for it turns last bits into
whole gradients of *other* patients, and then one patient is worth several. So the patients are put
at random into slots, at least as many as patients, whose number is public. Sampling draws slots; an
empty slot is a row of zeros with weight zero. Take one patient away, leave all coins as they are,
and the same rows stand in the same places: only that patient's row is empty. (The random places
make the two data sets' releases comparable coin by coin; rows have no other order.)
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from site_client.training.block_sums import EVEN
from site_client.training.clipped_sum import Batch

_GROWTH: Final = 1.1


def slot_count(patients: int, expected: float) -> int:
    """Return the number of slots: the public number of patients, a tenth more until all fit.

    It is a function of the public number alone while no more patients are there than declared.

    Args:
        patients: who need a slot.
        expected: the public number of patients who train or are held out.
    """
    slots = max(1, math.ceil(expected))
    while slots < patients:
        slots = math.ceil(slots * _GROWTH) + 1
    return slots


def seat(patients: int, slots: int, stream: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return who stands in each slot [slots], drawn anew; `patients` stands for nobody.

    Args:
        patients: number of patients, at most `slots`.
        slots: number of slots.
        stream: secret coins.
    """
    seats = np.full(slots, patients, dtype=np.int64)
    seats[stream.permutation(slots)[:patients]] = np.arange(patients)
    return seats


def draw(slots: int, probability: float, stream: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return a Poisson sample of slots: the same law as one coin a slot, in one draw.

    A binomial count and that many slots without replacement; 100 times faster than coins at
    500,000 slots.
    """
    if probability >= 1:
        return np.arange(slots)
    count = int(stream.binomial(slots, probability))
    return stream.choice(slots, size=count, replace=False, shuffle=False)


def fill_up(rows: npt.NDArray[np.int64], nobody: int) -> npt.NDArray[np.int64]:
    """Return a step's rows, with nobody added until blocks of one size can hold them all.

    How many are added depends on how many slots were drawn, never on who stands in them.

    Args:
        rows: of the slots drawn.
        nobody: the row that `with_nobody` adds.
    """
    filled = np.full(len(rows) + -len(rows) % EVEN, nobody, dtype=np.int64)
    filled[: len(rows)] = rows
    return filled


def with_nobody(batch: Batch) -> Batch:
    """Return the batch with one more row, of zeros and weight zero, that stands in empty slots."""

    def longer(values: torch.Tensor) -> torch.Tensor:
        return torch.cat([values, values.new_zeros(1, *values.shape[1:])])

    return Batch(longer(batch.x), longer(batch.y), longer(batch.weight), batch.workspace)
