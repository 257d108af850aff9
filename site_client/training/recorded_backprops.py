"""Layer terms of any model of linear, layer-normalisation and embedding layers, by recording it.

One forward pass records each layer's input and output; one backward pass stops at these outputs,
so autograd never computes a weight's gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import nn

from common.errors import InternalError
from site_client.training.layer_terms import EmbeddingTerm, LayerNormTerm, LayerTerm, LinearTerm

if TYPE_CHECKING:
    from site_client.training.clipped_sum import Batch

_KNOWN: Final = (nn.Linear, nn.LayerNorm, nn.Embedding)


class RecordedBackprops:
    """Records a model's layers as it runs.

    Args:
        model: one that `covers` accepts; it takes x and returns logits [..., 1].
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._calls: list[tuple[nn.Module, torch.Tensor, torch.Tensor]] = []
        for layer in _trainable_layers(model):
            layer.register_forward_hook(self._record)

    @staticmethod
    def covers(model: nn.Module) -> bool:
        """Whether every trainable parameter is a known layer's own, and no other's as well."""
        layers = _trainable_layers(model)
        counted = [id(p) for layer in layers for p in layer.parameters(recurse=False)]
        return (
            bool(layers)
            and len(counted) == len(set(counted))
            and all(type(layer) in _KNOWN for layer in layers)
            and not any(isinstance(layer, nn.Embedding) and layer.max_norm for layer in layers)
            and not any(
                isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) > 1
                for layer in layers
            )
        )

    def terms(self, batch: Batch) -> list[LayerTerm]:
        """Return a batch's terms.

        Raises:
            InternalError: when a trainable layer did not run, or ran twice: its parameters' patient
                gradients would be wrong.
        """
        self._calls.clear()
        with torch.enable_grad():
            logits = self._model(batch.x).squeeze(-1)
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits, batch.y, weight=batch.weight, reduction="sum"
            )
            calls = list(self._calls)
            self._calls.clear()
            if {id(layer) for layer, _, _ in calls} != {
                id(layer) for layer in _trainable_layers(self._model)
            } or len({id(layer) for layer, _, _ in calls}) != len(calls):
                raise InternalError(
                    "a model's layers cannot be recorded",
                    expected="each trainable layer to run once in a forward pass",
                    arrived="one that ran twice or not at all",
                    todo="report this as a fault; nothing was released",
                )
            outers = torch.autograd.grad(losses, [output for _, _, output in calls])
        with torch.no_grad():
            return [
                _term(layer, inner, outer)
                for (layer, inner, _), outer in zip(calls, outers, strict=True)
            ]

    def _record(self, layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        if torch.is_grad_enabled():
            self._calls.append((layer, inputs[0].detach(), output))


def _trainable_layers(model: nn.Module) -> list[nn.Module]:
    return [
        layer
        for layer in model.modules()
        if any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
    ]


def _term(layer: nn.Module, inner: torch.Tensor, outer: torch.Tensor) -> LayerTerm:
    if isinstance(layer, nn.Linear):
        if inner.dim() > 3:
            inner = inner.reshape(len(inner), -1, inner.shape[-1])
            outer = outer.reshape(len(outer), -1, outer.shape[-1])
        return LinearTerm(inner, outer, layer.weight, layer.bias)
    if isinstance(layer, nn.Embedding):
        return EmbeddingTerm(inner, outer, layer.weight, layer.padding_idx)
    norm = cast("nn.LayerNorm", layer)  # `covers` allows no other
    normalized = nn.functional.layer_norm(inner, norm.normalized_shape, None, None, norm.eps)
    return LayerNormTerm(normalized, outer, norm.weight, norm.bias)
