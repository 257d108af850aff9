"""Our clipped sums and steps against stock Opacus: every architecture, every awkward batch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer
from torch import nn

from common.models import (
    GatedRecurrentModel,
    LogisticRegressionModel,
    MultilayerPerceptronModel,
    ResidualPerceptronModel,
)
from site_client.training.clipped_sum import Batch, BookKeepingSum, choose_clipped_sum
from site_client.training.clipping import Clipping
from site_client.training.dp_sgd_engine import write_total
from site_client.training.flat_parameters import FlatParameters
from site_client.training.noisy_optimizer import NoisyOptimizer
from site_client.training.stock_clipped_sum import StockClippedSum

COLUMNS, BINS, ROWS = 6, 5, 11


class LookedUp(nn.Module):
    """Codes looked up, averaged, normalised: recorded, for no backward pass is written for it."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Embedding(ROWS, 4)
        self.norm = nn.LayerNorm(4)
        self.outlet = nn.Linear(4, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outlet(self.norm(self.codes(x).mean(-2)))


class Scaled(nn.Module):
    """A parameter outside any layer, which only stock Opacus can differentiate per patient."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(COLUMNS))
        self.outlet = nn.Linear(COLUMNS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outlet(torch.tanh(x * self.gain))


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "logistic regression": (lambda: LogisticRegressionModel(COLUMNS), "table"),
    "perceptron": (lambda: MultilayerPerceptronModel(COLUMNS, (7, 5)), "table"),
    "residual perceptron": (lambda: ResidualPerceptronModel(COLUMNS, 8, 2), "table"),
    "recurrent": (lambda: GatedRecurrentModel(COLUMNS, 4, bins=BINS), "bins"),
    "wide recurrent": (lambda: GatedRecurrentModel(COLUMNS, 9, bins=BINS), "bins"),
    "recorded": (LookedUp, "codes"),
    "stock": (Scaled, "table"),
}


def make_model(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(3)
    model = MODELS[name][0]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype)


def make_batch(
    name: str, patients: int, *, samples: int = 0, dtype: torch.dtype = torch.float64
) -> Batch:
    torch.manual_seed(4)
    lead = (patients, samples) if samples else (patients,)
    kind = MODELS[name][1]
    if kind == "codes":
        x = torch.randint(0, ROWS, (*lead, BINS))
    else:
        x = torch.randn(*lead, (BINS if kind == "bins" else 1) * COLUMNS, dtype=dtype)
    y = (torch.rand(lead) < 0.4).to(dtype)
    weight = torch.where(y > 0, 3.0, 1.0).to(dtype)
    if samples:  # a patient's loss is the mean over the samples that are there
        present = torch.arange(samples)[None] < torch.randint(1, samples + 1, (patients, 1))
        weight = weight * present / present.sum(1, keepdim=True)
    return Batch(x, y, weight)


def opacus_sum(model: nn.Module, batch: Batch, norm: float) -> torch.Tensor:
    """Stock Opacus: hooks, then its optimiser's own clipping."""
    model = copy.deepcopy(model)
    samples = GradSampleModule(model, batch_first=True, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=norm,
        expected_batch_size=1,
    )
    _opacus_backward(samples, batch)
    optimizer.clip_and_accumulate()
    return torch.cat([p.summed_grad.reshape(-1) for p in optimizer.params])


def _opacus_backward(samples: GradSampleModule, batch: Batch) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        nn.functional.binary_cross_entropy_with_logits(
            samples(batch.x).squeeze(-1), batch.y, weight=batch.weight, reduction="sum"
        ).backward()


def our_sum(model: nn.Module, batch: Batch, clipping: Clipping) -> torch.Tensor:
    model = copy.deepcopy(model)
    flat = FlatParameters(model)
    flat.gradient.fill_(float("nan"))  # whatever is not written shows
    choose_clipped_sum(model, clipping)(batch)
    return flat.gradient


def assert_equal_sums(model: nn.Module, batch: Batch, norm: float, tolerance: float) -> None:
    expected = opacus_sum(model, batch, norm)
    found = our_sum(model, batch, Clipping(norm))
    scale = max(float(expected.norm()), min(norm, 1.0))
    assert float((found - expected).norm()) <= tolerance * scale


@pytest.mark.parametrize("norm", [1e-6, 0.3, 1e6])
@pytest.mark.parametrize("patients", [1, 2, 33])
@pytest.mark.parametrize("name", MODELS)
def test_clipped_sums_equal_stock_opacus_in_double(name: str, patients: int, norm: float) -> None:
    assert_equal_sums(make_model(name), make_batch(name, patients), norm, 1e-12)


@pytest.mark.parametrize("norm", [1e-6, 0.3, 1e6])
@pytest.mark.parametrize("name", MODELS)
def test_clipped_sums_equal_stock_opacus_in_single(name: str, norm: float) -> None:
    model = make_model(name, torch.float32)
    assert_equal_sums(model, make_batch(name, 64, dtype=torch.float32), norm, 1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_an_empty_batch_sums_to_exactly_zero(name: str) -> None:
    found = our_sum(make_model(name), make_batch(name, 0), Clipping(1.0))
    assert not found.any()


@pytest.mark.parametrize("name", [name for name in MODELS if "recurrent" not in name])
def test_several_samples_of_a_patient_are_clipped_once_together(name: str) -> None:
    model, batch = make_model(name), make_batch(name, 9, samples=3)
    assert_equal_sums(model, batch, 0.3, 1e-12)


@pytest.mark.parametrize("samples", [2, 4])
def test_several_sequences_of_a_patient_are_clipped_once_together(samples: int) -> None:
    # Opacus' recurrent layer takes one sequence a patient, so autograd is the oracle.
    model, batch = make_model("recurrent"), make_batch("recurrent", 5, samples=samples)
    expected = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    for x, y, weight in zip(batch.x, batch.y, batch.weight, strict=True):
        loss = nn.functional.binary_cross_entropy_with_logits(
            model(x).squeeze(-1), y, weight=weight, reduction="sum"
        )
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        gradient = torch.cat([item.reshape(-1) for item in gradients])
        expected += gradient * min(1.0, 0.3 / (float(gradient.norm()) + 1e-6))
    torch.testing.assert_close(our_sum(model, batch, Clipping(0.3)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_frozen_parameters_are_neither_counted_nor_written(name: str) -> None:
    model = make_model(name)
    parameters = list(model.parameters())
    for parameter in parameters[: len(parameters) // 2]:
        parameter.requires_grad_(False)
    assert_equal_sums(model, make_batch(name, 20), 0.3, 1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_normalized_clipping_never_passes_the_norm(name: str) -> None:
    model = make_model(name)
    for norm in (1e-3, 1.0, 50.0):
        clipping = Clipping(norm, "normalized")
        for patient in range(8):
            alone = make_batch(name, 8).of(torch.tensor([patient]))
            share = float(our_sum(model, alone, clipping).norm())
            whole = float(our_sum(model, alone, Clipping(1e12)).norm())
            assert share <= norm
            assert share == pytest.approx(norm * whole / (whole + 0.01), rel=1e-9)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name][1] != "codes"])
def test_a_patient_whose_gradient_is_not_finite_has_no_share(name: str) -> None:
    model, batch = make_model(name), make_batch(name, 12)
    without = our_sum(model, batch.of(torch.arange(12) != 5), Clipping(1.0))
    for value in (float("nan"), float("inf")):
        x = batch.x.clone()
        x[5] = value
        with np.errstate(all="ignore"):  # as the engine has it
            found = our_sum(model, Batch(x, batch.y, batch.weight), Clipping(1.0))
        torch.testing.assert_close(found, without, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_a_large_batch_is_summed_in_pieces_to_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = make_model(name), make_batch(name, 23)
    whole = our_sum(model, batch, Clipping(0.3))
    monkeypatch.setattr("site_client.training.dp_sgd_engine.ROWS_AT_ONCE", 7)
    flat = FlatParameters(model)
    write_total(batch, np.arange(23), choose_clipped_sum(model, Clipping(0.3)), flat)
    torch.testing.assert_close(flat.total, whole, rtol=0, atol=1e-12)


def test_each_model_is_summed_by_the_fastest_way_that_knows_it() -> None:
    for name in MODELS:
        way = StockClippedSum if name == "stock" else BookKeepingSum
        assert type(choose_clipped_sum(make_model(name), Clipping(1.0))) is way, name


def test_a_shared_parameter_goes_through_stock_opacus() -> None:
    first = nn.Linear(COLUMNS, COLUMNS)
    second = nn.Linear(COLUMNS, COLUMNS)
    second.weight = first.weight
    model = nn.Sequential(first, second, nn.Linear(COLUMNS, 1))
    assert type(choose_clipped_sum(model, Clipping(1.0))) is StockClippedSum


class _SameNoise(DPOptimizer):
    """Stock Opacus in all but its noise, which comes from the stream that ours reads."""

    def __init__(self, *args: Any, stream: np.random.Generator, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stream = stream

    def add_noise(self) -> None:
        for p in self.params:
            noise = self.stream.standard_normal(p.numel()) * self.noise_multiplier
            p.grad = (p.summed_grad + torch.from_numpy(noise).view_as(p) * self.max_grad_norm).to(
                p.dtype
            )


@pytest.mark.parametrize("name", MODELS)
def test_forty_noisy_steps_equal_stock_opacus_and_so_does_its_accountant(name: str) -> None:
    rng = np.random.default_rng(9)
    batch, rate = make_batch(name, 60, dtype=torch.float32), 0.2
    chosen = [torch.from_numpy(np.flatnonzero(rng.random(60) < rate)) for _ in range(40)]
    chosen[7] = chosen[7][:0]
    settings: dict[str, Any] = {
        "noise_multiplier": 0.7,
        "max_grad_norm": 0.3,
        "expected_batch_size": 12,
    }
    results, histories = [], []
    for engine in ("opacus", "ours"):
        model, stream = make_model(name, torch.float32), np.random.default_rng(10)
        accountant = RDPAccountant()
        if engine == "opacus":
            samples = GradSampleModule(model, batch_first=True, loss_reduction="sum")
            inner = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
            optimizer: DPOptimizer = _SameNoise(inner, stream=stream, **settings)
        else:
            flat = FlatParameters(model)
            write_sum = choose_clipped_sum(model, Clipping(0.3))
            inner = torch.optim.SGD([flat.vector], lr=0.5, momentum=0.9)
            optimizer = NoisyOptimizer(inner, flat=flat, noise=stream, margin=0.0, **settings)
        optimizer.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=rate))
        for indices in chosen:
            optimizer.zero_grad()
            if engine == "opacus":
                _opacus_backward(samples, batch.of(indices))
            else:
                write_total(batch, indices.numpy(), write_sum, flat)
            optimizer.step()
        results.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        histories.append(accountant.history)
    assert histories[0] == histories[1] == [(0.7, rate, 40)]
    assert float((results[0] - results[1]).norm()) <= 1e-6 * float(results[0].norm())
