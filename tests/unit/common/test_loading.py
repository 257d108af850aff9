"""The garbage collector is as it was after modules are loaded and after a run."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.loading import collector_at_rest, loaded_set_aside


@pytest.fixture(autouse=True)
def _collector_on() -> Iterator[None]:
    gc.enable()
    gc.unfreeze()
    yield
    gc.enable()
    gc.unfreeze()


def test_the_collector_rests_in_the_block_and_goes_on_after_it_also_after_an_error() -> None:
    with pytest.raises(KeyError), collector_at_rest():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with collector_at_rest():
        pass
    assert not gc.isenabled()


def test_what_was_loaded_is_set_aside_for_the_block_alone_however_deep() -> None:
    with loaded_set_aside():
        with loaded_set_aside(), collector_at_rest():
            pass
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_what_the_caller_had_frozen_stays_frozen() -> None:
    gc.freeze()
    with loaded_set_aside(), collector_at_rest():
        pass
    assert gc.get_freeze_count() > 0


def test_a_process_that_ends_at_once_still_ends_what_it_holds(tmp_path: Path) -> None:
    script = f"""
import atexit, tempfile
from common.loading import end_at_once
end_at_once()
atexit.register(print, "told")
folder = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})
kept = open({str(tmp_path / "kept")!r}, "w")
kept.write("words")
kept.flush()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "told\n"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_no_library_complains_of_what_is_left_when_a_process_ends_at_once() -> None:
    script = "from common.loading import end_at_once\nend_at_once()\n"
    libraries = "import duckdb, matplotlib, opacus, pandas, pyarrow, scipy.stats, torch"
    done = subprocess.run(
        [sys.executable, "-c", script + libraries], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
