"""One simulated site's agent, opened from its folder: the product's own tasks, gate and ledger."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.clock import Clock
from common.ids import SiteId
from common.privacy.ledger import Ledger
from common.protocol.envelope import read_header
from common.study.plan import StudyPlan
from simulations.engine_memory import EngineMemory, remembered
from simulations.randomness import SiteRandomness
from simulations.run_keys import RunKeys
from simulations.stored_features import StoredFeatures
from site_client.approvals import Approvals
from site_client.config import LimitsSection, SiteConfig, SiteSection
from site_client.release.ledger_file import SqliteLedgerStore
from site_client.release.release_log import ReleaseLog
from site_client.scaling_pin import ScalingPin
from site_client.site_database import SiteDatabase
from site_client.sources.table_mapping import LabelMapping, TableMapping
from site_client.tasks import SiteKeys, SiteRecords, SiteTasks
from site_client.training.engine import TrainingEngine
from site_client.training.randomness import Randomness

_APPROVED_S: Final = 365 * 24 * 3600
_NO_TABLE: Final = TableMapping(
    kind="table",
    path="none",
    subject_id="#row",
    label=LabelMapping(column="none", positive=("1",), negative=("0",)),
    features={},
)


@dataclass(frozen=True)
class AgentFolder:
    """Where a simulated site's files lie.

    Args:
        home: of this site.
    """

    home: Path

    @property
    def features(self) -> Path:
        """Its features."""
        return self.home / "features.safetensors"

    @property
    def database(self) -> Path:
        """Ledger, release log and approvals."""
        return self.home / "site.db"

    @property
    def memory(self) -> Path:
        """What its trainer keeps from round to round."""
        return self.home / "optimizer.safetensors"


@dataclass(frozen=True)
class AgentSettings:
    """What is decided about a simulated site before the run.

    Args:
        declared_cohort_size: public.
        limits: its own.
        randomness: of all sites.
        is_durable: whether each commit waits for the disk, as at a hospital.
    """

    declared_cohort_size: int
    limits: LimitsSection
    randomness: SiteRandomness
    is_durable: bool = False


class SimulatedAgent:
    """A site that answers, until it is closed.

    Args:
        site_id: its id.
        folder: its files.
        settings: of the site.
        keys: of the run.
        engine: trains; many sites may share one.
        engine_lock: held while it trains.
        clock: of the simulation.
    """

    def __init__(
        self,
        site_id: SiteId,
        folder: AgentFolder,
        settings: AgentSettings,
        *,
        keys: RunKeys,
        engine: TrainingEngine,
        engine_lock: threading.Lock,
        clock: Clock,
    ) -> None:
        self._streams = settings.randomness(site_id)
        self._round = 0
        self._database = _open_database(folder.database, is_durable=settings.is_durable)
        signing, opening = keys.site(site_id)
        coordinator = keys.coordinator
        self._signing, self._clock = signing, clock
        self._approvals = Approvals(self._database, clock, signing.verify_key)
        self._tasks = SiteTasks(
            SiteConfig(
                site=SiteSection(id=site_id, declared_cohort_size=settings.declared_cohort_size),
                limits=settings.limits,
                source=_NO_TABLE,
            ),
            folder=folder.home,
            keys=SiteKeys(
                signing=signing,
                opening=opening,
                salt=b"",  # its features were made before
                coordinator_verify=coordinator.signing.verify_key,
                coordinator_sealing=coordinator.opening.sealing_key,
            ),
            records=SiteRecords(
                ledger=Ledger(SqliteLedgerStore(self._database), clock),
                log=ReleaseLog(self._database, clock),
                approvals=self._approvals,
                scaling_pin=ScalingPin(self._database),
            ),
            clock=clock,
            engine=remembered(engine, engine_lock, EngineMemory(folder.memory)),
            randomness=self._fresh,
            is_real_ledger=False,
            features=StoredFeatures(folder.features),
        )

    def approve(self, plan: StudyPlan) -> None:
        """Let its steward approve the plan, unless an approval stands in its records."""
        if self._approvals.all_approvals():
            return
        self._approvals.approve(
            plan,
            person="Simulated steward",
            until_s=self._clock.now_s() + _APPROVED_S,
            signing_key=self._signing,
        )

    def answer(self, envelope: bytes) -> bytes:
        """Return the site's sealed reply to a sealed request."""
        self._round = read_header(envelope).round_number
        return self._tasks.handle(envelope).envelope

    def close(self) -> None:
        """Close its files."""
        self._database.close()

    def _fresh(self) -> Randomness:
        return self._streams(self._round)


def begin_records(folder: AgentFolder, template: Path) -> None:
    """Give a site records in which nothing stands yet; a site that has some is left alone.

    Args:
        folder: of the site.
        template: an empty site's database, from `write_template`.
    """
    if folder.database.exists():
        return
    begun = folder.home / "begun.db"
    begun.write_bytes(template.read_bytes())
    begun.replace(folder.database)


def write_template(path: Path) -> None:
    """Write the database of a site that has no records yet: making its tables takes longest."""
    SiteDatabase(path).close()


def _open_database(path: Path, *, is_durable: bool) -> SiteDatabase:
    database = SiteDatabase(path)
    # Of many sites that are open together: a site's records of a few rounds.
    database.rows("PRAGMA cache_size = -256")
    if not is_durable:
        # What was committed survives a kill of the process, not a power cut: nobody is harmed.
        database.rows("PRAGMA synchronous = OFF")
    return database
