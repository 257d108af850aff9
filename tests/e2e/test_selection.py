"""A selection over real Flower: the commands that people type, to the shortened plan."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from common.study.plan_file import read_plan
from simulations.deployment import Deployment
from tests.lib.federation import found_federation, start_federation
from tests.lib.selecting import selecting_heart_plan

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("select")
    deployment = found_federation(folder, [selecting_heart_plan(folder)])
    with deployment.processes:
        start_federation(deployment)
        yield deployment


def test_four_hospitals_count_and_the_shortened_plan_is_written(federation: Deployment) -> None:
    folder = federation.folder.parent
    plan, short = folder / "heart-choice.toml", folder / "short.toml"
    answer: dict[str, Any] = federation.coordinator_json("select", str(plan))
    assert answer["state"] == "running"
    deadline = time.monotonic() + 240
    while answer["state"] == "running" and time.monotonic() < deadline:
        time.sleep(1)
        answer = federation.coordinator_json("select", str(plan))
    assert answer["state"] == "finished", answer
    assert len(answer["sites"]) == 4
    assert len(answer["candidates"]) == 10
    federation.coordinator("select", str(plan), "--out", str(short))
    proposed = read_plan(short)
    assert proposed.selection is None
    assert len(proposed.features) <= 7
    assert {"age", "sex"} <= {feature.name for feature in proposed.features}
    site_id = federation.sites[0].site_id
    explained = " ".join(federation.site(site_id, "ledger", "explain", "heart-choice").split())
    assert "counts patients twice in 10 tables by outcome" in explained
