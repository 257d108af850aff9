"""What a run will ask the accountant is found in a second process, and is what it finds itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.privacy import accountant
from common.privacy.accountant import epsilon_of, epsilons_found, take_epsilons
from common.privacy.mechanism import GaussianVector
from simulations.engine import EngineSettings, run_study
from simulations.epsilons_ahead import ROUNDS_MAX, ask_as_a_run
from tests.lib.hearing import hear_ctrl_c
from tests.lib.plans import make_plan, write_plan
from tests.lib.simulated_studies import children_of, is_running, small_plan, small_sites

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from common.study.plan_file import read_plan
from simulations.epsilons_ahead import epsilons_ahead
with epsilons_ahead(lambda: read_plan(Path(sys.argv[1]))):
    from simulations.engine import EngineSettings, run_study
    from tests.lib.simulated_studies import small_sites
plan = read_plan(Path(sys.argv[1]))
result = run_study(plan, small_sites(plan, 3), settings=EngineSettings(workers=1))
print(result.version, result.sites[0].statement.epsilon_spent, "dp_accounting" in sys.modules)
"""
WAITS = """
import os, sys, time
from simulations.epsilons_ahead import epsilons_ahead
with epsilons_ahead(lambda: time.sleep(600)):
    print("begun", flush=True)
    time.sleep(600)
"""


def run_script(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"evaluation__releases": 3, "training__rounds": 6},
        {"scaling": {"kind": "dp_mean_variance", "epsilon_fraction": 0.1}},
        {"privacy__noise_multiplier": "calibrate"},
    ],
    ids=["plain", "several evaluations", "scaling", "calibrated"],
)
def test_no_question_of_a_run_is_left_over_and_the_run_is_the_same(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    plan = small_plan(**changes)
    write_plan(tmp_path / "plan.toml", plan)
    done = run_script(RUN, str(tmp_path / "plan.toml"))
    version, epsilon, has_loaded = done.stdout.split()
    alone = run_study(plan, small_sites(plan, 3), settings=EngineSettings(workers=1))
    statement = alone.sites[0].statement
    assert statement is not None
    assert (version, float(epsilon)) == (alone.version, statement.epsilon_spent)
    assert has_loaded == "False"


def test_a_plan_that_is_refused_is_refused_by_who_reads_it_here(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("plan_version = 1\n")
    done = run_script(RUN, str(tmp_path / "plan.toml"))
    assert "PlanProblems" in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_a_long_plans_rounds_are_not_asked_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accountant, "_found", {})
    ask_as_a_run(make_plan(training__rounds=ROUNDS_MAX))
    short = len(epsilons_found())
    monkeypatch.setattr(accountant, "_found", {})
    ask_as_a_run(make_plan(training__rounds=ROUNDS_MAX + 1))
    assert len(epsilons_found()) < short - ROUNDS_MAX + 5


def test_an_answer_of_another_process_is_believed_and_the_oldest_go_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accountant, "_found", {})
    monkeypatch.setattr(accountant, "_FOUND_MAX", 3)
    true = epsilon_of([GaussianVector(2.0)], delta=1e-5)
    (question,) = epsilons_found()
    take_epsilons({question: 123.0})
    assert epsilon_of([GaussianVector(2.0)], delta=1e-5) == 123.0
    for noise in (3.0, 4.0, 5.0):
        epsilon_of([GaussianVector(noise)], delta=1e-5)
    assert len(epsilons_found()) == 3
    assert epsilon_of([GaussianVector(2.0)], delta=1e-5) == true


def test_a_second_process_that_stands_still_is_not_waited_for() -> None:
    script = """
import sys, time
from simulations import epsilons_ahead
epsilons_ahead.WAIT_S = 0.1
with epsilons_ahead.epsilons_ahead(lambda: time.sleep(600)):
    pass
print("went on", flush=True)
"""
    assert run_script(script).stdout == "went on\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_second_process_ends_with_the_first(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509
    )
    assert process.stdout is not None
    with process, process.stdout:
        process.stdout.readline()
        (second,) = children_of(process.pid)
        os.kill(process.pid, number)
        deadline = time.monotonic() + 30
        while is_running(process.pid) or is_running(second):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_no_part_of_the_product_takes_epsilons_from_elsewhere() -> None:
    taking = {
        str(file.relative_to(ROOT))
        for package in ("common", "server", "site_client", "simulations")
        for file in (ROOT / package).rglob("*.py")
        if "take_epsilons" in file.read_text()
    }
    assert taking == {"common/privacy/accountant.py", "simulations/epsilons_ahead.py"}
