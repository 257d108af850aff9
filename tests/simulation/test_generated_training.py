"""Models trained on generated patients come close to the risk that is known to be true."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from common.study.plan_file import read_plan
from simulations.engine import run_study
from simulations.populations import Hospital, Missing, Population
from site_client.training.evaluation import score
from tests.lib.generated import PLAN, truth_of


def _trained(hospital: Hospital, other: Hospital) -> tuple[float, float, float]:
    """Return the AUROC of a model of one hospital's features and of the true risk at another."""
    plan = read_plan(PLAN)
    here, there = (Population([item], seed=1)[0].matrix(plan) for item in (hospital, other))
    model = LogisticRegression(C=np.inf, max_iter=2000).fit(here.x, here.y)
    scores = model.predict_proba(there.x)[:, 1]
    true = truth_of(other)
    risk = true[true["stay"] == 1].sort_values("subject_id")["risk"].to_numpy()
    calibration = LogisticRegression(C=np.inf).fit(np.log(scores / (1 - scores))[:, None], there.y)
    found = roc_auc_score(there.y, scores), roc_auc_score(there.y, risk)
    return float(found[0]), float(found[1]), float(calibration.coef_[0, 0])


def test_a_model_trained_without_privacy_reaches_the_true_risks_auroc() -> None:
    found, true, slope = _trained(
        Hospital(site_id="train", patients=12_000), Hospital(site_id="test", patients=8000)
    )
    assert true > 0.8
    assert found == pytest.approx(true, abs=0.006)
    assert slope == pytest.approx(1, abs=0.15)


def test_what_is_not_recorded_costs_auroc() -> None:
    gaps = {name: Missing(share=0.7) for name in ("creatinine", "hemoglobin", "systolic_bp")}
    found, true, _ = _trained(
        Hospital(site_id="train", patients=6000, missing=gaps),
        Hospital(site_id="test", patients=6000, missing=gaps),
    )
    assert found < true - 0.015


@pytest.mark.slow
def test_a_federation_without_noise_comes_close_to_the_true_risks_auroc() -> None:
    plan = read_plan(PLAN)
    hospitals = [Hospital(site_id=f"site-{number}", patients=3000) for number in range(1, 4)]
    population = Population(hospitals, seed=1)
    result = run_study(plan, population, seed=1, randomness="noiseless")
    reached, best = [], []
    for site, hospital in zip(population, hospitals, strict=True):
        matrix = site.matrix(plan)
        true = truth_of(hospital)
        risk = true[true["stay"] == 1].sort_values("subject_id")["risk"].to_numpy()
        reached.append(roc_auc_score(matrix.y, score(plan, result.parameters, matrix.x)))
        best.append(roc_auc_score(matrix.y, risk))
    assert np.mean(reached) > np.mean(best) - 0.01
