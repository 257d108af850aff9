"""What training takes and gives: the seam for another engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.privacy.mechanism import DpSgdSteps
from common.protocol.arrays import Parameters
from common.study.plan import StudyPlan
from site_client.features.matrix import FeatureMatrix
from site_client.training.randomness import Randomness


@dataclass(frozen=True)
class TrainingTask:
    """One round's local training.

    Args:
        plan: learning rate, clipping norm, model.
        mechanism: how many steps, how much noise, which sampling probability, whose patients.
        declared_cohort_size: public number of patients at this site.
    """

    plan: StudyPlan
    mechanism: DpSgdSteps
    declared_cohort_size: int


@dataclass(frozen=True)
class TrainedUpdate:
    """An update and the record of the noise that is in it, which never part.

    Args:
        update: trained minus received parameters.
        mechanism: what was done, for the ledger.
    """

    update: Parameters
    mechanism: DpSgdSteps


class TrainingEngine(Protocol):
    """Anything that trains one round with exactly the task's mechanism."""

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        """Return the update of one round.

        Args:
            patients: those who train, none of the held-out.
            base: the received model.
        """
        ...
