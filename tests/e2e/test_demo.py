"""`cohortium-sim demo` on its embedded default: one model of four hospitals, no process left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lib.federation import pids_of
from tests.lib.hearing import hear_ctrl_c

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SIM = Path(sys.executable).with_name("cohortium-sim")


def _demo(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(SIM), "demo", "--folder", str(folder), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509
        # No data sets: a clone on a fresh machine has none.
        env={**os.environ, "COHORTIUM_DATA": str(folder / "none")},
    )


def _wait_gone(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while left := pids_of(str(folder)):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_the_demo_trains_in_four_hospitals_watches_the_model_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "demo"
    demo = _demo(folder)
    out, said = demo.communicate(timeout=880)
    assert demo.returncode == 0, said
    assert "generated" in said  # it says that no real patient is in the data
    record = json.loads(out)
    report = record["report"]
    assert (report["state"], report["rounds_complete"]) == ("finished", 10)
    assert report["pooled_auroc"] > 0.55  # with the noise of epsilon 3
    assert len(report["sites"]) == 4
    for site in report["sites"]:
        assert site["rounds"] == 11  # ten of training and the evaluation
        assert 0 < site["epsilon_spent"] <= 3.0
        if site["auroc"] is not None:  # else the noise says "insufficient data", as it should
            assert site["auroc_low"] <= site["auroc"] <= site["auroc_high"]
        assert " to " in site["patients"]  # a band, never a count
    card = (Path(record["card"]) / "card.html").read_text()
    assert record["version"] in card
    _check_monitoring(record["monitoring"])
    _wait_gone(folder)


def _check_monitoring(after: dict[str, Any]) -> None:
    """Both planted changes are told with their reasons, and nothing else calls for anybody."""
    unit, older = after["planted"]
    # The demo's hospitals are small: noise can hold a reference back, and with it what is told.
    without = {report["site"] for report in after["withheld"] if report["kind"] == "reference"}
    assert all(report["kind"] == "reference" for report in after["withheld"])
    assert all("below the plan's patients_min" in report["outcome"] for report in after["withheld"])
    found = {site["site"]: site for site in after["signals"]}
    certain = {
        site_id: [item["reason"] for item in site["findings"] if item["is_certain"]]
        for site_id, site in found.items()
    }
    assert "data" in certain.pop(None)  # all together
    for site_id, reason, subject in ((unit, "data", "cholesterol"), (older, "covariate", "age")):
        told = certain.pop(site_id)
        assert told == [reason] or site_id in without
        subjects = {item["subject"] for item in found[site_id]["signals"]}
        assert subject in subjects or site_id in without
    assert not any(certain.values()), certain
    for record in ("refused", "missing", "implausible"):
        assert after["status"][record] == []
    page = Path(after["page"]).read_text()
    assert unit in page
    assert older in page


def _study_runs(folder: Path) -> bool:
    """Return whether this demo's ServerApp is there; another federation's may be as well."""
    for pid in pids_of("flwr-serverapp"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                return True
    return False


def test_ctrl_c_ends_every_process_and_a_second_demo_touches_nothing_of_a_running_one(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "demo"
    demo = _demo(folder)
    deadline = time.monotonic() + 180
    while not _study_runs(folder):
        assert demo.poll() is None, demo.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    second = _demo(folder)
    told, _ = second.communicate(timeout=60)
    assert second.returncode == 11
    assert "another demo runs" in told
    assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    _wait_gone(folder)


def test_kill_9_of_the_demo_leaves_no_process_either(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo = _demo(folder)
    deadline = time.monotonic() + 180
    while not (folder / "sites" / "northfield" / "courier" / "node-id").exists():
        assert demo.poll() is None, demo.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    demo.kill()
    demo.communicate()
    _wait_gone(folder)


def test_a_folder_with_other_files_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    demo = _demo(tmp_path)
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 11
    assert "--folder" in out
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
