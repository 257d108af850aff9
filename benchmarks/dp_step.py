"""One DP-SGD step, and a whole epoch, against plain SGD and against stock Opacus.

    python benchmarks/dp_step.py            # all rows; about eight minutes on one core
    python benchmarks/dp_step.py --quick    # one process, three pairs

Every row is a ratio of two times measured in turn in one process with one thread (median over
pairs). Where the allocator puts a process's arrays changes stock Opacus' time by a factor of two,
so each model is measured in several fresh processes: median, least and most of theirs.
  plain   in-memory SGD without privacy: shuffled indices, the same model and loss
  loader  the usual PyTorch loop without privacy: DataLoader(TensorDataset, shuffle=True)
  hooks   Opacus as its guide says: make_private, its data loader, its optimiser
  ghost   the same with grad_sample_mode="ghost"
Ours includes Poisson sampling, the clipped sum, AES noise, rounding, and Opacus' optimiser.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from subprocess import PIPE

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common.models import (
    GatedRecurrentModel,
    LogisticRegressionModel,
    MultilayerPerceptronModel,
    ResidualPerceptronModel,
)
from common.openblas import limit_threads
from site_client.training.clipped_sum import Batch, choose_clipped_sum
from site_client.training.clipping import Clipping
from site_client.training.dp_sgd_engine import write_total
from site_client.training.flat_parameters import FlatParameters
from site_client.training.noisy_optimizer import NoisyOptimizer
from site_client.training.randomness import Randomness
from site_client.training.slots import draw, fill_up, seat, slot_count, with_nobody
from site_client.training.workspace import Workspace

COLUMNS, BINS, PATIENTS = 64, 24, 50_000
RATE = 0.1


@dataclass(frozen=True)
class Architecture:
    """A model and its input."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    patients: int = PATIENTS


ARCHITECTURES = (
    Architecture("logistic regression 64", lambda: LogisticRegressionModel(64), (64,)),
    Architecture("MLP 64-128-64-1", lambda: MultilayerPerceptronModel(64, (128, 64)), (64,)),
    Architecture("residual MLP 64, 2 blocks", lambda: ResidualPerceptronModel(64, 64, 2), (64,)),
    Architecture(
        "GRU 24 x 32, 32 wide", lambda: GatedRecurrentModel(32, 32, bins=BINS), (BINS * 32,), 20_000
    ),
)


class Loss(nn.Module):
    """Binary cross-entropy with the reduction that Opacus' ghost mode may change."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch."""
        return nn.functional.binary_cross_entropy_with_logits(
            logits.squeeze(-1), y, reduction=self.reduction
        )


def data_of(architecture: Architecture) -> Batch:
    """Return random patients."""
    torch.manual_seed(1)
    x = torch.randn(architecture.patients, *architecture.shape)
    y = (torch.rand(architecture.patients) < 0.3).float()
    return Batch(x, y, torch.ones_like(y))


def ours(architecture: Architecture, data: Batch, size: int) -> Iterator[None]:
    """Yield after each of our steps."""
    model = architecture.make()
    flat = FlatParameters(model)
    write_sum = choose_clipped_sum(model, Clipping(1.0))
    randomness = Randomness.from_system()
    optimizer = NoisyOptimizer(
        torch.optim.SGD([flat.vector], lr=RATE),
        flat=flat,
        noise=randomness.noise,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=size,
    )
    patients = len(data.y)
    whole = with_nobody(Batch(data.x, data.y, data.weight, Workspace()))
    seats = seat(patients, slot_count(patients, patients), randomness.sampling)
    while True:
        drawn = draw(len(seats), size / patients, randomness.sampling)
        write_total(whole, fill_up(seats[drawn], patients), write_sum, flat)
        optimizer.step()
        yield


def plain(architecture: Architecture, data: Batch, size: int) -> Iterator[None]:
    """Yield after each step of in-memory SGD without privacy."""
    model, loss = architecture.make(), Loss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    while True:
        for chosen in torch.randperm(len(data.y)).split(size)[:-1]:
            optimizer.zero_grad()
            loss(model(data.x[chosen]), data.y[chosen]).backward()
            optimizer.step()
            yield


def loader(architecture: Architecture, data: Batch, size: int) -> Iterator[None]:
    """Yield after each step of the usual PyTorch loop without privacy."""
    model, loss = architecture.make(), Loss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    batches = DataLoader(TensorDataset(data.x, data.y), batch_size=size, shuffle=True)
    while True:
        for x, y in batches:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            yield


def opacus(mode: str) -> Callable[[Architecture, Batch, int], Iterator[None]]:
    """Return stock Opacus in one of its modes."""

    def run(architecture: Architecture, data: Batch, size: int) -> Iterator[None]:
        model, loss = architecture.make(), Loss()
        made = PrivacyEngine(accountant="rdp").make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=RATE),
            data_loader=DataLoader(TensorDataset(data.x, data.y), batch_size=size),
            criterion=loss,
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            grad_sample_mode=mode,
        )
        model, optimizer = made[0], made[1]
        criterion, batches = (made[2], made[3]) if mode == "ghost" else (loss, made[2])
        while True:
            for x, y in batches:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
                yield

    return run


def compare(
    first: Iterator[None], second: Iterator[None], *, pairs: int, steps: tuple[int, int]
) -> tuple[float, float, float]:
    """Return the median of time(first) / time(second) over pairs, and the middle half's ends."""
    ratios = []
    for pair in range(pairs + 1):
        seconds = []
        for steppable, count in zip((first, second), steps, strict=True):
            started = time.perf_counter()
            for _ in range(count):
                next(steppable)
            seconds.append((time.perf_counter() - started) / count)
        if pair > 0:  # the first pair warms up
            ratios.append(seconds[0] / seconds[1])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return middle, low, high


def steps_of_rivals(architecture: Architecture, pairs: int) -> dict[str, float]:
    """Return the ratios of one model by their names, measured in this process."""
    ratios: dict[str, float] = {}
    data = data_of(architecture)
    for size in (256, 2048):
        count = max(6, 12_000 // size)
        slow = max(2, count // 6)
        for label, pair, steps in (
            ("ours / plain", (ours, plain), (count, count)),
            ("loader / ours", (loader, ours), (count, count)),
            ("hooks / ours", (opacus("hooks"), ours), (slow, count)),
            ("ghost / ours", (opacus("ghost"), ours), (slow, count)),
        ):
            first, second = (make(architecture, data, size) for make in pair)
            middle, _, _ = compare(first, second, pairs=pairs, steps=steps)
            ratios[f"{size:>6}  {label}"] = middle
    return ratios


def steps_in_fresh_processes(pairs: int, processes: int) -> None:
    """Print the table of step ratios."""
    print(f"{'model':28}{'batch':>6}  {'ratio':24}  median  (least to most of the processes)")
    command = [sys.executable, "-W", "ignore", __file__, "--pairs", str(pairs), "--model"]
    limit_threads()  # as the agent does; of the processes that are started here
    for index, architecture in enumerate(ARCHITECTURES):
        runs = [
            json.loads(subprocess.run([*command, str(index)], stdout=PIPE, check=True).stdout)
            for _ in range(processes)
        ]
        for name in runs[0]:
            found = [run[name] for run in runs]
            print(
                f"{architecture.name:28}{name:32}{statistics.median(found):8.2f}"
                f"  ({min(found):.2f} to {max(found):.2f})",
                flush=True,
            )


def sampling(pairs: int) -> None:
    """Print how much faster a Poisson sample of 500,000 patients is than Opacus' sampler."""
    patients, rate = 500_000, 256 / 500_000
    stock = iter(UniformWithReplacementSampler(num_samples=patients, sample_rate=rate, steps=10**9))
    stream = Randomness.from_system().sampling

    def drawn() -> Iterator[None]:
        while True:
            torch.from_numpy(draw(patients, rate, stream))
            yield

    def coins() -> Iterator[None]:
        while True:
            next(stock)
            yield

    middle, low, high = compare(coins(), drawn(), pairs=pairs, steps=(20, 400))
    print(f"sampling at 500,000: Opacus / ours {middle:.0f} ({low:.0f} to {high:.0f})")


def epoch(pairs: int) -> None:
    """Print a whole local epoch, 100,000 patients by 64 columns, against the usual loop."""
    for architecture in ARCHITECTURES[:2]:
        big = Architecture(architecture.name, architecture.make, (64,), 100_000)
        data = data_of(big)
        count = 100_000 // 256
        middle, low, high = compare(
            ours(big, data, 256), loader(big, data, 256), pairs=pairs, steps=(count, count)
        )
        print(f"epoch of {big.name}: ours / loader {middle:.2f} ({low:.2f} to {high:.2f})")


def noise_share(pairs: int) -> None:
    """Print the noise's share in a step of the MLP at batch 256."""
    architecture = ARCHITECTURES[1]
    model = architecture.make()
    flat = FlatParameters(model)
    optimizer = NoisyOptimizer(
        torch.optim.SGD([flat.vector], lr=RATE),
        flat=flat,
        noise=Randomness.from_system().noise,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=256,
    )

    def noise() -> Iterator[None]:
        while True:
            optimizer.add_noise()
            yield

    step = ours(architecture, data_of(architecture), 256)
    middle, low, high = compare(noise(), step, pairs=pairs, steps=(100, 100))
    print(f"noise in a step of {architecture.name} at 256: {middle:.1%} ({low:.1%} to {high:.1%})")


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one process, three pairs")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--model", type=int, help="one model's ratios as JSON, by its number")
    words = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    np.seterr(all="raise")
    pairs = 3 if words.quick else words.pairs
    if words.model is not None:
        print(json.dumps(steps_of_rivals(ARCHITECTURES[words.model], pairs)))
        return
    steps_in_fresh_processes(pairs, 1 if words.quick else 5)
    sampling(pairs)
    epoch(pairs)
    noise_share(pairs)


if __name__ == "__main__":
    main()
