"""No patient passes the clipping norm, whatever model is sent: where float32 squares mislead."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from common.models import ResidualPerceptronModel
from site_client.training.clipped_sum import Batch, choose_clipped_sum
from site_client.training.clipping import Clipping
from site_client.training.flat_parameters import FlatParameters
from site_client.training.layer_terms import EmbeddingTerm, LinearTerm
from site_client.training.patient_norms import squared_norms

BOUND = 1 + 1e-5


@pytest.mark.parametrize("norm", [1e-6, 1e-4, 1e-2, 1.0])
def test_a_tiny_error_times_a_huge_activation_is_clipped(norm: float) -> None:
    # A gain of 1e15 to 1e19 before the outlet; the logit's error is so small that its square is 0.
    for gain, logit in itertools.product((1e15, 1e17, 1e18, 1e19), (-40.0, -50, -53, -60, -70)):
        torch.manual_seed(0)
        model = ResidualPerceptronModel(4, 8, 1)
        with torch.no_grad():
            model.norm.weight.fill_(gain)
            model.outlet.weight.zero_()
            model.outlet.bias.fill_(logit)
        flat = FlatParameters(model)
        choose_clipped_sum(model, Clipping(norm))(
            Batch(torch.randn(1, 4), torch.zeros(1), torch.ones(1))
        )
        assert float(flat.gradient.double().norm()) <= norm * BOUND


def _share(term: LinearTerm | EmbeddingTerm, *parameters: torch.Tensor) -> float:
    squared = squared_norms(term.norm_parts())
    if not bool(squared.isfinite().all()):
        return 0.0  # `BookKeepingSum` leaves this patient out
    term.write_sum(Clipping(1.0).factors(squared))
    return float(
        torch.cat([p.grad.double().flatten() for p in parameters if p.grad is not None]).norm()
    )


def _parameter(*shape: int) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(*shape))
    parameter.grad = torch.zeros(*shape)
    return parameter


@pytest.mark.parametrize("size", [1e1, 1e3, 1e5, 1e9, 1e15])
def test_positions_that_cancel_are_clipped(size: float) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        weight, bias, table = _parameter(40, 40), _parameter(40), _parameter(7, 40)
        inner, outer = torch.randn(1, 3, 40), torch.randn(1, 3, 40)
        inner[0, 1] = inner[0, 0]
        outer[0, 0] *= size
        outer[0, 1] = -outer[0, 0] * (1 + 1e-7 * seed)
        for scaled in (inner, inner * size, inner * 0):
            assert _share(LinearTerm(scaled, outer, weight, bias), weight, bias) <= BOUND
        index = torch.tensor([[2, 2, 5]])
        assert _share(EmbeddingTerm(index, outer, table, None), table) <= BOUND
