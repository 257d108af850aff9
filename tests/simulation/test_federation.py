"""A simulated study takes the product's own path; only the network is not there."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from common.errors import ConfigError, ReleaseRefused, RoundFailed
from common.ids import SiteId
from common.study.columns import feature_columns
from common.study.plan import Sgd, StudyPlan
from common.study.plan_file import read_plan
from simulations.federation import run_in_memory
from simulations.patient_source import PatientSource
from simulations.population import FOUR_HOSPITALS, generate_rows
from simulations.randomness import noiseless, reproducible
from simulations.virtual_site import VirtualSite
from simulations.wide_limits import WIDE_LIMITS
from site_client.features.matrix import FeatureMatrix, split
from site_client.release.checks import Produced, check_randomness
from site_client.sources.table_mapping import FeatureMapping, LabelMapping, TableMapping
from tests.lib.plans import EXAMPLES, make_plan

SIZES = {"east": 120, "north": 80, "south": 200}


def full_batch_plan(base: StudyPlan | None = None, **training: object) -> StudyPlan:
    plan = base or make_plan()
    changes = {
        "rounds": 4,
        "local_steps": 1,
        "sampling_probability": 1.0,
        "optimizer": Sgd(kind="sgd", learning_rate=0.8),
        "quorum": 2,
        "update_norm_max": 1e6,
    }
    return plan.model_copy(
        update={
            "training": plan.training.model_copy(update={**changes, **training}),
            "evaluation": plan.evaluation.model_copy(update={"releases": 2}),
        }
    )


def patients(plan: StudyPlan, count: int, seed: int) -> FeatureMatrix:
    rng = np.random.default_rng(seed)
    columns = feature_columns(plan)
    x = rng.uniform(-1, 1, (count, len(columns))).astype(np.float32)
    y = (rng.random(count) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(np.float32)
    return FeatureMatrix(columns, x, y, rng.integers(0, 10**6, count))


def virtual_sites(plan: StudyPlan) -> list[VirtualSite]:
    return [
        VirtualSite(name, size, patients(plan, size, seed))
        for seed, (name, size) in enumerate(SIZES.items())
    ]


def test_without_noise_one_full_step_a_round_is_clipped_gradient_descent_on_all_patients() -> None:
    plan = full_batch_plan()
    sites = virtual_sites(plan)
    result = run_in_memory(plan, sites, randomness=noiseless(1))
    # Oracle: sites weigh by declared size and divide by their declared training patients, so the
    # sizes cancel and every training patient counts the same.
    trained = [split(site.matrix(plan), plan)[0] for site in sites]
    x = np.concatenate([item.x for item in trained]).astype(np.float64)
    y = np.concatenate([item.y for item in trained])
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    share = 1 - plan.evaluation.held_out_fraction
    weights = np.zeros(x.shape[1])
    for _ in range(plan.training.rounds):
        gradients = (1 / (1 + np.exp(-x @ weights)) - y)[:, None] * x
        norms = np.linalg.norm(gradients, axis=1, keepdims=True)
        clipped = gradients * np.minimum(1, plan.privacy.clipping_norm / norms)
        weights -= (
            plan.training.optimizer.learning_rate * clipped.sum(0) / (share * sum(SIZES.values()))
        )
    found = np.append(result.parameters["linear.weight"][0], result.parameters["linear.bias"])
    np.testing.assert_allclose(found, weights, atol=1e-5)


def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    plan = full_batch_plan(sampling_probability=0.5)
    sites = virtual_sites(plan)
    versions = [
        run_in_memory(plan, sites, randomness=reproducible(seed)).version for seed in (1, 1, 2)
    ]
    assert versions[0] == versions[1] != versions[2]


def test_the_ledger_of_each_site_states_what_the_plan_promises() -> None:
    plan = full_batch_plan()
    result = run_in_memory(plan, virtual_sites(plan))
    assert [item.state.value for item in result.rounds] == ["complete"] * 5
    for site in result.sites:
        assert site.statement is not None
        assert 0.9 * plan.privacy.epsilon < site.statement.epsilon_spent <= plan.privacy.epsilon


def test_a_site_whose_own_limit_is_lower_refuses_and_the_others_go_on() -> None:
    plan = full_batch_plan()
    sites = virtual_sites(plan)
    strict = WIDE_LIMITS.model_copy(update={"epsilon_per_study": plan.privacy.epsilon / 2})
    sites[0] = VirtualSite("east", 120, sites[0].patients, limits=strict)
    east, north, _ = run_in_memory(plan, sites).sites
    assert east.statement is None
    assert east.refusals == tuple((number, "R11") for number in range(1, 6))
    assert north.refusals == ()


def test_a_study_without_its_quorum_fails() -> None:
    plan = full_batch_plan()
    with pytest.raises(RoundFailed):
        run_in_memory(plan, virtual_sites(plan)[:1])


def test_two_sites_of_one_id_are_refused() -> None:
    plan = full_batch_plan()
    site = virtual_sites(plan)[0]
    with pytest.raises(ConfigError):
        run_in_memory(plan, [site, site])


def test_noise_left_out_or_repeatable_is_refused_over_a_real_ledger() -> None:
    for randomness in (noiseless(1), reproducible(1)):
        fresh = randomness(SiteId("east"))(1)
        produced = Produced(None, None, (), fresh.is_reproducible)
        with pytest.raises(ReleaseRefused):
            check_randomness(produced, is_real_ledger=True)


def test_noiseless_streams_sample_patients_as_the_reproducible_ones_do() -> None:
    site = SiteId("east")
    silent, noisy = noiseless(3)(site)(1), reproducible(3)(site)(1)
    assert not silent.noise.normal(0.0, 2.0, size=(3, 4)).any()
    assert silent.sampling.random(5).tolist() == noisy.sampling.random(5).tolist()


def test_scores_are_exact_over_the_patients_held_out() -> None:
    plan = full_batch_plan(rounds=10)
    sites = virtual_sites(plan)
    result = run_in_memory(plan, sites, randomness=noiseless(1))
    for site, outcome in zip(sites, result.sites, strict=True):
        held_out = split(site.matrix(plan), plan)[1]
        logits = held_out.x @ result.parameters["linear.weight"][0]
        cases, others = logits[held_out.y == 1], logits[held_out.y == 0]
        assert outcome.patients_held_out == len(held_out.y)
        assert outcome.auroc == pytest.approx(np.mean(cases[:, None] > others[None, :]), abs=1e-9)
        is_right = (logits + result.parameters["linear.bias"][0] >= 0) == (held_out.y == 1)
        assert outcome.accuracy == pytest.approx(np.mean(is_right))


def test_a_table_on_disk_is_read_split_and_trained_on(tmp_path: Path) -> None:
    plan = full_batch_plan(read_plan(EXAMPLES / "heart-disease.toml"))
    rows = generate_rows(FOUR_HOSPITALS[0], seed=1)
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    mapping = TableMapping(
        kind="table",
        path=str(path),
        subject_id="#row",
        label=LabelMapping(column="heart_disease", positive=("1",), negative=("0",)),
        features={
            item.name: FeatureMapping(
                column=item.name,
                unit=getattr(item, "unit", None),
                values={level: level for level in getattr(item, "levels", ())} or None,
            )
            for item in plan.features
        },
    )
    source = PatientSource(mapping, folder=tmp_path)
    sites = [VirtualSite(name, 300, source) for name in ("east", "north")]
    east, north = run_in_memory(plan, sites).sites
    assert east.patients_trained + east.patients_held_out == len(rows)
    # Each site has its own salt, so one table splits differently at two of them.
    assert not np.array_equal(sites[0].matrix(plan).part, sites[1].matrix(plan).part)
    assert north.auroc is not None
