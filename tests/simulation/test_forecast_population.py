"""The patients of a forecast: a signal of the stated strength, or public tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from common.errors import ConfigError
from common.study.plan_file import read_plan
from simulations.forecast_population import (
    AUROC,
    EVENT_FRACTION,
    public_population,
    simulated_population,
)
from simulations.heart_sites import heart_sites
from site_client.features.matrix import FeatureMatrix
from tests.lib.plans import EXAMPLES

HEART = read_plan(EXAMPLES / "heart-disease.toml")


def test_simulated_patients_carry_a_risk_of_the_stated_strength() -> None:
    sites = simulated_population(HEART, sites=2, patients=4000)(1)
    found = []
    for site in sites:
        assert isinstance(site.patients, FeatureMatrix)
        x, y = site.patients.x, site.patients.y
        half = len(y) // 2
        model = LogisticRegression(max_iter=1000).fit(x[:half], y[:half])
        found.append(roc_auc_score(y[half:], model.predict_proba(x[half:])[:, 1]))
        assert abs(float(y.mean()) - EVENT_FRACTION) < 0.25
    assert np.mean(found) == pytest.approx(AUROC, abs=0.04)


def test_a_seed_gives_the_same_patients_again_and_another_seed_gives_others() -> None:
    population = simulated_population(HEART, sites=2, patients=60)
    first, again, other = (population(seed)[0].patients for seed in (1, 1, 2))
    assert isinstance(first, FeatureMatrix) and isinstance(again, FeatureMatrix)
    assert isinstance(other, FeatureMatrix)
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.y, again.y)
    assert not np.array_equal(first.x, other.x)


def test_public_tables_are_read_by_their_own_site_toml(tmp_path: Path) -> None:
    homes = []
    for site in heart_sites(tmp_path / "data", uci=None)[:2]:
        home = tmp_path / site.site_id
        home.mkdir()
        (home / "site.toml").write_text(
            f'[site]\nid = "{site.site_id}"\ndeclared_cohort_size = 300\n'
            f"{site.limits}\n{site.source}"
        )
        homes.append(home)
    sites = public_population(homes)(1)
    assert [len(site.matrix(HEART).y) > 100 for site in sites] == [True, True]
    assert sites[0].salt != public_population(homes)(2)[0].salt


def test_a_single_public_table_is_no_federation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        public_population([tmp_path])
