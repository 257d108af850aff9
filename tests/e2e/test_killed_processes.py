"""kill -9 of every process, in turn and at different moments: the study finishes, nothing is lost.

One federation of four sites runs one study for each process that is killed. The oracle is a study
that nobody disturbed: afterwards each site's ledger says the same epsilon for both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.deployment import Deployment
from tests.lib.federation import (
    found_federation,
    kill_hard,
    short_plan,
    start_federation,
    status,
    wait_finished,
    wait_rounds,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# A round takes under a second and a command two, so that a short study would be over before the
# kill or the stop that it is there for.
ROUNDS = 12
ROUNDS_WHEN_STOPPED = 60

STUDIES = ("undisturbed", "courier", "agent", "superlink", "serverapp", "superexec")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("kill")
    plans = [short_plan(folder, rounds=ROUNDS, deadline_s=60, study=study) for study in STUDIES]
    deployment = found_federation(folder, plans)
    for site in deployment.sites:
        path = deployment.site_home(site.site_id) / "site.toml"
        path.write_text(path.read_text().replace("epsilon_total = 8.0", "epsilon_total = 60.0"))
    with deployment.processes:
        start_federation(deployment)
        yield deployment


@pytest.fixture(scope="module")
def undisturbed(federation: Deployment) -> dict[str, float]:
    """Epsilon that each site's ledger says after a study that nobody disturbed."""
    _launch(federation, "undisturbed")
    wait_finished(federation, "undisturbed")
    return _spent(federation, "undisturbed")


@pytest.mark.parametrize(
    ("study", "words", "after_round", "delay_s"),
    [
        ("courier", ("site_client.courier.run", "eastgate"), 1, 0.0),
        ("agent", ("site_client.agent_main", "lakeside"), 2, 0.3),
        ("superlink", ("server.superlink_main",), 1, 0.5),
        ("serverapp", ("flwr-serverapp",), 2, 0.2),
        ("superexec", ("flower-superexec",), 1, 0.1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_study_finishes_and_no_ledger_is_smaller_after_kill_9(
    federation: Deployment,
    undisturbed: dict[str, float],
    study: str,
    words: tuple[str, ...],
    after_round: int,
    delay_s: float,
) -> None:
    _launch(federation, study)
    wait_rounds(federation, study, after_round)
    time.sleep(delay_s)
    assert kill_hard(*words, str(federation.folder) if study != "serverapp" else ""), words
    report = wait_finished(federation, study)
    assert report["rounds_complete"] == ROUNDS
    spent = _spent(federation, study)
    for site_id, epsilon in undisturbed.items():
        # An interrupted release keeps its one reservation, so the ledgers agree exactly.
        assert spent[site_id] == pytest.approx(epsilon, abs=1e-9), (site_id, report["events"])


def test_every_ledger_and_release_log_is_an_unbroken_chain_afterwards(
    federation: Deployment, undisturbed: dict[str, float]
) -> None:
    assert undisturbed
    for site in federation.sites:
        assert federation.site_json(site.site_id, "ledger", "verify")["ok"]
        assert federation.site_json(site.site_id, "releases", "verify")["ok"]


def test_stop_and_resume_go_on_from_the_last_complete_round(
    federation: Deployment, tmp_path: Path
) -> None:
    plan = short_plan(tmp_path, rounds=ROUNDS_WHEN_STOPPED, study="stopped")
    for site in federation.sites:
        federation.approve(site.site_id, plan)
    federation.coordinator("launch", str(plan))
    wait_rounds(federation, "stopped", 1)
    federation.coordinator("stop", "stopped")
    time.sleep(3)
    before = status(federation, "stopped")
    assert before["state"] == "stopped"
    assert 1 <= before["rounds_complete"] < ROUNDS_WHEN_STOPPED
    federation.coordinator("resume", "stopped")
    assert wait_finished(federation, "stopped")["rounds_complete"] == ROUNDS_WHEN_STOPPED


def _launch(federation: Deployment, study: str) -> None:
    federation.coordinator("launch", str(federation.folder.parent / f"{study}.toml"))


def _spent(federation: Deployment, study: str) -> dict[str, float]:
    spent: dict[str, float] = {}
    for site in federation.sites:
        shown = federation.site_json(site.site_id, "ledger", "show")
        [row] = [item for item in shown["studies"] if item["study_id"] == study]
        spent[site.site_id] = row["epsilon_spent"]
    return spent
