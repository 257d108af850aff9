"""Where a scenario is played: the real coordinator over files, its sites, and the witness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from common.clock import FixedClock
from common.ids import Digest, SiteId, StudyId
from common.protocol.round_states import RoundState, StudyState
from common.study.plan import StudyPlan
from server.books import Books
from server.coordinator import Coordinator, CoordinatorKeys
from server.round_book import Answer
from server.storage.database import Database
from simulations.coordinator_home import enrol_sites, open_home
from simulations.randomness import SiteRandomness
from simulations.run_keys import RunKeys
from simulations.scenarios.faulty_channel import CoordinatorDiedError, FaultyChannel
from simulations.scenarios.scenario_site import ScenarioSite
from simulations.scenarios.witness import Witness
from simulations.simulated_agent import write_template
from simulations.virtual_site import VirtualSite

BEGIN_S: Final = 1_790_000_000
"""What every clock shows at first: a scenario is the same whenever it is played."""


@dataclass
class Stage:
    """All that a scenario acts on and its conditions look at.

    Args:
        plan: of the study.
        study_id: its id.
        books: the coordinator's.
        keys: the coordinator's.
        clock: the coordinator's.
        sites: by id.
        channel: between them.
        witness: at every site's door.
        answers_before: rows in the coordinator's books before the last operation.
        askings_before: askings before the last operation.
        died: whether the coordinator died in the last operation.
        heads: ledger heads seen after each operation, by site.
    """

    plan: StudyPlan
    study_id: StudyId
    books: Books
    keys: CoordinatorKeys
    clock: FixedClock
    sites: dict[SiteId, ScenarioSite]
    channel: FaultyChannel
    witness: Witness
    answers_before: int = 0
    askings_before: int = 0
    died: bool = False
    heads: dict[SiteId, list[Digest]] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether the study has ended."""
        return self.books.register.find(self.study_id).state is StudyState.FINISHED

    def new_answers(self) -> Sequence[Answer]:
        """Return what the coordinator recorded in the last operation."""
        return self.books.rounds.answers(self.study_id)[self.answers_before :]

    def begin_operation(self) -> None:
        """Note where books and witness stand."""
        self.answers_before = len(self.books.rounds.answers(self.study_id))
        self.askings_before = len(self.witness.askings)
        self.died = False

    def run(self, *, rounds_max: int | None) -> None:
        """Let a new coordinator go on until so many more rounds are complete, or to the end.

        Raises:
            RoundFailed: when a round kept missing its quorum.
        """
        register = self.books.register
        if register.find(self.study_id).state is not StudyState.RUNNING:
            register.start_run(self.study_id, "scenario", restarts=0)
        begun = self._rounds_complete()
        coordinator = Coordinator(
            register.find(self.study_id),
            books=self.books,
            keys=self.keys,
            channel=self.channel,
            clock=self.clock,
            should_stop=lambda: (
                rounds_max is not None and self._rounds_complete() >= begun + rounds_max
            ),
        )
        try:
            coordinator.run()
        except CoordinatorDiedError:
            self.died = True

    def _rounds_complete(self) -> int:
        found = self.books.rounds.rounds(self.study_id)
        return sum(item.state is RoundState.COMPLETE for item in found)


@contextmanager
def open_stage(
    plan: StudyPlan, hospitals: Sequence[VirtualSite], folder: Path, *, seed: int
) -> Iterator[Stage]:
    """Give a stage with an enrolled site for each hospital and the study running.

    Args:
        plan: approved by all.
        hospitals: with different ids.
        folder: empty.
        seed: of noise and sampling.
    """
    keys = RunKeys.of_folder(folder)
    coordinator = keys.coordinator
    (folder / "sites").mkdir(parents=True)
    template = folder / "sites" / "empty.db"
    write_template(template)
    clock = FixedClock(BEGIN_S)
    sites: dict[SiteId, ScenarioSite] = {}
    try:
        for hospital in hospitals:
            home = folder / "sites" / hospital.site_id
            home.mkdir()
            site = ScenarioSite(
                hospital,
                plan,
                keys=keys,
                home=home,
                template=template,
                randomness=SiteRandomness(seed),
                clock=FixedClock(BEGIN_S),
            )
            sites[site.site_id] = site
        with open_home(folder / "coordinator", clock) as (database, books):
            yield _stage(plan, sites, database, books, coordinator, clock, keys)
    finally:
        for site in sites.values():
            site.close()


def _stage(
    plan: StudyPlan,
    sites: dict[SiteId, ScenarioSite],
    database: Database,
    books: Books,
    coordinator: CoordinatorKeys,
    clock: FixedClock,
    keys: RunKeys,
) -> Stage:
    declared = [(site_id, site.declared_cohort_size) for site_id, site in sites.items()]
    enrol_sites(database, declared, keys=keys, clock=clock)
    study = books.register.register(plan, coordinator.signing)
    witness = Witness(
        coordinator.opening, {site_id: keys.site(site_id)[0].verify_key for site_id in sites}
    )
    channel = FaultyChannel(sites, plan, witness=witness, clock=clock)
    return Stage(plan, study.study_id, books, coordinator, clock, sites, channel, witness)
