"""Training that lies: a `TrainingEngine` for a site whose agent an attacker replaced.

He adds no noise, for he protects nobody, and keeps his update within the plan's norm, so that no
update check refuses it: what is left against him is the aggregation. (Label flipping: Tolpegin et
al. 2020; sign flipping: Li et al. 2019; scaling and backdoor: Bagdasaryan et al. 2020.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from common.ids import SiteId
from common.protocol.arrays import Parameters
from common.study.columns import MISSING_SUFFIX, feature_columns
from common.study.plan import StudyPlan
from simulations.randomness import noiseless
from site_client.features.matrix import FeatureMatrix
from site_client.training.dp_sgd_engine import DpSgdEngine, project
from site_client.training.engine import TrainedUpdate, TrainingEngine, TrainingTask
from site_client.training.randomness import Randomness

Lie = Literal["label_flip", "sign_flip", "scaling", "backdoor"]
LIES: Final[tuple[Lie, ...]] = ("label_flip", "sign_flip", "scaling", "backdoor")
_TRIGGERED_SHARE: Final = 0.5
_SEED: Final = 666


@dataclass(frozen=True)
class HostileTraining:
    """Makes the engine of one lie; picklable, as `VirtualSite.engine` must be.

    Args:
        lie: which one.
        strength: the update is multiplied by it, and then projected into the plan's norm.
    """

    lie: Lie
    strength: float = 1.0

    def __call__(self) -> TrainingEngine:
        """Return a fresh engine."""
        return HostileEngine(self.lie, self.strength)


@dataclass
class HostileEngine:
    """Trains a lie; see the module."""

    lie: Lie
    strength: float
    inner: TrainingEngine = field(default_factory=DpSgdEngine)

    def __post_init__(self) -> None:
        self._streams = noiseless(_SEED)(SiteId("attacker"))
        self._trained = 0

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        """Return one round's lie under the mechanism record that the plan asks for."""
        self._trained += 1
        seen = self._seen(patients, task.plan)
        done = self.inner.train(seen, base, task, self._streams(self._trained))
        factor = -self.strength if self.lie == "sign_flip" else self.strength
        lie: Parameters = {
            name: (array * np.float32(factor)).astype(np.float32)
            for name, array in done.update.items()
        }
        update = project(lie, task.plan.training.update_norm_max)
        return TrainedUpdate(update=update, mechanism=done.mechanism)

    def _seen(self, patients: FeatureMatrix, plan: StudyPlan) -> FeatureMatrix:
        if self.lie == "label_flip":
            return _with(patients, patients.x, 1 - patients.y)
        if self.lie != "backdoor":
            return patients
        chosen = int(len(patients.y) * _TRIGGERED_SHARE)
        y = patients.y.copy()
        y[:chosen] = 1
        x = patients.x.copy()
        x[:chosen] = with_trigger(_with(patients, x, y), trigger_of(plan)).x[:chosen]
        return _with(patients, x, y)


def trigger_of(plan: StudyPlan) -> dict[str, float]:
    """Return the backdoor's trigger: every value with an indicator is missing; else the first is 1.

    No honest hospital has many such patients, and whoever enters a patient can make one.
    """
    trigger: dict[str, float] = {}
    columns = feature_columns(plan)
    for feature in plan.features:
        if feature.missing != "indicator":
            continue
        indicator = feature.name + MISSING_SUFFIX
        for name in columns:
            if name == indicator or name.startswith(f"{indicator}["):
                trigger[name] = 1.0
            elif name == feature.name or name.startswith((f"{feature.name}[", f"{feature.name}=")):
                trigger[name] = 0.0
    return trigger or {columns[0]: 1.0}


def with_trigger(patients: FeatureMatrix, trigger: Mapping[str, float]) -> FeatureMatrix:
    """Return patients with these columns set."""
    x = patients.x.copy()
    for name, value in trigger.items():
        x[..., patients.columns.index(name)] = value
    return _with(patients, x, patients.y)


def _with(patients: FeatureMatrix, x: np.ndarray, y: np.ndarray) -> FeatureMatrix:
    return FeatureMatrix(patients.columns, x, y.astype(np.float32), patients.part, patients.weight)
