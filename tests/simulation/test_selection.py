"""A selection takes the product's own path: real coordinator, real sites, real ledgers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.errors import ConfigError, PlanError, RoundFailed
from common.ids import parse_study_id
from common.privacy.calibration import plan_mechanisms
from common.study.columns import feature_columns
from server.relevance import Fate
from server.selection_rounds import read_counts
from server.study_report import report_study
from simulations.consortium import RunOptions, run_consortium
from simulations.federation import run_in_memory, select_in_memory
from simulations.randomness import reproducible
from simulations.virtual_site import VirtualSite
from simulations.wide_limits import WIDE_LIMITS
from site_client.features.matrix import split
from site_client.training.counts import candidate_classes
from tests.lib.plans import make_plan
from tests.lib.selecting import (
    COPY,
    PLANTED,
    RARE,
    planted_patients,
    planted_sites,
    selecting_plan,
)


@pytest.mark.parametrize("seed", [0, 6, 11])
def test_planted_candidates_are_found_at_epsilon_one_among_five_thousand_patients(
    seed: int,
) -> None:
    plan = selecting_plan()
    sites = planted_sites(plan, patients=5_000, seed=seed)
    counts, ranking = select_in_memory(plan, sites, randomness=reproducible(seed))
    kept = {item.name for item in ranking if item.is_kept}
    assert kept == {*PLANTED, COPY, "sex"}
    assert {item.name: item.fate for item in ranking}[RARE] is Fate.SPARSE
    assert counts.sites == ("east", "north", "south", "west")
    assert 0.99 < counts.epsilon_spent <= 1.0


def test_the_summed_counts_are_the_training_patients_and_the_stated_noise() -> None:
    plan = selecting_plan()
    sites = planted_sites(plan)
    planned = plan_mechanisms(plan).selection
    assert planned is not None
    counts, _ = select_in_memory(plan, sites, randomness=reproducible(3))
    trained = [split(site.matrix(plan), plan)[0] for site in sites]
    off = []
    for place, table in enumerate(counts.singles):
        exact = np.zeros(table.counts.shape)
        for patients in trained:
            classes = candidate_classes(patients, plan)[place]
            np.add.at(exact, (classes, patients.y.astype(int)), 1)
        off.append((table.counts - exact).ravel())
    assert table.noise == pytest.approx(2 * planned.single.noise_multiplier)
    assert np.std(np.concatenate(off)) == pytest.approx(table.noise, rel=0.25)


def test_the_ledger_of_each_site_states_what_the_selection_promises() -> None:
    plan = selecting_plan()
    with run_consortium(plan, planted_sites(plan), reproducible(0), RunOptions()) as (books, _):
        study_id = parse_study_id(plan.study.id)
        report = report_study(books, study_id)
        assert (report.state, report.rounds_planned, report.rounds_complete) == ("finished", 2, 2)
        assert report.pooled is None
        assert len(report.sites) == 4
        for site in report.sites:
            assert site.rounds == 2
            assert site.epsilon_spent is not None
            assert 0.99 < site.epsilon_spent <= plan.privacy.epsilon
        spent = [
            float(item.detail["statement"]["epsilon_spent"])
            for item in books.rounds.answers(study_id)
            if item.round_number == 1
        ]
        assert all(0.4 < item < 0.8 for item in spent)  # one of two counts, each of half
        assert read_counts(books, books.register.find(study_id)) is not None


def test_a_site_whose_own_limit_is_lower_refuses_and_the_others_are_counted() -> None:
    plan = selecting_plan()
    sites = planted_sites(plan)
    strict = WIDE_LIMITS.model_copy(update={"epsilon_per_study": 0.5})
    sites[0] = VirtualSite("east", 1250, sites[0].patients, limits=strict)
    counts, _ = select_in_memory(plan, sites)
    assert counts.sites == ("north", "south", "west")
    planned = plan_mechanisms(plan).selection
    assert planned is not None
    assert counts.singles[0].noise == pytest.approx(3**0.5 * planned.single.noise_multiplier)


def test_a_selection_without_its_quorum_fails() -> None:
    plan = selecting_plan()
    with pytest.raises(RoundFailed):
        select_in_memory(plan, planted_sites(plan)[:1])


def test_a_plan_that_trains_selects_nothing() -> None:
    plan = make_plan(training__rounds=1, training__local_steps=1, evaluation__releases=1)
    patients = planted_patients(selecting_plan(), 100, seed=0)
    patients = replace(patients, columns=feature_columns(plan), x=patients.x[:, :6])
    sites = [VirtualSite(name, 100, patients) for name in ("east", "north")]
    with pytest.raises(ConfigError):
        select_in_memory(plan, sites)


def test_a_plan_that_selects_trains_nothing() -> None:
    plan = selecting_plan()
    with pytest.raises(PlanError):
        run_in_memory(plan, planted_sites(plan))
