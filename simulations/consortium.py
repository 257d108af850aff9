"""A whole consortium on this machine: the real coordinator over sites in folders, and an engine."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from common.clock import Clock, SystemClock
from common.ids import SiteId, StudyId, parse_site_id
from common.loading import loaded_set_aside
from common.privacy.calibration import plan_mechanisms
from common.protocol.round_states import RoundState, StudyState
from common.study.contingency import JOINT_ROUND
from common.study.plan import StudyPlan
from server.books import Books
from server.coordinator import Coordinator
from server.site_channel import Arrived, Missing, SiteChannel
from simulations.batched.training_table import SiteTable
from simulations.coordinator_home import enrol_sites, open_home
from simulations.local_engine import local_channel
from simulations.randomness import SiteRandomness
from simulations.run_keys import RunKeys
from simulations.run_record import check_folder, record_run
from simulations.site_order import InSiteOrder
from simulations.site_turn import SitesInFolder, prepare_sites
from simulations.virtual_site import VirtualSite

Progress: TypeAlias = Callable[[int, int], None]
"""Called as (rounds begun, rounds of the plan and its final evaluation)."""


@dataclass(frozen=True)
class EngineSettings:
    """How the sites of a run are worked.

    Args:
        engine: "local" is processes of this machine, "flower" is Flower's simulation on Ray.
        workers: processes; None: as many as cores where that pays, else this one alone.
        batched: whether several small sites train at once as one program; None: where that pays.
        ledger: "memory": a commit of a site survives a kill of the process; "disk": it waits for
            the disk, as at a hospital, which costs time and shows what that costs.
    """

    engine: Literal["local", "flower"] = "local"
    workers: int | None = None
    batched: bool | None = None
    ledger: Literal["memory", "disk"] = "memory"


@dataclass(frozen=True)
class RunOptions:
    """What else a run can be told.

    Args:
        folder: of the run; a temporary one, removed at the end, when None.
        resume: go on with the run that the folder holds, if there is one.
        progress: told before each round.
        around_channel: puts something between coordinator and sites.
        rounds_max: stop cleanly when so many training rounds of the study are complete.
        settings: how the sites are worked.
        table: where the sites train when one process works them; their own when None.
    """

    folder: Path | None = None
    resume: bool = False
    progress: Progress = lambda begun, rounds: None
    around_channel: Callable[[SiteChannel], SiteChannel] = lambda channel: channel
    rounds_max: int | None = None
    settings: EngineSettings = field(default_factory=EngineSettings)
    table: SiteTable | None = None


@contextlib.contextmanager
def run_consortium(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    randomness: SiteRandomness,
    options: RunOptions,
) -> Iterator[tuple[Books, SitesInFolder]]:
    """Run a plan to its end and give its books and sites while the block lasts.

    Args:
        plan: checked against the plan rules.
        sites: with different ids; as many as the quorum at least.
        randomness: of each site's releases.
        options: see there.

    Raises:
        RoundFailed: when too few sites answer.
        ConfigError: for two sites of one id.
        StudyStateError: for a folder with another run, or one that is not to go on.
        ServiceError: when a worker process dies.
    """
    with contextlib.ExitStack() as opened:
        opened.enter_context(loaded_set_aside())
        folder = options.folder
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="cohortium-simulation-")
            folder = Path(opened.enter_context(made))
        folder.mkdir(parents=True, exist_ok=True)
        declared = {parse_site_id(site.site_id): site.declared_cohort_size for site in sites}
        is_there = check_folder(folder, plan, declared, randomness, resume=options.resume)
        prepared = prepare_sites(
            sites,
            plan,
            folder=folder,
            randomness=randomness,
            is_durable=options.settings.ledger == "disk",
        )
        prepared.batched = options.settings.batched
        if options.table is not None:
            prepared.sit_at(options.table)
        opened.callback(prepared.close)
        clock = SystemClock()
        keys = RunKeys.of_folder(folder)
        database, books = opened.enter_context(open_home(folder / "coordinator", clock))
        enrol_sites(database, declared.items(), keys=keys, clock=clock)
        if not is_there:
            record_run(folder, plan, declared, randomness)
        study = books.register.register(plan, keys.coordinator.signing)
        if study.state is not StudyState.FINISHED:
            books.register.start_run(study.study_id, "simulation", restarts=0)
            _run_rounds(study.study_id, prepared, books, keys, clock, options)
        yield books, prepared


def planned_rounds(plan: StudyPlan) -> int:
    """Return how many times a plan asks its sites, retries aside."""
    if plan.selection is not None:
        return JOINT_ROUND
    return plan.training.rounds + 1 + (plan_mechanisms(plan).scaling is not None)


def _run_rounds(
    study_id: StudyId,
    sites: SitesInFolder,
    books: Books,
    keys: RunKeys,
    clock: Clock,
    options: RunOptions,
) -> None:
    def loop(channel: SiteChannel) -> None:
        told = _Telling(channel, books, study_id, options.progress)
        Coordinator(
            books.register.find(study_id),
            books=books,
            keys=keys.coordinator,
            channel=options.around_channel(told),
            clock=clock,
            should_stop=lambda: _is_far_enough(books, study_id, options.rounds_max),
        ).run()

    settings = options.settings
    if settings.engine == "flower":
        from simulations.flower_engine import run_over_flower

        site_ids = sorted(sites.sites)
        run_over_flower(
            lambda channel: loop(InSiteOrder(channel)), sites, site_ids, workers=settings.workers
        )
        return
    with local_channel(sites, workers=settings.workers) as channel:
        loop(channel)


def _is_far_enough(books: Books, study_id: StudyId, rounds_max: int | None) -> bool:
    if rounds_max is None:
        return False
    last = books.rounds.last_complete(study_id)
    return last is not None and last.round_number >= rounds_max


class _Telling:
    """Tells the progress before each round."""

    def __init__(
        self, channel: SiteChannel, books: Books, study_id: StudyId, progress: Progress
    ) -> None:
        self._channel = channel
        self._books = books
        self._study_id = study_id
        self._progress = progress

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask as `SiteChannel` does."""
        rounds = self._books.rounds.rounds(self._study_id)
        complete = sum(item.state is RoundState.COMPLETE for item in rounds)
        plan = self._books.register.find(self._study_id).plan
        self._progress(complete + 1, planned_rounds(plan))
        return self._channel.ask(requests, deadline_s=deadline_s)
