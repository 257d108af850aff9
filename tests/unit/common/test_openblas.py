"""NumPy's matrix products take the threads that a site grants, and no more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from common.openblas import THREADS, limit_threads


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first: what was not there is otherwise not taken away again after the test.
    monkeypatch.setenv(THREADS, "7")
    monkeypatch.delenv(THREADS)


def test_products_take_the_threads_that_are_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget(monkeypatch)
    limit_threads(1)
    program = (
        "import threadpoolctl, numpy; "
        "[pool] = [item for item in threadpoolctl.threadpool_info() "
        "if item['internal_api'] == 'openblas']; "
        "print(pool['num_threads'])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(answer.stdout) == 1


def test_the_choice_of_whoever_starts_us_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "2")
    limit_threads(3)
    assert os.environ[THREADS] == "2"


@pytest.mark.parametrize("module", ["site_client.agent_main", "simulations.cli"])
def test_a_process_that_trains_limits_them_before_numpy_is_loaded(module: str) -> None:
    asked = f"import sys, {module}; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


def test_a_simulation_takes_one_thread_for_a_product() -> None:
    program = f"import os, simulations.cli as c; c.main_callback(); print(os.environ[{THREADS!r}])"
    environment = {name: value for name, value in os.environ.items() if name != THREADS}
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert answer.stdout.strip() == "1"
