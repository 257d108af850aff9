"""One simulated hospital: whose patients, how many it declares, which limits, which trainer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from common.study.plan import StudyPlan
from simulations.wide_limits import WIDE_LIMITS
from site_client.config import LimitsSection
from site_client.features.matrix import FeatureMatrix, build_matrix
from site_client.sources.table import PatientTable
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.engine import TrainingEngine


class Patients(Protocol):
    """Anything that gives the rows of a plan's patients."""

    def rows(self, plan: StudyPlan) -> PatientTable:
        """Return the plan's rows; raises `DataSourceError`."""
        ...


@dataclass(frozen=True)
class VirtualSite:
    """One hospital of a simulation; picklable when its patients and its engine are.

    Args:
        site_id: its id.
        declared_cohort_size: public number of patients, its weight.
        patients: a source of rows, or features that were already made.
        salt: sends each patient of a table to train or be held out; features have their parts.
        limits: its own, which win over the plan's.
        engine: makes what trains there; a hostile site has another.
    """

    site_id: str
    declared_cohort_size: int
    patients: Patients | FeatureMatrix
    salt: bytes = b"simulated"
    limits: LimitsSection = field(default=WIDE_LIMITS)
    engine: Callable[[], TrainingEngine] = DpSgdEngine

    def matrix(self, plan: StudyPlan) -> FeatureMatrix:
        """Return this site's features under a plan; raises `DataSourceError`."""
        if isinstance(self.patients, FeatureMatrix):
            return self.patients
        return build_matrix(self.patients.rows(plan), plan, salt=site_salt(self.site_id, self.salt))

    def fingerprint(self, plan: StudyPlan) -> str:
        """Return the SHA-256 of all that a run takes from this site, its features included.

        A trainer is told by its name; one without a name (an object that is called) by its repr,
        which must then say all that it does.
        """
        matrix = self.matrix(plan)
        digest = hashlib.sha256()
        engine = getattr(self.engine, "__qualname__", repr(self.engine))
        told = (self.site_id, self.declared_cohort_size, self.limits, engine, matrix.columns)
        digest.update(repr(told).encode())
        for array in (matrix.x, matrix.y, matrix.part, matrix.weight):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()


def site_salt(site_id: str, salt: bytes) -> bytes:
    """Return a site's own 32 secret bytes: two sites under one salt still split differently."""
    return hashlib.sha256(salt + b"\0" + site_id.encode()).digest()
