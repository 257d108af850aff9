"""Configured alike: a plain Opacus loop with our draws ends where our simulator ends.

Two programs that draw noise on their own agree only in the mean. So the plain loop gets what is
random from us and computes everything else by itself: the same first model, the same Poisson
samples and the same standard normals; Opacus' per-sample gradients, clipping and optimiser, its RDP
accountant, a plain mean over sites. AUROC then agrees to 3 decimals because the computation is the
same, and epsilon because the noisy steps are the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer
from torch import nn

from benchmarks.peers.common_job import common_plan, common_sites, rival_model, task
from common.ids import SiteId
from common.privacy.accountant import epsilon_of
from common.privacy.calibration import plan_mechanisms
from common.privacy.mechanism import MechanismRecord
from common.study.columns import initial_parameters
from simulations.engine import run_study
from simulations.randomness import reproducible
from simulations.virtual_site import VirtualSite
from site_client.training.noisy_optimizer import SENSITIVITY_MARGIN
from site_client.training.randomness import Randomness
from site_client.training.slots import draw, seat

HALF_A_THOUSANDTH: Final = 0.0005


@dataclass(frozen=True)
class Alike:
    """What two programs say of one job.

    Args:
        auroc: of the plain loop with our draws.
        epsilon_rdp: by the accountant that the plain loop's own optimisers told of each step.
        epsilon_of_records: by the same accountant, of the records that our sites' ledgers hold.
        epsilon_pld: of these records as our ledger counts them, by privacy loss distributions.
        largest_difference: of any parameter from ours.
    """

    auroc: float
    epsilon_rdp: float
    epsilon_of_records: float
    epsilon_pld: float
    largest_difference: float


def plain_loop_with_our_draws(*, sites: int, rounds: int, seed: int, ours: Any) -> Alike:
    """Run the job as a plain loop and compare it with our final parameters."""
    plan = common_plan(sites=sites, rounds=rounds)
    model = rival_model(initial_parameters(plan))
    accountants = [RDPAccountant() for _ in range(sites)]
    virtual = common_sites(plan, sites)
    streams = [reproducible(seed)(SiteId(site.site_id)) for site in virtual]
    for number in range(1, rounds + 1):
        trained = [
            _trained(model, site, stream(number), accountant)
            for site, stream, accountant in zip(virtual, streams, accountants, strict=True)
        ]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.stack([state[name] for state in trained]).mean(dim=0))
    records = [plan_mechanisms(plan).train_per_round] * rounds
    return Alike(
        auroc=task.auroc(model),
        epsilon_rdp=accountants[0].get_epsilon(task.DELTA),
        epsilon_of_records=epsilon_by_opacus(records),
        epsilon_pld=epsilon_of(records, delta=task.DELTA),
        largest_difference=max(
            float((parameter - other).detach().abs().max())
            for parameter, other in zip(
                model.parameters(), rival_model(ours).parameters(), strict=True
            )
        ),
    )


def epsilon_by_opacus(records: list[MechanismRecord]) -> float:
    """Return the epsilon of training records by Opacus' RDP accountant, at the job's delta."""
    accountant = RDPAccountant()
    accountant.history = [
        (record.noise_multiplier, record.sampling_probability, record.steps) for record in records
    ]
    return float(accountant.get_epsilon(task.DELTA))


class _GivenNoise(DPOptimizer):  # type: ignore[misc]
    """Opacus' optimiser with normals that somebody else drew, one vector a step."""

    def __init__(self, *args: Any, normals: Iterator[torch.Tensor], **options: Any) -> None:
        super().__init__(*args, **options)
        self._normals = normals

    def add_noise(self) -> None:
        normals = next(self._normals)
        # Our product adds 1 % of noise that it does not count: rounding in sums costs a little.
        deviation = self.noise_multiplier * self.max_grad_norm * (1 + SENSITIVITY_MARGIN)
        begin = 0
        for parameter in self.params:
            end = begin + parameter.numel()
            noise = normals[begin:end].reshape(parameter.shape) * deviation
            parameter.grad = (parameter.summed_grad.double() + noise).float()
            begin = end


def _trained(
    model: nn.Module, site: VirtualSite, randomness: Randomness, accountant: RDPAccountant
) -> dict[str, torch.Tensor]:
    """Return one site's parameters after one round."""
    own = task.make_model()
    own.load_state_dict(model.state_dict())
    private = GradSampleModule(own)
    size = sum(parameter.numel() for parameter in own.parameters())
    normals = (
        torch.from_numpy(randomness.noise.standard_normal(out=np.empty(size)))
        for _ in range(task.STEPS)
    )
    optimizer = _GivenNoise(
        torch.optim.SGD(private.parameters(), lr=task.RATE),
        noise_multiplier=task.NOISE,
        max_grad_norm=task.CLIP,
        expected_batch_size=task.PATIENTS / task.STEPS,
        normals=normals,
    )
    optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=1 / task.STEPS))
    x = torch.from_numpy(site.patients.x)  # type: ignore[union-attr]
    y = torch.from_numpy(site.patients.y)[:, None]  # type: ignore[union-attr]
    loss_of = nn.BCEWithLogitsLoss()
    seats = seat(task.PATIENTS, task.PATIENTS, randomness.sampling)
    for _ in range(task.STEPS):
        drawn = seats[draw(task.PATIENTS, 1 / task.STEPS, randomness.sampling)]
        rows = torch.from_numpy(drawn)
        optimizer.zero_grad()
        loss_of(private(x[rows]), y[rows]).backward()
        optimizer.step()
    return {name: value.detach().clone() for name, value in own.named_parameters()}


def main() -> None:
    """Run the job of `PEERS_SITES` and `PEERS_ROUNDS` both ways and print the record."""
    seed = int(sys.argv[1])
    plan = common_plan(sites=task.SITES, rounds=task.ROUNDS)
    result = run_study(plan, common_sites(plan, task.SITES), seed=seed)
    alike = plain_loop_with_our_draws(
        sites=task.SITES, rounds=task.ROUNDS, seed=seed, ours=result.parameters
    )
    auroc = task.auroc(rival_model(result.parameters))
    print(
        json.dumps(
            {
                "auroc_ours": auroc,
                "auroc_plain": alike.auroc,
                "epsilon_ours": alike.epsilon_of_records,
                "epsilon_plain": alike.epsilon_rdp,
                "epsilon_ledger": alike.epsilon_pld,
                "largest_difference": alike.largest_difference,
                "is_alike": abs(auroc - alike.auroc) < HALF_A_THOUSANDTH
                and abs(alike.epsilon_of_records - alike.epsilon_rdp) < HALF_A_THOUSANDTH,
            }
        )
    )


if __name__ == "__main__":
    main()
