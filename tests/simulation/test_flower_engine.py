"""Flower's simulation engine: the same model, nothing open to others, no process left."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flwr.supercore.task_identity import TaskIdentity

from common.errors import BudgetError, CohortiumError, ConfigError, InternalError
from common.ids import SiteId
from common.study.plan import StudyPlan
from server.site_channel import SiteChannel
from simulations.engine import EngineSettings, run_study
from simulations.flower_engine import answer_turn, message_to, run_over_flower
from simulations.ray_cluster import own_ray
from tests.lib.flower_sites import Echo, Watched, small_sites
from tests.lib.plans import make_plan

ROOT = Path(__file__).parents[2]
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
SITE = SiteId("site-0")

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed: pip install cohortium[simulation-flower]",
)
# Flower and Ray import what warns of its own age; none of it is ours.
pytestmark = pytest.mark.filterwarnings("ignore")


def momentum_plan() -> StudyPlan:
    """Return a plan whose optimiser keeps a state from round to round."""
    return make_plan(
        model={"kind": "mlp", "hidden": [8]},
        training__rounds=3,
        training__optimizer={"kind": "sgd", "learning_rate": 0.2, "momentum": 0.9},
        training__quorum=3,
        training__update_norm_max=30.0,
    )


@pytest.fixture
def within_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process what Flower gives its ServerApp before it makes a message."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@needs_ray
@pytest.mark.slow
def test_flowers_engine_gives_the_local_engines_model_and_listens_on_loopback_only() -> None:
    # Momentum is state that a site keeps from round to round: here in files, for workers have none.
    plan = momentum_plan()
    sites = small_sites(plan, 3)
    local = run_study(plan, sites, seed=4, settings=EngineSettings(workers=1))
    watched: list[Watched] = []

    def watch(channel: SiteChannel) -> SiteChannel:
        watched.append(Watched(channel))
        return watched[-1]

    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    settings = EngineSettings(engine="flower", workers=2)
    over_ray = run_study(plan, sites, seed=4, settings=settings, around_channel=watch)

    assert [site.refusals for site in over_ray.sites] == [()] * 3
    for name, value in local.parameters.items():
        np.testing.assert_allclose(over_ray.parameters[name], value, rtol=0, atol=1e-6)
    assert watched[0].listening
    assert watched[0].listening <= LOOPBACK
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before


@needs_ray
@pytest.mark.slow
def test_a_run_that_one_engine_began_goes_on_with_the_other_to_the_same_model(
    tmp_path: Path,
) -> None:
    plan = momentum_plan()
    sites = small_sites(plan, 3)
    alone = EngineSettings(workers=1)
    whole = run_study(plan, sites, seed=4, settings=alone)
    run_study(plan, sites, seed=4, settings=alone, folder=tmp_path / "run", rounds_max=1)
    settings = EngineSettings(engine="flower", workers=1)
    resumed = run_study(
        plan, sites, seed=4, settings=settings, folder=tmp_path / "run", resume=True
    )
    assert len(resumed.rounds) == len(whole.rounds)
    for name, value in whole.parameters.items():
        np.testing.assert_allclose(resumed.parameters[name], value, rtol=0, atol=1e-6)


@needs_ray
@pytest.mark.slow
def test_a_sites_refusal_to_be_worked_ends_the_run_in_its_own_words() -> None:
    ids = [SiteId("site-0"), SiteId("site-1")]

    def loop(channel: SiteChannel) -> None:
        list(channel.ask({site_id: lambda: b"" for site_id in ids}, deadline_s=60))

    with pytest.raises(BudgetError) as caught:
        run_over_flower(loop, Echo(refusing="site-1"), ids, workers=1)
    assert (caught.value.refused, caught.value.number) == ("no", "G3")


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_no_process(number: signal.Signals) -> None:
    script = """
import signal
from common.ids import SiteId
from common.study.plan import StudyPlan
from simulations.flower_engine import run_over_flower
from tests.lib.flower_sites import Echo
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.default_int_handler)
ids = [SiteId("site-0"), SiteId("site-1")]
def loop(channel):
    while True:
        list(channel.ask({site_id: lambda: b"" for site_id in ids}, deadline_s=60))
        print("answered", flush=True)
run_over_flower(loop, Echo(), ids, workers=1)
"""
    mark = f"TEST_MARK={number}-{time.time_ns()}"
    name, value = mark.split("=")
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, name: value, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "answered\n"
    assert len(_marked(mark)) > 3  # Ray's
    child.send_signal(number)
    child.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while _marked(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _marked(mark) == []
    assert child.returncode != 0


@pytest.mark.usefixtures("within_a_task")
def test_a_turn_is_the_sites_answer_to_its_envelope() -> None:
    reply = answer_turn(Echo(), message_to(SITE, b"question", 1))
    assert reply.content["envelope"]["envelope"] == b"site-0 question"


@pytest.mark.usefixtures("within_a_task")
def test_an_error_of_a_turn_goes_back_in_our_words_and_another_only_by_its_type() -> None:
    ours = answer_turn(Echo(refusing="site-0"), message_to(SITE, b"", 1))
    assert ours.content["failure"]["type"] == BudgetError.__name__
    other = answer_turn(Echo(failing="site-0"), message_to(SITE, b"", 1))
    assert other.content["failure"]["type"] == InternalError.__name__
    assert "John" not in str(other.content["failure"])


@pytest.mark.usefixtures("within_a_task")
def test_a_machine_that_does_not_see_the_runs_folder_says_what_a_cluster_needs(
    tmp_path: Path,
) -> None:
    reply = answer_turn(Echo(folder=tmp_path / "elsewhere"), message_to(SITE, b"", 1))
    assert reply.content["failure"]["type"] == ConfigError.__name__
    assert "share" in reply.content["failure"]["todo"]


def test_without_ray_the_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        run_over_flower(lambda channel: None, Echo(), [SITE])
    assert "cohortium[simulation-flower]" in caught.value.todo


@needs_ray
def test_a_cluster_that_does_not_answer_is_refused_in_our_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "not an address")
    with pytest.raises(CohortiumError) as caught, own_ray(None):
        pass
    assert "RAY_ADDRESS" in caught.value.expected


def _marked(mark: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and mark.encode() in Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return found
