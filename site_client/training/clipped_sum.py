"""The exact clipped sum of patient gradients, by the fastest way that knows the model.

A model we know has its backward pass written by hand (`backprops`, `recurrent_backprops`); another
model of linear, layer-normalisation and embedding layers is recorded while it runs
(`recorded_backprops`); whatever is left goes through stock Opacus (`stock_clipped_sum`). Each way
covers every trainable parameter or is not chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from common.models import (
    GatedRecurrentModel,
    LogisticRegressionModel,
    MultilayerPerceptronModel,
    ResidualPerceptronModel,
)
from site_client.training.backprops import PerceptronBackprops, ResidualBackprops
from site_client.training.clipping import Clipping
from site_client.training.flat_parameters import gradient_of
from site_client.training.layer_terms import LayerTerm
from site_client.training.patient_norms import squared_norms
from site_client.training.recorded_backprops import RecordedBackprops
from site_client.training.recurrent_backprops import recurrent_terms
from site_client.training.workspace import Workspace

Terms: TypeAlias = Callable[["Batch"], Sequence[LayerTerm]]
WriteClippedSum: TypeAlias = Callable[["Batch"], None]
"""Write the sum of clipped patient gradients into every trainable parameter's `.grad`."""
ChooseClippedSum: TypeAlias = Callable[[nn.Module, Clipping], WriteClippedSum]
"""What `choose_clipped_sum` does; the privacy audit passes one that watches it."""


@dataclass(frozen=True)
class Batch:
    """The patients of one step; there may be none.

    Args:
        x: [patients, columns], or with samples of a patient [patients, samples, columns]; with time
            bins a further axis before the columns.
        y: [patients] or [patients, samples].
        weight: like y: each sample's weight in its patient's loss; a sample that is padding has 0.
        workspace: where chosen patients are gathered; the next choice overwrites the one before.
            None: each choice is its own.
    """

    x: torch.Tensor
    y: torch.Tensor
    weight: torch.Tensor
    workspace: Workspace | None = None

    def of(self, chosen: torch.Tensor) -> Batch:
        """Return the chosen patients, by index, or by mask where there is no workspace."""
        if self.workspace is None:
            return Batch(self.x[chosen], self.y[chosen], self.weight[chosen])
        x, y, weight = (
            _gathered(values, chosen, self.workspace, name)
            for name, values in (("x", self.x), ("y", self.y), ("weight", self.weight))
        )
        return Batch(x, y, weight)


def _squared_norms(terms: Sequence[LayerTerm]) -> torch.Tensor:
    return squared_norms([part for term in terms for part in term.norm_parts()])


def _gathered(
    values: torch.Tensor, index: torch.Tensor, workspace: Workspace, name: str
) -> torch.Tensor:
    place = workspace.take(name, len(index), *values.shape[1:], like=values)
    return torch.index_select(values, 0, index, out=place)


def choose_clipped_sum(model: nn.Module, clipping: Clipping) -> WriteClippedSum:
    """Return the fastest exact way for a model whose parameters have their `.grad` in place."""
    if type(model) is LogisticRegressionModel:
        return BookKeepingSum(model, PerceptronBackprops([model.linear]).terms, clipping)
    if type(model) is MultilayerPerceptronModel:
        return BookKeepingSum(model, PerceptronBackprops(list(model.layers)).terms, clipping)
    if type(model) is ResidualPerceptronModel:
        return BookKeepingSum(model, ResidualBackprops(model).terms, clipping)
    if type(model) is GatedRecurrentModel:
        workspace = Workspace()
        return BookKeepingSum(
            model, lambda batch: recurrent_terms(model, batch, workspace), clipping
        )
    if RecordedBackprops.covers(model):
        return BookKeepingSum(model, RecordedBackprops(model).terms, clipping)
    # Imported here: Opacus takes a second to load.
    from site_client.training.stock_clipped_sum import StockClippedSum

    return StockClippedSum(model, clipping)


class BookKeepingSum:
    """One forward pass, one backward pass to the layers' outputs, then norms and sums.

    A patient whose gradient is not finite (an overflow that a hostile model can provoke) has a
    share of zero, which is within the bound, and keeps its row: the others' arithmetic is the same.

    Args:
        model: whose trainable parameters' `.grad`s are written.
        terms: gives the layer terms of a batch that is not empty.
        clipping: the rule.
    """

    def __init__(self, model: nn.Module, terms: Terms, clipping: Clipping) -> None:
        self._trainable = [p for p in model.parameters() if p.requires_grad]
        self._terms = terms
        self._clipping = clipping

    def __call__(self, batch: Batch) -> None:
        """Write the clipped sum; see `WriteClippedSum`."""
        if len(batch.y) == 0:
            for parameter in self._trainable:
                gradient_of(parameter).zero_()
            return
        self._write_sums(self._terms(batch))

    @torch.inference_mode()
    def _write_sums(self, terms: Sequence[LayerTerm]) -> None:
        squared = _squared_norms(terms)
        if not math.isfinite(float(squared.sum())):
            is_finite = torch.isfinite(squared)
            for term in terms:
                term.clear(~is_finite)
            squared = _squared_norms(terms)
        factors = self._clipping.factors(squared)
        for term in terms:
            term.write_sum(factors)
