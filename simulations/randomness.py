"""Randomness of simulated sites: repeatable, or without noise for epsilon = infinity.

Streams are a function of the seed, the site and the round, and of nothing that was counted on the
way: a resumed run, another engine or another order of sites draws the same. A round of a study has
one kind of task, so a round's number names it. Every stream made here says that it is
reproducible, so a gate over a real ledger refuses it (G1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np

from common.ids import SiteId
from site_client.training.randomness import Randomness

RandomnessKind: TypeAlias = Literal["reproducible", "noiseless"]


@dataclass(frozen=True)
class SiteRandomness:
    """For each site, the function that makes the streams of a round's release; picklable.

    Args:
        seed: of all sites.
        kind: "noiseless" draws no noise and samples as "reproducible" does.
    """

    seed: int
    kind: RandomnessKind = "reproducible"

    def __call__(self, site_id: SiteId) -> Callable[[int], Randomness]:
        """Return the function from a round's number to fresh streams of one site."""
        return partial(self._of_round, site_id)

    def _of_round(self, site_id: SiteId, round_number: int) -> Randomness:
        name = f"{self.seed}/{site_id}/{round_number}".encode()
        fresh = Randomness.reproducible(int.from_bytes(hashlib.sha256(name).digest(), "big"))
        if self.kind == "noiseless":
            return replace(fresh, noise=_Silence(np.random.PCG64(0)))
        return fresh


def reproducible(seed: int) -> SiteRandomness:
    """Return streams that are a function of the seed, the site and the round."""
    return SiteRandomness(seed)


def noiseless(seed: int) -> SiteRandomness:
    """Return streams whose noise is zero and whose sampling is `reproducible(seed)`'s.

    What is trained with them has no privacy: they are for comparison in simulations only.
    """
    return SiteRandomness(seed, "noiseless")


class _Silence(np.random.Generator):
    """A generator whose normal draws are all zero."""

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """Return `loc` in the asked shape."""
        return loc + np.zeros(size if size is not None else ())

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """Return zeros, in `out` where it is given."""
        if out is None:
            return np.zeros(size if size is not None else (), dtype=dtype)
        out[...] = 0
        return out
