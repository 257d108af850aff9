"""Random streams of a generated hospital: one for each purpose, so that a dial moves only its own.

Two hospitals that differ in one dial have the same patients but for that dial's effect.
"""

from __future__ import annotations

import numpy as np


def stream(seed: int, site_id: str, block: int, purpose: str) -> np.random.Generator:
    """Return the random numbers of one purpose in one block of a hospital's patients.

    Args:
        seed: of the population, 0 or more.
        site_id: of the hospital.
        block: number of the block.
        purpose: a word of ours.
    """
    return np.random.default_rng([seed, block, *f"{site_id}/{purpose}".encode()])
