"""A hospital of a scenario: the site's real code over files, so that it can die and come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common.clock import FixedClock
from common.crypto.keys import OpeningKey, SealingKey, SigningKey, VerifyKey
from common.ids import Digest, SiteId, parse_site_id
from common.privacy.ledger import Ledger
from common.protocol.arrays import Parameters
from common.study.plan import StudyPlan
from simulations.virtual_site import NO_TABLE, VirtualSite, site_salt
from site_client.approvals import Approvals
from site_client.config import SiteConfig, SiteSection
from site_client.features.matrix import FeatureMatrix
from site_client.release.ledger_file import SqliteLedgerStore
from site_client.release.release_log import ReleaseLog
from site_client.scaling_pin import ScalingPin
from site_client.site_database import SiteDatabase
from site_client.tasks import SiteKeys, SiteRecords, SiteTasks
from site_client.training.engine import TrainedUpdate, TrainingEngine, TrainingTask
from site_client.training.randomness import Randomness

_APPROVED_S = 365 * 24 * 3600


class SiteDied(BaseException):  # noqa: N818 - no error: no code of a site may catch it
    """The site's process ends here, as by kill -9."""


class ScenarioSite:
    """One hospital with its ledger, log and approvals in a file.

    Args:
        site: which hospital.
        plan: approved here.
        coordinator_verify, coordinator_sealing: pinned here.
        folder: of this site, empty.
        randomness: makes the streams of each release.
        now_s: what its clock shows at first.
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
        now_s: int,
    ) -> None:
        self.site_id: SiteId = parse_site_id(site.site_id)
        self.declared_cohort_size = site.declared_cohort_size
        self.clock = FixedClock(now_s)
        self.matrix = site.matrix(plan)
        self.make_engine: Callable[[], TrainingEngine] = site.engine
        self.dies_in_training = False
        self.keys = SiteKeys(
            signing=SigningKey.generate(),
            opening=OpeningKey.generate(),
            salt=site_salt(site.site_id, site.salt),
            coordinator_verify=coordinator_verify,
            coordinator_sealing=coordinator_sealing,
        )
        self._site, self._folder, self._randomness = site, folder, randomness
        self._open()
        self._records.approvals.approve(
            plan,
            person="Simulated steward",
            until_s=now_s + _APPROVED_S,
            signing_key=self.keys.signing,
        )

    @property
    def ledger(self) -> Ledger:
        """The site's ledger."""
        return self._records.ledger

    def answer(self, envelope: bytes) -> bytes:
        """Return the site's sealed reply; raises `SiteDied`, `ProtocolError`."""
        return self._tasks.handle(envelope).envelope

    def restart(self) -> None:
        """Close everything and open it again from the files; what was in memory is gone."""
        self.close()
        self._open()

    def close(self) -> None:
        """Close the files."""
        self._database.close()

    def _open(self) -> None:
        self._database = SiteDatabase(self._folder / "site.db")
        # The process dies in a scenario, never the machine: nothing waits for the disk.
        self._database.rows("PRAGMA synchronous = OFF")
        self._records = SiteRecords(
            ledger=Ledger(SqliteLedgerStore(self._database), self.clock),
            log=ReleaseLog(self._database, self.clock),
            approvals=Approvals(self._database, self.clock, self.keys.signing.verify_key),
            scaling_pin=ScalingPin(self._database),
        )
        self._tasks = SiteTasks(
            SiteConfig(
                site=SiteSection(
                    id=self.site_id, declared_cohort_size=self._site.declared_cohort_size
                ),
                limits=self._site.limits,
                source=NO_TABLE,
            ),
            folder=self._folder,
            keys=self.keys,
            records=self._records,
            clock=self.clock,
            engine=_MortalEngine(self),
            randomness=self._randomness,
            is_real_ledger=False,
            features=_CurrentFeatures(self),
        )


class _MortalEngine:
    """Trains with the site's engine of the moment, or dies."""

    def __init__(self, site: ScenarioSite) -> None:
        self._site = site
        self._made_by: Callable[[], TrainingEngine] = site.make_engine
        self._engine = site.make_engine()

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        """Return the update; raises `SiteDied`."""
        if self._site.dies_in_training:
            self._site.dies_in_training = False
            raise SiteDied
        if self._made_by is not self._site.make_engine:
            self._made_by = self._site.make_engine
            self._engine = self._made_by()
        return self._engine.train(patients, base, task, randomness)


class _CurrentFeatures:
    """The site's patients as they are now."""

    def __init__(self, site: ScenarioSite) -> None:
        self._site = site

    def matrix(self, digest: Digest, plan: StudyPlan) -> FeatureMatrix:
        """Return the features of the moment."""
        return self._site.matrix
