"""Rounds of several sites, trained at once: each with its own patients, coins, noise and state.

The sites' parameters are the rows of one tensor. A step gathers the patients that each site drew,
fills the sites up to one number of rows with nobody (weight zero), and does for all sites at once
what `DpSgdEngine` does for one.

A site's result is the same to the last bit whoever is trained beside it: its rows depend on it
alone, and all calls are of whole vectors. So a resumed run, another number of processes or another
group give the same model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch

from common.study.columns import parameter_shapes
from simulations.batched.local_round import LocalResult, LocalRound, local_result
from simulations.batched.stacked_model import StackedModel
from simulations.batched.stacked_optimizer import make_stacked_optimizer
from site_client.training.clipped_sum import Batch
from site_client.training.dp_sgd_engine import expected_batch_size
from site_client.training.noise import GRID_BITS, SENSITIVITY_MARGIN

SITES_AT_ONCE: Final = 32
"""Measured: more sites gain nothing, and their tensors leave the processor's cache."""
_VECTOR: Final = 32
"""Numbers that torch takes at once; what is left over it rounds otherwise."""
_NO_ROWS: Final = np.empty(0, dtype=np.int64)


def train_rounds(ready: Sequence[LocalRound]) -> list[LocalResult]:
    """Train rounds, as many at once as are alike; return their results in the same order."""
    found: dict[int, LocalResult] = {}
    for group in _groups(ready):
        trained = _train_group([ready[place] for place in group])
        found.update(zip(group, trained, strict=True))
    return [found[place] for place in range(len(ready))]


def _groups(ready: Sequence[LocalRound]) -> Iterator[list[int]]:
    """Yield the places of rounds that are trained at once."""
    alike: dict[object, list[int]] = {}
    for place, item in enumerate(ready):
        alike.setdefault((item.kind, item.rows_at_once), []).append(place)
    for places in alike.values():
        for start in range(0, len(places), SITES_AT_ONCE):
            yield places[start : start + SITES_AT_ONCE]


@torch.inference_mode()
def _train_group(ready: Sequence[LocalRound]) -> list[LocalResult]:
    task = ready[0].task
    plan, mechanism = task.plan, task.mechanism
    nobody = -len(ready) % (_VECTOR // math.gcd(_VECTOR, ready[0].rows_at_once))
    length = len(ready[0].vector)
    rows = np.zeros((len(ready) + nobody, length + -length % _VECTOR), dtype=np.float32)
    for row, item in zip(rows, ready, strict=False):
        row[:length] = item.vector
    vectors = torch.from_numpy(rows)
    received = vectors.clone()
    model = StackedModel(plan, vectors, parameter_shapes(plan))
    divisor = torch.tensor(
        [[expected_batch_size(item.task)] for item in ready] + [[1.0]] * nobody,
        dtype=torch.float64,
    )
    deviation = mechanism.noise_multiplier * plan.privacy.clipping_norm
    optimizer = make_stacked_optimizer(
        plan.training.optimizer,
        [item.start for item in ready] + [{}] * nobody,
        vectors,
        noise_deviation=deviation / divisor,
    )
    divisor_single = divisor.float()
    patients = _Patients(ready)
    total = torch.empty(vectors.shape, dtype=torch.float64)
    noise = torch.zeros_like(total)
    for step in range(mechanism.steps):
        total.zero_()
        drawn = [item.steps[step] for item in ready] + [_NO_ROWS] * nobody
        for batch in patients.pieces(drawn):
            model.write_sums(batch)
            total += model.sums
        _add_noise(total, noise, ready, deviation * (1 + SENSITIVITY_MARGIN), into=model.sums)
        model.sums /= divisor_single
        if plan.training.proximal_term > 0:
            model.sums.add_(vectors - received, alpha=plan.training.proximal_term)
        optimizer.step(vectors, model.sums)
    states = optimizer.states(length) or [{}] * len(ready)
    return [
        local_result(item, row[:length].numpy(), state)
        for item, row, state in zip(ready, vectors, states, strict=False)
    ]


def _add_noise(
    total: torch.Tensor,
    noise: torch.Tensor,
    ready: Sequence[LocalRound],
    deviation: float,
    *,
    into: torch.Tensor,
) -> None:
    """Write each site's sum with noise of its own stream, on the grid of `noise.write_noised`."""
    if deviation <= 0:
        into.copy_(total)
        return
    step = 2.0 ** (math.floor(math.log2(deviation)) - GRID_BITS)
    for row, item in zip(noise.numpy(), ready, strict=False):
        item.noise.standard_normal(out=row[: len(item.vector)])
        row[len(item.vector) :] = 0.0
    noise.mul_(deviation / step).add_(total, alpha=1 / step).round_()
    torch.mul(noise, step, out=into)


class _Patients:
    """All sites' patients in one table, nobody in its last row."""

    def __init__(self, ready: Sequence[LocalRound]) -> None:
        self._at_once = ready[0].rows_at_once
        wholes = [item.whole for item in ready]
        self._x = torch.cat([whole.x for whole in wholes])
        self._y = torch.cat([whole.y for whole in wholes])
        self._weight = torch.cat([whole.weight for whole in wholes])
        ends = np.cumsum([len(whole.y) for whole in wholes])
        self._firsts = [0, *ends.tolist()]
        self._nobody = int(ends[-1]) - 1

    def pieces(
        self, drawn: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]]
    ) -> Iterator[Batch]:
        """Yield a step's patients [sites, rows] in pieces of the group's number of rows.

        Args:
            drawn: rows of each site.
        """
        pieces = max(1, *(-(-len(rows) // self._at_once) for rows in drawn))
        index = np.full((len(drawn), pieces * self._at_once), self._nobody, dtype=np.int64)
        for place, (rows, first) in enumerate(zip(drawn, self._firsts, strict=False)):
            np.add(rows, first, out=index[place, : len(rows)])
        for start in range(0, index.shape[1], self._at_once):
            chosen = torch.from_numpy(index[:, start : start + self._at_once])
            flat = chosen.flatten()
            yield Batch(
                self._x.index_select(0, flat).view(*chosen.shape, -1),
                self._y.index_select(0, flat).view(chosen.shape),
                self._weight.index_select(0, flat).view(chosen.shape),
            )
