"""The generated hospitals are what their docstrings say."""

from __future__ import annotations

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from simulations.population import COLUMNS, FOUR_HOSPITALS, generate_rows, write_csv


def test_the_population_is_a_function_of_the_hospital_and_the_seed():
    hospital = FOUR_HOSPITALS[1]
    assert generate_rows(hospital, seed=3) == generate_rows(hospital, seed=3)
    assert generate_rows(hospital, seed=3) != generate_rows(hospital, seed=4)


def test_the_four_hospitals_differ_in_size_in_case_mix_and_in_missingness():
    frames = {h.site_id: pd.DataFrame(generate_rows(h, seed=1)) for h in FOUR_HOSPITALS}
    prevalence = {site: (f.heart_disease == "1").mean() for site, f in frames.items()}
    missing_cholesterol = {site: (f.cholesterol == "").mean() for site, f in frames.items()}
    assert len({len(frame) for frame in frames.values()}) == 4
    assert max(prevalence.values()) - min(prevalence.values()) > 0.25
    assert missing_cholesterol["lakeside"] == 1.0
    assert missing_cholesterol["northfield"] == 0.0


def test_the_risk_model_is_learnable_from_the_columns_a_site_declares():
    rows = pd.DataFrame(
        [row for hospital in FOUR_HOSPITALS for row in generate_rows(hospital, seed=2)]
    ).sample(frac=1, random_state=0)
    numeric = ["age", "resting_bp", "cholesterol", "max_heart_rate", "st_depression"]
    text = rows.drop(columns=["heart_disease", *numeric])
    x = pd.get_dummies(text, dtype=float).assign(
        **{c: pd.to_numeric(rows[c]).fillna(0) / 100 for c in numeric}
    )
    y = rows.heart_disease == "1"
    model = LogisticRegression(max_iter=2000).fit(x[:600], y[:600])
    assert roc_auc_score(y[600:], model.predict_proba(x[600:])[:, 1]) > 0.75


def test_the_file_has_one_row_a_patient_and_every_declared_column(tmp_path):
    path = tmp_path / "lakeside.csv"
    write_csv(path, generate_rows(FOUR_HOSPITALS[2], seed=1))
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert list(frame.columns) == ["patient_id", *COLUMNS]
    assert frame.patient_id.is_unique
    assert len(frame) == FOUR_HOSPITALS[2].patients
