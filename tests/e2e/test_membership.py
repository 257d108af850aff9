"""Sites are suspended, come back and join while a study runs; no other site is touched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.demo import start
from simulations.deployment import Deployment
from tests.lib.federation import found_federation, short_plan, status, wait_finished, wait_rounds

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

# A round takes under a second; a late site's enrolment is six commands of two seconds.
ROUNDS = 90


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("member")
    plan = short_plan(folder, rounds=ROUNDS, quorum=2, deadline_s=20, study="members")
    deployment = found_federation(folder, [plan], enrolled=3)
    with deployment.processes:
        start(deployment, deployment.sites[:3])
        deployment.coordinator("launch", str(plan))
        yield deployment


def _digests(folder: Path) -> dict[str, str]:
    """Digests of all that enrolment, keys and configuration are at a site."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] not in {"state", "logs", "run"}
    }


def test_a_suspended_site_is_asked_no_more_until_it_is_readmitted(federation: Deployment) -> None:
    wait_rounds(federation, "members", 2)
    suspended = federation.sites[0].site_id
    federation.coordinator("suspend", suspended)
    at = status(federation, "members")["rounds_complete"]
    wait_rounds(federation, "members", at + 4)
    rows = {site["site_id"]: site for site in status(federation, "members")["sites"]}
    others = [row["rounds"] for name, row in rows.items() if name != suspended]
    assert rows[suspended]["rounds"] <= at + 2
    assert min(others) >= at + 3
    federation.coordinator("readmit", suspended)
    before = rows[suspended]["rounds"]

    def is_back() -> bool:
        rows = {site["site_id"]: site for site in status(federation, "members")["sites"]}
        return bool(rows[suspended]["rounds"] > before)

    federation.wait_for(is_back, seconds=90, what="the return of the readmitted site")


def test_a_site_that_joins_during_a_study_touches_no_other_site(federation: Deployment) -> None:
    homes = {site.site_id: federation.site_home(site.site_id) for site in federation.sites[:3]}
    before = {site_id: _digests(home) for site_id, home in homes.items()}
    late = federation.sites[3]
    federation.enrol(late)
    federation.approve(late.site_id, federation.folder.parent / "members.toml")
    federation.start_site(late.site_id)

    def takes_part() -> bool:
        rows = {site["site_id"]: site for site in status(federation, "members")["sites"]}
        return late.site_id in rows and rows[late.site_id]["rounds"] > 0

    federation.wait_for(takes_part, seconds=90, what="the late site's first round")
    assert {site_id: _digests(home) for site_id, home in homes.items()} == before
    report = wait_finished(federation, "members")
    assert report["rounds_complete"] == ROUNDS
