"""Randomness of simulated sites: repeatable, or without noise for epsilon = infinity.

Every stream made here says that it is reproducible, so a gate over a real ledger refuses it (G1).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from common.ids import SiteId
from site_client.training.randomness import Randomness

SiteRandomness: TypeAlias = Callable[[SiteId], Callable[[], Randomness]]
"""For each site, the function that makes fresh streams for each of its releases."""


def reproducible(seed: int) -> SiteRandomness:
    """Return streams that are a function of the seed, the site and the number of its release."""

    def of_site(site_id: SiteId) -> Callable[[], Randomness]:
        releases = itertools.count()

        def fresh() -> Randomness:
            name = f"{seed}/{site_id}/{next(releases)}".encode()
            return Randomness.reproducible(int.from_bytes(hashlib.sha256(name).digest(), "big"))

        return fresh

    return of_site


def noiseless(seed: int) -> SiteRandomness:
    """Return streams whose noise is zero and whose sampling is `reproducible(seed)`'s.

    What is trained with them has no privacy: they are for comparison in simulations only.
    """

    def of_site(site_id: SiteId) -> Callable[[], Randomness]:
        fresh = reproducible(seed)(site_id)
        return lambda: replace(fresh(), noise=_Silence(np.random.PCG64(0)))

    return of_site


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
