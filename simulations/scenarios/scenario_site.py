"""A hospital of a scenario: the site's real code over files, so that it can die and come back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.clock import FixedClock
from common.ids import SiteId, parse_site_id
from common.privacy.ledger import Ledger
from common.protocol.arrays import Parameters
from common.study.plan import StudyPlan
from simulations.randomness import SiteRandomness
from simulations.run_keys import RunKeys
from simulations.simulated_agent import AgentFolder, AgentSettings, SimulatedAgent, begin_records
from simulations.stored_features import write_features
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix
from site_client.release.ledger_file import SqliteLedgerStore
from site_client.site_database import SiteDatabase
from site_client.training.engine import TrainedUpdate, TrainingEngine, TrainingTask
from site_client.training.randomness import Randomness


class SiteDied(BaseException):  # no Exception: no code of a site may catch it
    """The site's process ends here, as by kill -9."""


class ScenarioSite:
    """One hospital with its ledger, log, approvals and patients in files.

    Args:
        site: which hospital.
        plan: approved here.
        keys: of the run.
        home: of this site, which exists and is empty.
        template: an empty site's database.
        randomness: of all sites.
        clock: its own, which can jump.

    Attributes:
        matrix: its patients now.
        dies_in_training: whether its next training ends its process.
    """

    def __init__(
        self,
        site: VirtualSite,
        plan: StudyPlan,
        *,
        keys: RunKeys,
        home: Path,
        template: Path,
        randomness: SiteRandomness,
        clock: FixedClock,
    ) -> None:
        self.site_id: SiteId = parse_site_id(site.site_id)
        self.declared_cohort_size = site.declared_cohort_size
        self.clock = clock
        self.matrix = site.matrix(plan)
        self.dies_in_training = False
        self._settings = AgentSettings(site.declared_cohort_size, site.limits, randomness)
        self._folder, self._keys = AgentFolder(home), keys
        self._make_engine: Callable[[], TrainingEngine] = site.engine
        write_features(self._folder.features, self.matrix)
        begin_records(self._folder, template)
        self._agent = self._open()
        self._agent.approve(plan)

    def answer(self, envelope: bytes) -> bytes:
        """Return the site's sealed reply; raises `SiteDied`, `ProtocolError`."""
        return self._agent.answer(envelope)

    def ledger(self) -> Ledger:
        """Return the site's ledger as it is on disk, read by nobody else before."""
        database = SiteDatabase(self._folder.database)
        try:
            store = SqliteLedgerStore(database)
            return Ledger(_ReadAlready(tuple(store.read_all())), self.clock)
        finally:
            database.close()

    def restart(self) -> None:
        """Close everything and open it again from the files; what was in memory is gone."""
        self._agent.close()
        self._agent = self._open()

    def change_patients(self, matrix: FeatureMatrix) -> None:
        """Let the site have other patients from now on."""
        self.matrix = matrix
        write_features(self._folder.features, matrix)
        self.restart()

    def change_training(self, make_engine: Callable[[], TrainingEngine]) -> None:
        """Let the site train otherwise from now on."""
        self._make_engine = make_engine
        self.restart()

    def close(self) -> None:
        """Close the files."""
        self._agent.close()

    def _open(self) -> SimulatedAgent:
        return SimulatedAgent(
            self.site_id,
            self._folder,
            self._settings,
            keys=self._keys,
            engine=_MortalEngine(self, self._make_engine()),
            engine_lock=threading.Lock(),
            clock=self.clock,
        )


@dataclass
class _MortalEngine:
    """Trains with the site's engine, or dies."""

    site: ScenarioSite
    engine: TrainingEngine

    def train(
        self, patients: FeatureMatrix, base: Parameters, task: TrainingTask, randomness: Randomness
    ) -> TrainedUpdate:
        """Return the update; raises `SiteDied`."""
        if self.site.dies_in_training:
            self.site.dies_in_training = False
            raise SiteDied
        return self.engine.train(patients, base, task, randomness)


@dataclass(frozen=True)
class _ReadAlready:
    """The entries of a ledger, which nobody appends to."""

    entries: tuple[bytes, ...]

    def append(self, sequence: int, entry: bytes) -> None:
        """Never: this ledger is only read."""
        raise AssertionError("a ledger that is only read")

    def read_all(self) -> tuple[bytes, ...]:
        """Return all entries."""
        return self.entries
