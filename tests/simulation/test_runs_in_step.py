"""Runs in step: several studies whose sites train together, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from common.errors import DataSourceError
from simulations.batched import training_table
from simulations.batched.local_round import LocalResult, LocalRound
from simulations.batched.runs_in_step import run_in_step
from simulations.batched.stacked_rounds import train_rounds
from simulations.batched.training_table import SiteTable
from simulations.engine import EngineSettings, run_study
from simulations.seeds_in_step import seeds_at_once
from simulations.simulated_agent import SimulatedAgent
from simulations.study_result import FederationResult
from tests.lib.simulated_studies import plan_that_remembers, small_plan, small_sites

PLAN = plan_that_remembers()
ALONE = EngineSettings(workers=1)


def study(seed: int, sites: int = 4) -> Callable[[SiteTable | None], FederationResult]:
    return lambda table: run_study(
        PLAN, small_sites(PLAN, sites), seed=seed, settings=ALONE, table=table
    )


def told(found: FederationResult) -> list[tuple[object, ...]]:
    """Return all that a run tells of its sites but the ledger's head, in which the time stands."""
    return [
        (site.site_id, site.auroc, site.refusals, site.statement and site.statement.epsilon_spent)
        for site in found.sites
    ]


def test_each_run_in_step_is_that_run_alone_to_the_last_bit() -> None:
    together = run_in_step([study(1), study(2), study(3, sites=2)])
    alone = [study(1)(None), study(2)(None), study(3, sites=2)(None)]
    assert [found.version for found in together] == [found.version for found in alone]
    assert [told(found) for found in together] == [told(found) for found in alone]
    assert len({found.version for found in together}) == 3


def test_the_sites_of_all_runs_train_as_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def counted(ready: Sequence[LocalRound]) -> list[LocalResult]:
        trained.append(len(ready))
        return train_rounds(ready)

    monkeypatch.setattr(training_table, "train_rounds", counted)
    run_in_step([study(1), study(2)])
    rounds = [number for number in trained if number]
    assert rounds == [8] * PLAN.training.rounds


def test_runs_of_different_length_and_plan_go_on_without_those_that_ended() -> None:
    short, long = small_plan(training__rounds=1), small_plan(training__rounds=4)

    def of(plan_rounds: int) -> Callable[[SiteTable | None], FederationResult]:
        plan = {1: short, 4: long}[plan_rounds]
        return lambda table: run_study(plan, small_sites(plan, 3), settings=ALONE, table=table)

    together = run_in_step([of(1), of(4)])
    assert [found.version for found in together] == [of(1)(None).version, of(4)(None).version]


def test_what_one_run_raises_stops_no_other_and_is_raised_when_all_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer, ended = SimulatedAgent.answer, []

    def broken(agent: SimulatedAgent, envelope: bytes) -> bytes:
        if agent._tasks._site_id == "site-broken":
            raise DataSourceError("no", expected="rows", arrived="none", todo="look", number="R14")
        return answer(agent, envelope)

    def good(table: SiteTable) -> FederationResult:
        found = study(2)(table)
        ended.append(found.version)
        return found

    def bad(table: SiteTable) -> FederationResult:
        from dataclasses import replace

        first, *others = small_sites(PLAN, 4)
        sites = [replace(first, site_id="site-broken"), *others]
        return run_study(PLAN, sites, settings=ALONE, table=table)

    monkeypatch.setattr(SimulatedAgent, "answer", broken)
    with pytest.raises(DataSourceError) as caught:
        run_in_step([bad, good])
    assert caught.value.number == "R14"
    assert ended == [study(2)(None).version]


def test_who_is_interrupted_leaves_no_thread_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile
    import threading

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = threading.active_count()

    def interrupted(ready: Sequence[LocalRound]) -> list[LocalResult]:
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(training_table, "train_rounds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_in_step([study(1), study(2)])
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def test_seeds_fill_a_table_and_leave_no_process_idle() -> None:
    assert seeds_at_once(4, settings=ALONE, runs=100, processes=2) == 8
    assert seeds_at_once(4, settings=ALONE, runs=20, processes=4) == 2
    assert seeds_at_once(40, settings=ALONE, runs=100, processes=2) == 1
    assert seeds_at_once(4, settings=ALONE, runs=1, processes=1) == 1
    assert seeds_at_once(4, settings=EngineSettings(engine="flower"), runs=99, processes=2) == 1
    assert seeds_at_once(4, settings=EngineSettings(batched=False), runs=99, processes=2) == 1
