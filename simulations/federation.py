"""Run a study plan in this process: the real coordinator, the real sites, no network.

Keys, sealed envelopes, numbered checks, gate, ledgers and rounds are the product's own; only Flower
is not there. The simulation may look at its virtual patients, so it scores the final model on the
held-out patients exactly, which no real study can.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sqlalchemy import event, insert

from common.clock import Clock, SystemClock
from common.crypto.keys import OpeningKey, SigningKey
from common.errors import ConfigError, RoundFailed
from common.ids import Digest, SiteId, parse_digest
from common.limits import PARAMETERS_BYTES_MAX
from common.privacy.calibration import plan_mechanisms
from common.protocol.arrays import Parameters, decode_parameters
from common.protocol.messages import LedgerStatement
from common.study.contingency import JOINT_ROUND
from common.study.plan import StudyPlan
from common.study.scaling import model_shapes, split_model
from common.study.selection_words import check_trains
from server.books import Books
from server.config import CoordinatorPaths
from server.coordinator import Coordinator, CoordinatorKeys
from server.registry.store import ModelRegistry
from server.relevance import Relevance, rank_candidates
from server.round_book import Answer, Outcome, Round, RoundBook
from server.selection_rounds import SelectionCounts, read_counts
from server.site_channel import Arrived, Missing
from server.site_directory import SiteDirectory
from server.storage.database import Database
from server.storage.tables import metadata
from server.storage.tables import sites as sites_table
from server.study_register import StudyRegister
from simulations.randomness import SiteRandomness, reproducible
from simulations.virtual_site import RunningSite, VirtualSite
from site_client.features.matrix import FeatureMatrix, split
from site_client.features.scaled import scale
from site_client.training.evaluation import score

Progress = Callable[[int, int], None]
"""Called as (rounds begun, rounds of the plan and its final evaluation)."""


@dataclass(frozen=True)
class SiteOutcome:
    """What one site got and gave.

    Args:
        patients_trained, patients_held_out: exact numbers, which a real site would not tell.
        auroc: of the final model on the held-out patients; None when they have one outcome only.
        accuracy: of the same, at a probability of one half; None without held-out patients.
        statement: the site's last ledger statement; None when no release was accepted.
        refusals: round, and number or reason, of each answer that was not accepted.
    """

    site_id: SiteId
    patients_trained: int
    patients_held_out: int
    auroc: float | None
    accuracy: float | None
    statement: LedgerStatement | None
    refusals: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class FederationResult:
    """A finished simulated study.

    Args:
        parameters: of the final model, with its scaling if it has one.
        version: its digest.
        rounds: as the coordinator recorded them, the final evaluation last.
        sites: by id.
    """

    parameters: Parameters
    version: Digest
    rounds: tuple[Round, ...]
    sites: tuple[SiteOutcome, ...]

    @property
    def auroc_mean(self) -> float:
        """Mean of the sites' AUROCs, of those that have one."""
        return float(np.mean([item.auroc for item in self.sites if item.auroc is not None]))

    @property
    def accuracy_mean(self) -> float:
        """Mean of the sites' accuracies, of those that have one."""
        return float(np.mean([item.accuracy for item in self.sites if item.accuracy is not None]))


def run_in_memory(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    *,
    randomness: SiteRandomness | None = None,
    folder: Path | None = None,
    progress: Progress = lambda begun, rounds: None,
) -> FederationResult:
    """Run all rounds of a plan and score the final model.

    Args:
        plan: checked against the plan rules.
        sites: with different ids; as many as the quorum at least.
        randomness: of each site; `reproducible(0)` when not given.
        folder: empty, for the coordinator's books and the sites' logs; removed when not given.
        progress: told before each round.

    Raises:
        RoundFailed: when too few sites answer.
        ConfigError: for two sites of one id.
        PlanError: for a plan that only selects.
    """
    check_trains(plan)
    rounds = plan.training.rounds + 1 + (plan_mechanisms(plan).scaling is not None)
    with run_consortium(
        plan, sites, randomness=randomness, folder=folder, progress=progress, rounds=rounds
    ) as (books, running):
        return _result(plan, books, running)


def select_in_memory(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    *,
    randomness: SiteRandomness | None = None,
    folder: Path | None = None,
) -> tuple[SelectionCounts, tuple[Relevance, ...]]:
    """Run both counts of a plan that selects; return what was counted and the ranking.

    Args, raises: as `run_in_memory`.
    """
    if plan.selection is None:
        raise ConfigError(
            "nothing can be selected",
            expected="a plan with [selection]",
            arrived="a plan that trains",
            todo="run it with `run_in_memory`",
        )
    with run_consortium(plan, sites, randomness=randomness, folder=folder, rounds=JOINT_ROUND) as (
        books,
        _,
    ):
        counts = read_counts(books, books.register.all_studies()[0])
        if counts is None:  # a count without its quorum has raised
            raise RoundFailed(
                "the selection is not complete",
                expected="two complete counts",
                arrived="fewer",
                todo="report this as a fault",
            )
        return counts, rank_candidates(plan, counts.singles, counts.joints)


@contextlib.contextmanager
def run_consortium(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    *,
    randomness: SiteRandomness | None = None,
    folder: Path | None = None,
    progress: Progress = lambda begun, rounds: None,
    rounds: int,
) -> Iterator[tuple[Books, list[RunningSite]]]:
    """Run a plan to its end and give its books and sites while the block lasts.

    Args, raises: as `run_in_memory`.
    """
    if len({site.site_id for site in sites}) != len(sites):
        raise ConfigError(
            "simulated sites are refused",
            expected="a different id for each site",
            arrived="one id twice",
            todo="rename one of the two",
        )
    with _one_thread(), contextlib.ExitStack() as temporary:
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="cohortium-simulation-")
            folder = Path(temporary.enter_context(made))
        with _run(plan, sites, randomness or reproducible(0), folder, progress, rounds) as ran:
            yield ran


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: a batch of a hospital is too small to be worth waking another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _run(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    randomness: SiteRandomness,
    folder: Path,
    progress: Progress,
    rounds: int,
) -> Iterator[tuple[Books, list[RunningSite]]]:
    clock = SystemClock()
    keys = CoordinatorKeys(SigningKey.generate(), OpeningKey.generate())
    (folder / "sites").mkdir(parents=True)
    running = [
        RunningSite(
            site,
            plan,
            coordinator_verify=keys.signing.verify_key,
            coordinator_sealing=keys.opening.sealing_key,
            folder=folder / "sites",
            randomness=randomness(SiteId(site.site_id)),
            clock=clock,
        )
        for site in sites
    ]
    database, books = _open_books(folder / "coordinator", running, clock)
    try:
        study = books.register.register(plan, keys.signing)
        books.register.start_run(study.study_id, "simulation", restarts=0)
        channel = _ProcessChannel(running, rounds=rounds, progress=progress)
        Coordinator(
            books.register.find(study.study_id),
            books=books,
            keys=keys,
            channel=channel,
            clock=clock,
        ).run()
        yield books, running
    finally:
        database.engine.dispose()
        for site in running:
            site.close()


class _ProcessChannel:
    """Carries envelopes to the sites of this process, one after another."""

    def __init__(self, sites: Sequence[RunningSite], *, rounds: int, progress: Progress) -> None:
        self._sites = {site.site_id: site for site in sites}
        self._rounds = rounds
        self._progress = progress
        self._begun = 0

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask each site in turn; every site answers, so the deadline is never met."""
        self._begun += 1
        self._progress(self._begun, self._rounds)
        for site_id, make_envelope in requests.items():
            yield Arrived(site_id, self._sites[site_id].answer(make_envelope()))


def _open_books(home: Path, sites: Sequence[RunningSite], clock: Clock) -> tuple[Database, Books]:
    """Return books in which the sites are enrolled: no certificates, for there is no network."""
    paths = CoordinatorPaths(home)
    paths.models.mkdir(parents=True)
    database = Database(f"sqlite:///{paths.database}")
    event.listen(database.engine, "connect", _do_not_wait_for_disk)
    metadata.create_all(database.engine)
    with database.transaction() as connection:
        connection.execute(
            insert(sites_table),
            [
                {
                    "site_id": site.site_id,
                    "organisation": f"Virtual site {site.site_id}",
                    "contact": "",
                    "verify_key": site.keys.signing.verify_key.to_text(),
                    "sealing_key": site.keys.opening.sealing_key.to_text(),
                    "node_public_key": f"none: {site.site_id}",
                    "certificate": "",
                    "is_active": True,
                    "admitted_at_s": clock.now_s(),
                    "cohort_size_max": site.declared_cohort_size,
                }
                for site in sites
            ],
        )
    rounds = RoundBook(database, paths, clock)
    return database, Books(
        register=StudyRegister(database, clock),
        rounds=rounds,
        sites=SiteDirectory(database, clock),
        registry=ModelRegistry(database, rounds, clock),
    )


def _do_not_wait_for_disk(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


def _result(plan: StudyPlan, books: Books, sites: Sequence[RunningSite]) -> FederationResult:
    study_id = books.register.all_studies()[0].study_id
    rounds = books.rounds.rounds(study_id)
    version = parse_digest(rounds[-1].new_version)
    parameters = decode_parameters(
        books.rounds.read_parameters(version),
        expected=model_shapes(plan),
        bytes_max=PARAMETERS_BYTES_MAX,
    )
    answers = books.rounds.answers(study_id)
    return FederationResult(
        parameters=parameters,
        version=version,
        rounds=rounds,
        sites=tuple(
            _site_outcome(plan, parameters, site, [a for a in answers if a.site_id == site.site_id])
            for site in sorted(sites, key=lambda item: item.site_id)
        ),
    )


def _site_outcome(
    plan: StudyPlan, parameters: Parameters, site: RunningSite, answers: Sequence[Answer]
) -> SiteOutcome:
    trained, held_out = split(site.matrix, plan)
    auroc, accuracy = score_exactly(plan, parameters, held_out)
    statements = [a.detail["statement"] for a in answers if a.outcome is Outcome.ACCEPTED]
    return SiteOutcome(
        site_id=site.site_id,
        patients_trained=len(trained.y),
        patients_held_out=len(held_out.y),
        auroc=auroc,
        accuracy=accuracy,
        statement=_statement(statements[-1]) if statements else None,
        refusals=tuple(
            (a.round_number, a.number) for a in answers if a.outcome is not Outcome.ACCEPTED
        ),
    )


def score_exactly(
    plan: StudyPlan, parameters: Parameters, patients: FeatureMatrix
) -> tuple[float | None, float | None]:
    """Return AUROC and accuracy without noise, each None where these patients cannot tell it.

    Args:
        plan: of the study.
        parameters: of the model, with its scaling if it has one.
        patients: held out.
    """
    if len(patients.y) == 0:
        return None, None
    trained, scaling = split_model(parameters)
    probabilities = score(plan, trained, scale(patients, plan, scaling).x)
    accuracy = float(np.mean((probabilities >= 0.5) == (patients.y == 1)))
    if patients.y.min() == patients.y.max():
        return None, accuracy
    return float(roc_auc_score(patients.y, probabilities)), accuracy


def _statement(record: Mapping[str, str]) -> LedgerStatement:
    return LedgerStatement(
        epsilon_spent=float(record["epsilon_spent"]),
        epsilon_remaining=float(record["epsilon_remaining"]),
        delta=float(record["delta"]),
        ledger_head=parse_digest(record["ledger_head"]),
    )
