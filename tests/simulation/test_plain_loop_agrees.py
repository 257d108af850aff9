"""A plain Opacus loop with our draws ends at our AUROC and our epsilon."""

from __future__ import annotations

import pytest

from benchmarks.peers.agreement import Alike, plain_loop_with_our_draws
from benchmarks.peers.common_job import common_plan, common_sites, rival_model, task
from common.protocol.arrays import Parameters
from simulations.engine import EngineSettings, run_study

SITES, ROUNDS, SEED = 3, 2, 5
# Opacus' hooks on torch 2.13: the patients' columns need no gradient, which torch remarks on.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing")


@pytest.fixture(scope="module")
def ours() -> Parameters:
    plan = common_plan(sites=SITES, rounds=ROUNDS)
    settings = EngineSettings(workers=1)
    return run_study(plan, common_sites(plan, SITES), seed=SEED, settings=settings).parameters


@pytest.fixture(scope="module")
def alike(ours: Parameters) -> Alike:
    return plain_loop_with_our_draws(sites=SITES, rounds=ROUNDS, seed=SEED, ours=ours)


def test_auroc_equals_the_plain_loops_to_three_decimals_when_configured_alike(
    ours: Parameters, alike: Alike
) -> None:
    assert task.auroc(rival_model(ours)) == pytest.approx(alike.auroc, abs=0.0005)
    # It says something only because training did something.
    assert alike.auroc > 0.75
    assert alike.largest_difference < 1e-5


def test_epsilon_by_opacus_accountant_equals_the_plain_loops(alike: Alike) -> None:
    assert alike.epsilon_of_records == pytest.approx(alike.epsilon_rdp, abs=0.0005)
    # Our own count of the same steps is the tighter one and never the larger.
    assert 0.7 * alike.epsilon_rdp < alike.epsilon_pld < alike.epsilon_rdp


@pytest.mark.slow
def test_the_whole_common_job_ends_where_the_plain_loop_ends() -> None:
    plan = common_plan(sites=10, rounds=10)
    ours = run_study(plan, common_sites(plan, 10), seed=SEED).parameters
    alike = plain_loop_with_our_draws(sites=10, rounds=10, seed=SEED, ours=ours)
    assert task.auroc(rival_model(ours)) == pytest.approx(alike.auroc, abs=0.0005)
    assert alike.epsilon_rdp == pytest.approx(6.095, abs=0.0005)
    assert alike.epsilon_of_records == pytest.approx(alike.epsilon_rdp, abs=0.0005)
