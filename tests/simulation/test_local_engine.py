"""The local engine: any number of workers gives one model, and none of them is left behind."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from common.errors import DataSourceError, ServiceError
from common.ids import SiteId
from common.study.plan import StudyPlan
from server.site_channel import Arrived, Missing, SiteChannel
from simulations import local_engine
from simulations.engine import EngineSettings, run_study
from simulations.local_engine import workers_that_pay
from simulations.simulated_agent import SimulatedAgent
from simulations.site_worker import error_of_record, error_record
from site_client.training.dp_sgd_engine import DpSgdEngine
from tests.lib.simulated_studies import (
    children_of,
    is_running,
    plan_that_remembers,
    small_plan,
    small_sites,
    start,
)

PLAN = plan_that_remembers()
SITES = small_sites(PLAN, 5)
TWO = EngineSettings(workers=2)


class Stops:
    """A channel that does something after so many replies."""

    def __init__(self, channel: SiteChannel, replies: int, then: Callable[[], object]) -> None:
        self._channel = channel
        self._left = replies
        self._then = then

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        for event in self._channel.ask(requests, deadline_s=deadline_s):
            self._left -= 1
            if self._left == 0:
                self._then()
            yield event


def test_any_number_of_workers_gives_the_same_model() -> None:
    versions = {
        run_study(PLAN, SITES, settings=EngineSettings(workers=count)).version
        for count in (1, 2, 3, 9)
    }
    assert len(versions) == 1


def test_few_bytes_ahead_give_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_study(PLAN, SITES, settings=TWO).version
    monkeypatch.setattr(local_engine, "AHEAD_BYTES_MAX", 1)
    assert run_study(PLAN, SITES, settings=TWO).version == whole
    monkeypatch.setattr(local_engine, "GROUP_MAX", 2)
    assert run_study(PLAN, SITES, settings=TWO).version == whole


def test_replies_that_wait_to_be_taken_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(training__rounds=1)
    sites = small_sites(plan, 24)
    monkeypatch.setattr(local_engine, "AHEAD_BYTES_MAX", 20_000)
    made: list[str] = []
    seen: list[int] = []

    class Counts:
        def __init__(self, channel: SiteChannel) -> None:
            self._channel = channel

        def ask(
            self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
        ) -> Iterator[Arrived | Missing]:
            def counted(site_id: SiteId, make: Callable[[], bytes]) -> bytes:
                made.append(site_id)
                return make()

            asked = {
                site_id: (lambda site_id=site_id, make=make: counted(site_id, make))
                for site_id, make in requests.items()
            }
            events = self._channel.ask(asked, deadline_s=deadline_s)
            for taken, event in enumerate(events):
                time.sleep(0.005)  # whoever takes is slower than the workers
                seen.append(len(made) - taken)
                yield event
            made.clear()

    run_study(plan, sites, settings=TWO, around_channel=Counts)
    assert max(seen) < 16


def test_more_sites_than_may_stay_open_give_the_same_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One after another: those of a group that trains together are open together.
    alone = EngineSettings(workers=1, batched=False)
    whole = run_study(PLAN, SITES, settings=alone).version
    monkeypatch.setattr("simulations.site_turn.OPEN_MAX", 1)
    before = len(os.listdir("/proc/self/fd"))
    seen: list[int] = []
    found = run_study(
        PLAN,
        SITES,
        settings=alone,
        around_channel=lambda channel: Stops(
            channel, 12, lambda: seen.append(len(os.listdir("/proc/self/fd")))
        ),
    )
    assert found.version == whole
    assert seen[0] - before < 12  # the coordinator's own and one site's
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_another_order_of_sites_gives_the_same_model() -> None:
    versions = {run_study(PLAN, sites, settings=TWO).version for sites in (SITES, SITES[::-1])}
    assert len(versions) == 1


def test_what_a_worker_raises_is_raised_here_and_the_workers_are_gone() -> None:
    def broken(agent: SimulatedAgent, envelope: bytes) -> bytes:
        raise DataSourceError("no", expected="rows", arrived="none", todo="look", number="R14")

    before = children_of(os.getpid())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SimulatedAgent, "answer", broken)
        with pytest.raises(DataSourceError) as caught:
            run_study(PLAN, SITES, settings=TWO)
    assert (caught.value.number, caught.value.todo) == ("R14", "look")
    assert children_of(os.getpid(), but=before) == []


def test_an_error_that_is_not_ours_crosses_the_pipe_without_its_text() -> None:
    error = error_of_record(error_record(ValueError("age 41")))
    assert error.exit_code == 70
    assert "41" not in str(error)
    assert "ValueError" in str(error)


def test_a_worker_that_dies_is_an_error_and_the_run_can_go_on(tmp_path: Path) -> None:
    before = children_of(os.getpid())
    whole = run_study(PLAN, SITES, settings=TWO).version

    def kill_one() -> None:
        os.kill(children_of(os.getpid(), but=before)[0], signal.SIGKILL)

    with pytest.raises(ServiceError, match="has died") as caught:
        run_study(
            PLAN,
            SITES,
            folder=tmp_path,
            settings=TWO,
            around_channel=lambda channel: Stops(channel, 7, kill_one),
        )
    assert "killed by signal 9" in caught.value.arrived
    assert caught.value.exit_code == 62
    assert children_of(os.getpid(), but=before) == []
    resumed = run_study(PLAN, SITES, folder=tmp_path, settings=TWO, resume=True)
    assert resumed.version == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_process_and_the_run_can_go_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    plan = plan_that_remembers(training__rounds=12)
    process = start(lambda: run_study(plan, SITES, folder=tmp_path, settings=TWO))
    assert process.pid is not None
    workers: list[int] = []
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("coordinator/models/*.safetensors"))) < 3:
        assert time.monotonic() < deadline
        workers = children_of(process.pid)
        time.sleep(0.01)
    assert len(workers) == 2
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode not in (0, None)
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    resumed = run_study(plan, SITES, folder=tmp_path, settings=TWO, resume=True, rounds_max=5)
    assert resumed.version == run_study(plan, SITES, settings=TWO, rounds_max=5).version


def test_sites_and_what_is_made_of_them_can_be_sent_to_another_process(tmp_path: Path) -> None:
    site = pickle.loads(pickle.dumps(SITES[0]))
    assert site.fingerprint(PLAN) == SITES[0].fingerprint(PLAN)
    assert SITES[1].fingerprint(PLAN) != SITES[0].fingerprint(PLAN)


def test_processes_are_started_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_engine, "_cores", lambda: 8)
    few: StudyPlan = small_plan(training__rounds=1)
    many: StudyPlan = small_plan(training__rounds=100)
    assert workers_that_pay(few, 4) == 1
    assert workers_that_pay(many, 4) == 8


def test_a_site_may_have_a_trainer_of_its_own() -> None:
    plan = small_plan(training__rounds=2)
    honest = run_study(plan, small_sites(plan), settings=EngineSettings(batched=False))
    made = run_study(plan, small_sites(plan, engine=_OwnEngine), settings=TWO)
    assert made.version == honest.version


class _OwnEngine(DpSgdEngine):
    """Another class that trains as the product does."""
