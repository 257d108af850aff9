"""One run of a study at a time; the lock dies with its holder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import StudyStateError
from common.ids import StudyId
from server import run_lock
from server.config import CoordinatorPaths
from server.run_lock import hold_run_lock, is_run_alive

ROOT = Path(__file__).parents[3]
STUDY, OTHER = StudyId("small-study"), StudyId("other-study")
_HOLDER = """
import sys, time
from pathlib import Path
from common.ids import StudyId
from server.config import CoordinatorPaths
from server.run_lock import hold_run_lock
with hold_run_lock(CoordinatorPaths(Path(sys.argv[1])), StudyId("small-study")):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_held_lock_is_alive_and_a_left_one_is_not(tmp_path: Path) -> None:
    paths = CoordinatorPaths(tmp_path)
    assert not is_run_alive(paths, STUDY)
    with hold_run_lock(paths, STUDY):
        assert is_run_alive(paths, STUDY)
        assert not is_run_alive(paths, OTHER)
    assert not is_run_alive(paths, STUDY)


def test_a_second_run_of_the_same_study_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "_WAIT_S", 0.3)
    paths = CoordinatorPaths(tmp_path)
    with (
        hold_run_lock(paths, STUDY),
        hold_run_lock(paths, OTHER),
        pytest.raises(StudyStateError),
        hold_run_lock(paths, STUDY),
    ):
        pass


def test_an_error_in_a_run_frees_its_lock(tmp_path: Path) -> None:
    paths = CoordinatorPaths(tmp_path)
    with pytest.raises(ZeroDivisionError), hold_run_lock(paths, STUDY):
        raise ZeroDivisionError
    assert not is_run_alive(paths, STUDY)


def test_a_killed_run_frees_its_lock_at_once(tmp_path: Path) -> None:
    paths = CoordinatorPaths(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_run_alive(paths, STUDY)
        holder.kill()
        holder.wait(timeout=30)
        assert not is_run_alive(paths, STUDY)
    with hold_run_lock(paths, STUDY):
        pass
