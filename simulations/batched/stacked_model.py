"""One plan's model at several sites as one tensor, and the clipped sums of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import torch

from common.study.plan import (
    LogisticRegression,
    MultilayerPerceptron,
    ResidualPerceptron,
    StudyPlan,
)
from simulations.batched.stacked_terms import (
    Normalized,
    StackedLinear,
    StackedNorm,
    StackedTerm,
)
from site_client.training.clipped_sum import Batch
from site_client.training.clipping import Clipping
from site_client.training.patient_norms import squared_norms

_LAYER_NORM_EPSILON: Final = 1e-5
"""torch's own, which the residual model has."""
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Terms: TypeAlias = Callable[[Batch], list[StackedTerm]]
Place: TypeAlias = Callable[[str], tuple[torch.Tensor, torch.Tensor]]


def knows(plan: StudyPlan) -> bool:
    """Return whether a plan's model can be stacked."""
    return isinstance(plan.model, LogisticRegression | MultilayerPerceptron | ResidualPerceptron)


class StackedModel:
    """Several sites' parameters and their clipped sums.

    Args:
        plan: whose model it is; `knows` it.
        vectors: [sites, parameters], each row a site's parameters in the order of `shapes`; the
            caller steps them in place.
        shapes: of the parameters, in the model's order.

    Attributes:
        sums: [sites, parameters], what `write_sums` writes.
    """

    def __init__(self, plan: StudyPlan, vectors: torch.Tensor, shapes: Shapes) -> None:
        self.sums = torch.zeros_like(vectors)
        self._clipping = Clipping(plan.privacy.clipping_norm, plan.privacy.clipping)
        self._terms = _terms_of(plan, _places(vectors, self.sums, shapes))

    @torch.inference_mode()
    def write_sums(self, batch: Batch) -> None:
        """Write each site's sum of clipped patient gradients into its row of `sums`.

        A patient whose gradient is not finite has a share of zero, as in `BookKeepingSum`.

        Args:
            batch: x [sites, rows, columns], y and weight [sites, rows]; a row of weight zero is
                nobody.
        """
        terms = self._terms(batch)
        squared = _squared_norms(terms)
        if not math.isfinite(float(squared.sum())):
            lost = ~torch.isfinite(squared).view(batch.y.shape)
            for term in terms:
                term.clear(lost)
            squared = _squared_norms(terms)
        factors = self._clipping.factors(squared).view(batch.y.shape)
        for term in terms:
            term.write_sum(factors)


def _squared_norms(terms: Sequence[StackedTerm]) -> torch.Tensor:
    return squared_norms([part for term in terms for part in term.norm_part()])


def _places(vectors: torch.Tensor, sums: torch.Tensor, shapes: Shapes) -> Place:
    """Return the function from a parameter's name to its views in `vectors` and `sums`."""
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    start = 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        of_all = (len(vectors), *shape)
        found[name] = (vectors[:, start:stop].view(of_all), sums[:, start:stop].view(of_all))
        start = stop
    return found.__getitem__


def _terms_of(plan: StudyPlan, place: Place) -> Terms:
    if isinstance(plan.model, LogisticRegression):
        return _perceptron([_linear(place, "linear")])
    if isinstance(plan.model, ResidualPerceptron):
        return _residual(place, plan.model.blocks)
    hidden = plan.model.hidden if isinstance(plan.model, MultilayerPerceptron) else ()
    return _perceptron([_linear(place, f"layers.{index}") for index in range(len(hidden) + 1)])


def _linear(place: Place, name: str) -> StackedLinear:
    weight, weight_sum = place(f"{name}.weight")
    bias, bias_sum = place(f"{name}.bias")
    return StackedLinear(weight, bias, weight_sum, bias_sum)


def _norm(place: Place, name: str) -> StackedNorm:
    gain, gain_sum = place(f"{name}.weight")
    offset, offset_sum = place(f"{name}.bias")
    return StackedNorm(gain, offset, gain_sum, offset_sum, epsilon=_LAYER_NORM_EPSILON)


def _logit_gradient(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    return (torch.sigmoid(logits.squeeze(-1)) - batch.y).mul_(batch.weight).unsqueeze(-1)


def _perceptron(layers: Sequence[StackedLinear]) -> Terms:
    def terms(batch: Batch) -> list[StackedTerm]:
        inner = [batch.x]
        for layer in layers[:-1]:
            inner.append(layer.forward_tanh(inner[-1]))
        outer = _logit_gradient(layers[-1].forward(inner[-1]), batch)
        found: list[StackedTerm] = []
        for index in range(len(layers) - 1, -1, -1):
            found.append(layers[index].term(inner[index], outer))
            if index > 0:
                outer = layers[index].backward_tanh(outer, inner[index])
        return found

    return terms


def _residual(place: Place, block_count: int) -> Terms:
    inlet, outlet, last = _linear(place, "inlet"), _linear(place, "outlet"), _norm(place, "norm")
    blocks = [
        (
            _norm(place, f"blocks.{index}.norm"),
            _linear(place, f"blocks.{index}.first"),
            _linear(place, f"blocks.{index}.second"),
        )
        for index in range(block_count)
    ]

    def terms(batch: Batch) -> list[StackedTerm]:
        x = inlet.forward(batch.x)
        passes: list[tuple[Normalized, torch.Tensor]] = []
        for norm, first, second in blocks:
            normalized = norm.forward(x)
            hidden = first.forward_tanh(normalized.output)
            passes.append((normalized, hidden))
            x = x + second.forward(hidden)
        normalized = last.forward(x)
        outer = _logit_gradient(outlet.forward(normalized.output), batch)
        found: list[StackedTerm] = [outlet.term(normalized.output, outer)]
        outer = last.backward(outlet.backward(outer), normalized, found)
        for (norm, first, second), (normalized, hidden) in zip(
            reversed(blocks), reversed(passes), strict=True
        ):
            found.append(second.term(hidden, outer))
            inside = second.backward_tanh(outer, hidden)
            found.append(first.term(normalized.output, inside))
            outer = outer + norm.backward(first.backward(inside), normalized, found)
        found.append(inlet.term(batch.x, outer))
        return found

    return terms
