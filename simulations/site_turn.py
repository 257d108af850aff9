"""The sites of one run in their folders: any process opens a site for its turn and closes it.

Few sites stay open between their turns; of a thousand, the rest hold neither file nor memory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from common.clock import SystemClock
from common.errors import ConfigError
from common.ids import SiteId, parse_site_id
from common.privacy.accountant import forget_distributions
from common.study.plan import StudyPlan
from simulations.batched.training_table import SiteTable, TrainingTable
from simulations.randomness import SiteRandomness
from simulations.run_keys import RunKeys
from simulations.simulated_agent import (
    AgentFolder,
    AgentSettings,
    SimulatedAgent,
    begin_records,
    write_template,
)
from simulations.stored_features import read_features, write_features
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.engine import TrainingEngine

OPEN_MAX: Final = 64
"""Sites that a process keeps open between their turns: three files each, and a parsed ledger."""


@dataclass(frozen=True)
class SimulatedSite:
    """What any process must know of a site besides its folder.

    Args:
        settings: of its agent.
        engine: makes its trainer.
    """

    settings: AgentSettings
    engine: Any  # Callable[[], TrainingEngine]: mypy takes a callable field for a method


class SitesInFolder:
    """The sites of a run; picklable, and each process opens them for itself.

    Args:
        folder: of the run.
        plan: approved by each site.
        sites: by id, in the order in which they are aggregated.
        batched: whether sites that are asked together train together; None: where that pays.
    """

    def __init__(
        self,
        folder: Path,
        plan: StudyPlan,
        sites: Mapping[SiteId, SimulatedSite],
        *,
        batched: bool | None = None,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.sites = dict(sites)
        self.batched = batched
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: nothing that is open here."""
        return {
            "folder": self.folder,
            "plan": self.plan,
            "sites": self.sites,
            "batched": self.batched,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with nothing open."""
        self.__dict__.update(state)
        self._begin()

    def answer(self, site_id: SiteId, envelope: bytes) -> bytes:
        """Return one site's sealed reply: one turn, after which the site may be closed again."""
        with self.opened(site_id) as agent:
            return agent.answer(envelope)

    def answer_together(self, asked: Mapping[SiteId, bytes]) -> Iterator[tuple[SiteId, bytes]]:
        """Yield the replies of sites that were asked together, in the order asked.

        Args:
            asked: envelope by site.
        """
        answers = {
            site_id: partial(self.answer, site_id, envelope) for site_id, envelope in asked.items()
        }
        if self.batched is False:
            yield from ((site_id, answer()) for site_id, answer in answers.items())
        else:
            yield from self._table.answer_together(answers)
        # Those of this round: the next one has others, and memory would grow with rounds.
        forget_distributions()

    def sit_at(self, table: SiteTable) -> None:
        """Let sites that this process opens from now on train at another table."""
        self._table = table

    @contextmanager
    def opened(self, site_id: SiteId) -> Iterator[SimulatedAgent]:
        """Give a site's agent for one turn, to one thread at a time."""
        with self._lock:
            agent = self._kept.get(site_id)
        if agent is None:
            agent = self._open(site_id)
        try:
            yield agent
        finally:
            self._put_back(site_id, agent)

    def features(self, site_id: SiteId) -> FeatureMatrix:
        """Return a site's features; raises `StoreError`."""
        return read_features(self._place(site_id).features)

    def close(self) -> None:
        """Close what is open in this process."""
        with self._lock:
            while self._kept:
                self._kept.popitem()[1].close()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._engine_lock = threading.Lock()
        self._engine = DpSgdEngine()
        self._table = self._own_table()
        self._kept: dict[SiteId, SimulatedAgent] = {}
        self._clock = SystemClock()
        self._keys: RunKeys | None = None

    @staticmethod
    def _own_table() -> SiteTable:
        return TrainingTable()

    def _put_back(self, site_id: SiteId, agent: SimulatedAgent) -> None:
        with self._lock:
            if self._kept.get(site_id) is agent:
                return
            if site_id not in self._kept and len(self._kept) < OPEN_MAX:
                self._kept[site_id] = agent
                return
        agent.close()

    def _open(self, site_id: SiteId) -> SimulatedAgent:
        site, place = self.sites[site_id], self._place(site_id)
        keys = self._keys = self._keys or RunKeys.of_folder(self.folder)
        begin_records(place, template_path(self.folder))
        engine, lock = self._engine_of(site)
        agent = SimulatedAgent(
            site_id,
            place,
            site.settings,
            keys=keys,
            engine=engine,
            engine_lock=lock,
            clock=self._clock,
        )
        agent.approve(self.plan)
        return agent

    def _engine_of(self, site: SimulatedSite) -> tuple[TrainingEngine, threading.Lock]:
        """Return what trains a site, and the lock that is held meanwhile."""
        if site.engine is not DpSgdEngine:
            return site.engine(), threading.Lock()
        if self.batched is False:
            return self._engine, self._engine_lock
        return self._table.seat(), threading.Lock()

    def _place(self, site_id: SiteId) -> AgentFolder:
        return AgentFolder(self.folder / "sites" / site_id)


def prepare_sites(
    sites: Iterable[VirtualSite],
    plan: StudyPlan,
    *,
    folder: Path,
    randomness: SiteRandomness,
    is_durable: bool = False,
) -> SitesInFolder:
    """Write what a run needs of its sites into its folder; what is there already is kept.

    Args:
        sites: with different ids, in the order in which they are aggregated.
        plan: each site approves it when it is first opened.
        folder: of the run.
        randomness: of all sites.
        is_durable: whether each commit of a site waits for the disk, as at a hospital.

    Raises:
        ConfigError: for two sites of one id.
        DataSourceError: for patients that cannot be read.
        StoreError: when the folder cannot be written.
    """
    template = template_path(folder)
    if not template.exists():
        # Patients' features will lie there: nobody else may enter.
        template.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_template(template)
    found: dict[SiteId, SimulatedSite] = {}
    for site in sites:
        site_id = parse_site_id(site.site_id)
        if site_id in found:
            raise ConfigError(
                "simulated sites are refused",
                expected="a different id for each site",
                arrived="one id twice",
                todo="rename one of the two",
            )
        place = AgentFolder(folder / "sites" / site_id)
        if not place.features.exists():
            place.home.mkdir(parents=True, exist_ok=True)
            write_features(place.features, site.matrix(plan))
        settings = AgentSettings(site.declared_cohort_size, site.limits, randomness, is_durable)
        found[site_id] = SimulatedSite(settings, site.engine)
    return SitesInFolder(folder, plan, found)


def template_path(folder: Path) -> Path:
    """Return where a run keeps the empty database of a site."""
    return folder / "sites" / "empty.db"
