"""A simulated study that is killed at any point goes on to the same model, bit for bit."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from common.errors import StudyStateError
from common.privacy.ledger import Ledger
from common.study.plan import StudyPlan
from server.registry.store import ModelRegistry
from server.round_book import RoundBook
from simulations.engine import EngineSettings, run_study
from simulations.engine_memory import EngineMemory
from simulations.study_result import FederationResult
from simulations.virtual_site import VirtualSite
from site_client.release.release_log import ReleaseLog
from tests.lib.simulated_studies import (
    KillsAfter,
    die_at,
    plan_that_remembers,
    small_plan,
    small_sites,
    start,
)

ALONE = EngineSettings(workers=1)
PLAN = plan_that_remembers()
SITES = small_sites(PLAN)
MOMENTUM = small_plan(training__optimizer={"kind": "sgd", "learning_rate": 0.2, "momentum": 0.9})


@pytest.fixture(scope="module")
def undisturbed() -> FederationResult:
    return run_study(PLAN, SITES, settings=ALONE)


def killed(run: Callable[[], object]) -> None:
    process = start(run)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def is_same(found: FederationResult, wanted: FederationResult) -> bool:
    spent = [
        [None if site.statement is None else site.statement.epsilon_spent for site in result.sites]
        for result in (found, wanted)
    ]
    states = [[item.state for item in result.rounds] for result in (found, wanted)]
    return found.version == wanted.version and spent[0] == spent[1] and states[0] == states[1]


@pytest.mark.parametrize("replies", [[0], [1], [4], [8], [10], [13], [2, 5], [14]])
def test_a_run_killed_between_two_replies_resumes_to_the_same_model(
    tmp_path: Path, replies: Sequence[int], undisturbed: FederationResult
) -> None:
    for count in replies:
        killed(
            lambda count=count: run_study(  # type: ignore[misc]
                PLAN,
                SITES,
                folder=tmp_path,
                settings=ALONE,
                resume=True,
                around_channel=lambda channel: KillsAfter(channel, count),
            )
        )
    resumed = run_study(PLAN, SITES, folder=tmp_path, settings=ALONE, resume=True)
    assert is_same(resumed, undisturbed)


@pytest.mark.parametrize(
    ("owner", "name", "call", "is_done"),
    [
        (EngineMemory, "write", 5, True),  # the optimiser is kept and its release is not logged
        (EngineMemory, "write", 5, False),  # trained, and nothing is kept
        (Ledger, "reserve", 8, True),  # charged, and nothing is trained
        (ReleaseLog, "append_release", 8, True),  # logged, and the ledger does not know
        (ReleaseLog, "keep_reply", 8, True),  # answered, and the answer was lost
        (RoundBook, "record_accepted", 8, True),
        (RoundBook, "store_parameters", 3, True),  # a model of a round that is not complete
        (ModelRegistry, "register", 2, False),  # complete, and not registered
    ],
)
def test_a_run_killed_inside_a_step_resumes_to_the_same_model(
    tmp_path: Path,
    owner: type,
    name: str,
    call: int,
    is_done: bool,
    undisturbed: FederationResult,
) -> None:
    def run() -> None:
        die_at(owner, name, call=call, is_done=is_done)
        run_study(PLAN, SITES, folder=tmp_path, settings=ALONE)

    killed(run)
    resumed = run_study(PLAN, SITES, folder=tmp_path, settings=ALONE, resume=True)
    assert is_same(resumed, undisturbed)


def test_a_run_killed_while_its_folder_is_made_begins_anew(
    tmp_path: Path, undisturbed: FederationResult
) -> None:
    def run() -> None:
        die_at(VirtualSite, "matrix", call=2, is_done=True)
        run_study(PLAN, SITES, folder=tmp_path, settings=ALONE)

    killed(run)
    assert (tmp_path / "sites").exists()
    assert is_same(run_study(PLAN, SITES, folder=tmp_path, settings=ALONE), undisturbed)


def test_momentum_survives_a_kill_that_falls_between_two_rounds(tmp_path: Path) -> None:
    def run() -> None:
        die_at(RoundBook, "open_round", call=3, is_done=False)
        run_study(MOMENTUM, SITES, folder=tmp_path, settings=ALONE)

    killed(run)
    resumed = run_study(MOMENTUM, SITES, folder=tmp_path, settings=ALONE, resume=True)
    assert is_same(resumed, run_study(MOMENTUM, SITES, settings=ALONE))
    # It is the momentum that a run without its memory would lack.
    plain = small_plan(training__optimizer={"kind": "sgd", "learning_rate": 0.2})
    assert run_study(plain, SITES, settings=ALONE).version != resumed.version


def test_a_run_that_stopped_early_goes_on_to_the_same_model(
    tmp_path: Path, undisturbed: FederationResult
) -> None:
    early = run_study(PLAN, SITES, folder=tmp_path, settings=ALONE, rounds_max=1)
    assert [item.round_number for item in early.rounds] == [0, 1]
    assert early.version != undisturbed.version
    told: list[tuple[int, int]] = []
    resumed = run_study(
        PLAN,
        SITES,
        folder=tmp_path,
        settings=ALONE,
        resume=True,
        progress=lambda begun, rounds: told.append((begun, rounds)),
    )
    assert is_same(resumed, undisturbed)
    assert told == [(3, 5), (4, 5), (5, 5)]
    again = run_study(PLAN, SITES, folder=tmp_path, settings=ALONE, resume=True)
    assert is_same(again, undisturbed)


@pytest.mark.parametrize("changed", ["seed", "plan", "sites", "resume"])
def test_another_run_in_the_folder_is_never_continued(tmp_path: Path, changed: str) -> None:
    plan: StudyPlan = small_plan(training__rounds=1)
    run_study(plan, SITES, folder=tmp_path, settings=ALONE)
    with pytest.raises(StudyStateError, match="holds a run already"):
        run_study(
            MOMENTUM if changed == "plan" else plan,
            SITES[:2] if changed == "sites" else SITES,
            seed=2 if changed == "seed" else 1,
            folder=tmp_path,
            settings=ALONE,
            resume=changed != "resume",
        )


def test_nobody_else_may_look_into_a_run_that_holds_patients(tmp_path: Path) -> None:
    run_study(small_plan(training__rounds=1), SITES, folder=tmp_path, settings=ALONE)
    for name in ("sites", "coordinator"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert (tmp_path / "keys.secret").stat().st_mode & 0o077 == 0
