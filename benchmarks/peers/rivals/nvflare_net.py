"""The common job's model as a class, as NVIDIA FLARE wants it."""

from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 1)
        )
