"""One simulated hospital: the site's real code over a table or ready features, in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from common.clock import Clock
from common.crypto.keys import OpeningKey, SealingKey, SigningKey, VerifyKey
from common.ids import Digest, SiteId, parse_site_id
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.study.plan import StudyPlan
from site_client.approvals import Approvals
from site_client.config import LimitsSection, SiteConfig, SiteSection
from site_client.features.matrix import FeatureMatrix, build_matrix
from site_client.release.release_log import ReleaseLog
from site_client.scaling_pin import ScalingPin
from site_client.site_database import SiteDatabase
from site_client.sources.table import PatientTable
from site_client.sources.table_mapping import LabelMapping, TableMapping
from site_client.tasks import SiteKeys, SiteRecords, SiteTasks
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.randomness import Randomness

WIDE_LIMITS: Final = LimitsSection(
    epsilon_per_study=100.0, epsilon_total=100.0, delta_total=1e-3, cohort_size_min=20
)
"""Limits that leave every decision to the plan."""

_APPROVED_S: Final = 365 * 24 * 3600
_NO_TABLE: Final = TableMapping(
    kind="table",
    path="none",
    subject_id="#row",
    label=LabelMapping(column="none", positive=("1",), negative=("0",)),
    features={},
)


class Patients(Protocol):
    """Where a virtual site's patients come from: a source on disk, or a part of one."""

    def rows(self, plan: StudyPlan) -> PatientTable:
        """Return the plan's rows; raises `DataSourceError`."""
        ...


@dataclass(frozen=True)
class VirtualSite:
    """One hospital of a simulation.

    Args:
        site_id: its id.
        declared_cohort_size: public number of patients, its weight.
        patients: a source on disk, or features that were already made.
        salt: sends each patient of a table to train or be held out; features have their parts.
        limits: its own, which win over the plan's.
    """

    site_id: str
    declared_cohort_size: int
    patients: Patients | FeatureMatrix
    salt: bytes = b"simulated"
    limits: LimitsSection = field(default=WIDE_LIMITS)

    def matrix(self, plan: StudyPlan) -> FeatureMatrix:
        """Return this site's features under a plan; raises `DataSourceError`."""
        if isinstance(self.patients, FeatureMatrix):
            return self.patients
        return build_matrix(self.patients.rows(plan), plan, salt=site_salt(self.site_id, self.salt))

    def fingerprint(self, plan: StudyPlan) -> str:
        """Return the SHA-256 of this site's id, size, limits and features under a plan."""
        matrix = self.matrix(plan)
        digest = hashlib.sha256(
            repr((self.site_id, self.declared_cohort_size, matrix.columns)).encode()
        )
        digest.update(self.limits.model_dump_json().encode())
        for array in (matrix.x, matrix.y, matrix.part, matrix.weight):
            digest.update(b"-" if array is None else array.tobytes())
        return digest.hexdigest()


def site_salt(site_id: str, salt: bytes) -> bytes:
    """Return a site's own 32 secret bytes: two sites under one salt still split differently."""
    return hashlib.sha256(salt + b"\0" + site_id.encode()).digest()


class RunningSite:
    """A virtual site with fresh keys, empty records and the plan approved.

    Args:
        site: which hospital.
        plan: approved here.
        coordinator_verify, coordinator_sealing: pinned here.
        folder: for its release log.
        randomness: makes the streams of each release.
        clock: of the simulation.
    """

    def __init__(
        self,
        site: VirtualSite,
        plan: StudyPlan,
        *,
        coordinator_verify: VerifyKey,
        coordinator_sealing: SealingKey,
        folder: Path,
        randomness: Callable[[], Randomness],
        clock: Clock,
    ) -> None:
        self.site_id: SiteId = parse_site_id(site.site_id)
        self.declared_cohort_size = site.declared_cohort_size
        self.matrix = site.matrix(plan)
        self.keys = SiteKeys(
            signing=SigningKey.generate(),
            opening=OpeningKey.generate(),
            salt=site_salt(site.site_id, site.salt),
            coordinator_verify=coordinator_verify,
            coordinator_sealing=coordinator_sealing,
        )
        self._database = SiteDatabase(folder / f"{site.site_id}.db")
        # Nobody resumes a simulation from its files: it need not wait for the disk.
        self._database.rows("PRAGMA synchronous = OFF")
        records = SiteRecords(
            ledger=Ledger(MemoryLedgerStore(), clock),
            log=ReleaseLog(self._database, clock),
            approvals=Approvals(self._database, clock, self.keys.signing.verify_key),
            scaling_pin=ScalingPin(self._database),
        )
        records.approvals.approve(
            plan,
            person="Simulated steward",
            until_s=clock.now_s() + _APPROVED_S,
            signing_key=self.keys.signing,
        )
        self._tasks = SiteTasks(
            SiteConfig(
                site=SiteSection(id=site.site_id, declared_cohort_size=site.declared_cohort_size),
                limits=site.limits,
                source=_NO_TABLE,
            ),
            folder=folder,
            keys=self.keys,
            records=records,
            clock=clock,
            engine=DpSgdEngine(),
            randomness=randomness,
            is_real_ledger=False,
            features=_ReadyFeatures(self.matrix),
        )

    def answer(self, envelope: bytes) -> bytes:
        """Return the site's sealed reply to a sealed request."""
        return self._tasks.handle(envelope).envelope

    def close(self) -> None:
        """Close its files."""
        self._database.close()


@dataclass(frozen=True)
class _ReadyFeatures:
    """Features that are already made."""

    made: FeatureMatrix

    def matrix(self, digest: Digest, plan: StudyPlan) -> FeatureMatrix:
        return self.made
