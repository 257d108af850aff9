"""Noisy counts as shares of their total, and what two such sets of shares differ by.

Written for many sites at once: arrays are [..., cells], or [...] with one number for each set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_SHARE_MIN: Final = 1e-4
"""No cell is taken for impossible: its variance would be 0, and one patient in it a miracle."""


@dataclass(frozen=True)
class NoisyShares:
    """Shares of patients by cell, after noise; they sum to 1 and may be negative.

    A share whose expectation is q has the variance q * `sampling` + `noise`, up to what the common
    total takes away.

    Args:
        shares: [..., cells].
        sampling: [...], 1 / patients; of a pool, of the patients it is worth.
        noise: [...], variance of the DP noise of one share.
    """

    shares: Floats
    sampling: Floats
    noise: Floats

    def at(self, places: Places) -> NoisyShares:
        """Return those of some sites."""
        return NoisyShares(self.shares[places], self.sampling[places], self.noise[places])

    def updated(self, places: Places, other: NoisyShares) -> NoisyShares:
        """Return these with the `other` at some sites."""
        shares, sampling, noise = self.shares.copy(), self.sampling.copy(), self.noise.copy()
        shares[places], sampling[places], noise[places] = other.shares, other.sampling, other.noise
        return NoisyShares(shares, sampling, noise)

    def pooled_with(self, report: NoisyShares) -> NoisyShares:
        """Return the best weighted mean of these and of an independent report's.

        The weights are inverse variances. That makes the next difference from the pool uncorrelated
        with the earlier ones (the Helmert contrasts, for sets of unlike precision): the residual of
        a best linear estimate is uncorrelated with the estimate.
        """
        of_past, of_report = 1.0 / _mean_variance(self), 1.0 / _mean_variance(report)
        weight = of_past / (of_past + of_report)
        rest = 1.0 - weight
        return NoisyShares(
            weight[..., None] * self.shares + rest[..., None] * report.shares,
            weight**2 * self.sampling + rest**2 * report.sampling,
            weight**2 * self.noise + rest**2 * report.noise,
        )


@dataclass(frozen=True)
class Contrast:
    """Two sets of shares that would be equal in expectation if nothing had changed.

    The errors of the cells are those of independent cells with `variance`, less their common total:
    e - expected * sum(e). Both the multinomial and the noise after division by a noisy total have
    this form.

    Args:
        difference: [..., cells], current less past; sums to 0.
        expected: [..., cells], the common shares if nothing changed; positive, sums to 1.
        variance: [..., cells].
        patients: [...], of the smaller set: how coarse one patient is.
    """

    difference: Floats
    expected: Floats
    variance: Floats
    patients: Floats


def shares_of(counts: Floats, sd: Floats | float) -> NoisyShares:
    """Return the shares of counts [..., cells] with noise `sd` in every cell, [...] or one."""
    total = np.maximum(counts.sum(axis=-1), 1.0)
    noise = np.broadcast_to(np.square(np.asarray(sd, dtype=np.float64)), total.shape)
    return NoisyShares(counts / total[..., None], 1.0 / total, noise / total**2)


def contrast_of(report: NoisyShares, past: NoisyShares) -> Contrast:
    """Return what a report differs by from the past, with the variance of that."""
    expected = np.maximum(past.pooled_with(report).shares, _SHARE_MIN)
    expected = expected / expected.sum(axis=-1, keepdims=True)
    sampling, noise = report.sampling + past.sampling, report.noise + past.noise
    return Contrast(
        report.shares - past.shares,
        expected,
        expected * sampling[..., None] + noise[..., None],
        1.0 / np.maximum(report.sampling, past.sampling),
    )


def stratified(contrast: Contrast) -> Contrast:
    """Return the mean difference of [sites, cells] as one contrast of [1, cells].

    Sites weigh by patients. Counts are not added up over sites: a site that is silent for a period
    would change the mixture, and look like drift everywhere.
    """
    weight = contrast.patients / contrast.patients.sum()
    return Contrast(
        (weight @ contrast.difference)[None],
        (weight @ contrast.expected)[None],
        (weight**2 @ contrast.variance)[None],
        np.array([contrast.patients.sum()]),
    )


def _mean_variance(shares: NoisyShares) -> Floats:
    cells = shares.shares.shape[-1]
    mean: Floats = shares.sampling / cells + shares.noise
    return mean
