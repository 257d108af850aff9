"""Build the named PyTorch model a plan asks for: the only torch import in `common`."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn

from common.protocol.arrays import Parameters
from common.study.columns import bins_of_model, feature_columns
from common.study.plan import (
    GatedRecurrentUnit,
    LogisticRegression,
    ResidualPerceptron,
    StudyPlan,
)


class LogisticRegressionModel(nn.Module):
    """One linear layer: [patients, columns] to logits [patients, 1]."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.linear = nn.Linear(columns, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [patients, 1]."""
        logits: torch.Tensor = self.linear(x)
        return logits


class MultilayerPerceptronModel(nn.Module):
    """Linear layers with tanh between: [patients, columns] to logits [patients, 1].

    tanh bounds activations, which keeps clipped gradients informative (Papernot et al. 2021).
    """

    def __init__(self, columns: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = (columns, *hidden, 1)
        self.layers = nn.ModuleList(
            [nn.Linear(fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(widths)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [patients, 1]."""
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        logits: torch.Tensor = self.layers[-1](x)
        return logits


class ResidualBlock(nn.Module):
    """x + W2 tanh(W1 norm(x)): [patients, width] to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [patients, width]."""
        added: torch.Tensor = self.second(torch.tanh(self.first(self.norm(x))))
        return x + added


class ResidualPerceptronModel(nn.Module):
    """Residual blocks with layer normalisation: [patients, columns] to logits [patients, 1]."""

    def __init__(self, columns: int, width: int, blocks: int) -> None:
        super().__init__()
        self.inlet = nn.Linear(columns, width)
        self.blocks = nn.ModuleList([ResidualBlock(width) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.outlet = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [patients, 1]."""
        x = self.inlet(x)
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.outlet(self.norm(x))
        return logits


class GatedRecurrentModel(nn.Module):
    """One gated recurrent unit over time bins: [patients, bins * columns] to logits [patients, 1].

    A row holds the columns of the oldest bin first.

    The unit has the parameters of Opacus' DPGRU, so that either engine can train it.
    """

    def __init__(self, columns: int, width: int, *, bins: int) -> None:
        super().__init__()
        # Imported here: Opacus takes a second to load and configures the root logger.
        from opacus.layers import DPGRU

        self.bins, self.columns = bins, columns
        self.unit = DPGRU(columns, width, batch_first=True)
        self.outlet = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits [patients, 1] from the state after the last bin."""
        states, _ = self.unit(x.reshape(-1, self.bins, self.columns))
        logits: torch.Tensor = self.outlet(states[:, -1])
        return logits


def build_model(plan: StudyPlan) -> nn.Module:
    """Return the plan's model with torch's own initial values; `load_parameters` sets others."""
    columns = len(feature_columns(plan))
    if isinstance(plan.model, LogisticRegression):
        return LogisticRegressionModel(columns)
    if isinstance(plan.model, ResidualPerceptron):
        return ResidualPerceptronModel(columns, plan.model.width, plan.model.blocks)
    if isinstance(plan.model, GatedRecurrentUnit):
        bins = bins_of_model(plan) or 1
        return GatedRecurrentModel(columns // bins, plan.model.width, bins=bins)
    return MultilayerPerceptronModel(columns, plan.model.hidden)


def load_parameters(model: nn.Module, parameters: Parameters) -> None:
    """Set every parameter of a model from named arrays, in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(parameters[name], dtype=np.float32)))


def read_parameters(model: nn.Module) -> Parameters:
    """Return every parameter of a model as named float32 arrays, copied."""
    return {
        name: parameter.detach().numpy().astype(np.float32, copy=True)
        for name, parameter in model.named_parameters()
    }
