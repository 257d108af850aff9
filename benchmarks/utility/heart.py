"""The UCI heart disease data as four hospitals, split at random or as FLamby splits it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.utility.questions import (
    INFINITY,
    Choice,
    Question,
    accuracy,
    make_plan,
    mean_of_sites,
    split_stratified,
)
from common.study.plan import NumericFeature, StudyPlan
from simulations.population import FOUR_HOSPITALS, Hospital, generate_rows
from simulations.virtual_site import VirtualSite, site_salt
from site_client.features.matrix import FeatureMatrix, build_matrix
from site_client.sources.table import FeatureCounts, PatientTable

SITES: Final = ("cleveland", "hungarian", "switzerland", "va")
COMPLETE: Final = (303, 261, 46, 130)
"""Patients of each site without a missing value: FLamby's counts."""
_COLUMNS: Final = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
    *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"),
)
_LEFT_OUT: Final = ("slope", "ca", "thal")

Row = dict[str, float]


def read_uci(folder: Path) -> dict[str, list[Row]]:
    """Return the complete cases of each hospital."""
    sites: dict[str, list[Row]] = {}
    for site_id in SITES:
        path = folder / "heart_uci" / f"processed.{site_id}.data"
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, _COLUMNS))
        sites[site_id] = [
            _features({name: float(row[name]) for name in _COLUMNS if name not in _LEFT_OUT})
            for row in rows
            if not any(row[name] == "?" for name in _COLUMNS if name not in _LEFT_OUT)
        ]
    return sites


def _features(row: Row) -> Row:
    return {
        "age": row["age"],
        "male": row["sex"],
        "asymptomatic": float(row["cp"] == 4),
        "atypical_angina": float(row["cp"] == 2),
        "max_heart_rate": row["thalach"],
        "exercise_angina": row["exang"],
        "st_depression": row["oldpeak"],
        "cholesterol_not_measured": float(row["chol"] == 0),
        "heart_disease": float(row["num"] > 0),
    }


def generate_sites(seed: int) -> dict[str, list[Row]]:
    """Return simulated complete cases of four hospitals of the UCI hospitals' sizes."""
    sites: dict[str, list[Row]] = {}
    for hospital, size in zip(FOUR_HOSPITALS, COMPLETE, strict=True):
        sites[hospital.site_id] = _generate(hospital, size, seed)
    return sites


def _generate(hospital: Hospital, size: int, seed: int) -> list[Row]:
    texts = generate_rows(replace(hospital, patients=size * 8), seed=seed)
    complete = [
        row for row in texts if all(text for name, text in row.items() if name != "cholesterol")
    ]
    return [
        {
            "age": float(row["age"]),
            "male": float(row["sex"] == "male"),
            "asymptomatic": float(row["chest_pain_type"] == "asymptomatic"),
            "atypical_angina": float(row["chest_pain_type"] == "atypical_angina"),
            "max_heart_rate": float(row["max_heart_rate"]),
            "exercise_angina": float(row["exercise_angina"] == "yes"),
            "st_depression": float(row["st_depression"]),
            "cholesterol_not_measured": float(row["cholesterol"] == ""),
            "heart_disease": float(row["heart_disease"]),
        }
        for row in complete[:size]
    ]


def make_matrix(rows: list[Row], plan: StudyPlan, *, site_id: str, seed: int) -> FeatureMatrix:
    """Return a site's features with the plan's salted-hash split of one seed."""
    names = [item.name for item in plan.features if isinstance(item, NumericFeature)]
    table = PatientTable(
        subject_ids=tuple(str(number) for number in range(len(rows))),
        numeric={name: np.array([row[name] for row in rows]) for name in names},
        levels={},
        label=np.array([row[plan.label.name] for row in rows], dtype=np.float32),
        counts={name: FeatureCounts(recorded=len(rows)) for name in names},
        unlabelled=0,
    )
    return build_matrix(table, plan, salt=site_salt(site_id, f"seed {seed}".encode()))


def heart_plan(choice: Choice, epsilon: float) -> StudyPlan:
    """Return the plan of a choice and an epsilon."""
    return make_plan("heart.toml", choice, epsilon)


# Chosen by `python -m benchmarks.utility.choose heart`: on simulated patients only.
_CHOICES: Final = {
    INFINITY: Choice(rounds=20, clipping_norm=1.0, step=2.0),
    1.0: Choice(rounds=40, clipping_norm=1.0, step=0.5),
    0.5: Choice(rounds=80, clipping_norm=0.3, step=0.5),
}


def heart_questions(folder: Path) -> tuple[Question, Question]:
    """Return the benchmark of the random splits and that of FLamby's split."""
    rows = read_uci(folder)

    def sites(plan: StudyPlan, seed: int) -> list[VirtualSite]:
        return [
            VirtualSite(
                site_id,
                round(len(found), -1),
                make_matrix(found, plan, site_id=site_id, seed=seed),
            )
            for site_id, found in rows.items()
        ]

    def flamby_sites(plan: StudyPlan, seed: int) -> list[VirtualSite]:
        return [
            # FLamby's own split (Ogier du Terrail et al. 2022): these sizes and this seed.
            replace(
                site,
                patients=split_stratified(
                    site.patients, plan, train_size=0.66, test_size=1 - 0.66, seed=43
                ),
            )
            for site in sites(plan, seed)
            if isinstance(site.patients, FeatureMatrix)
        ]

    figure = mean_of_sites(accuracy)
    about = "UCI heart disease, four hospitals without slope, ca and thal, complete cases, 740 "
    return (
        Question(
            name="heart",
            title="Heart disease, four hospitals",
            protocol=about + "patients; 34 % of the patients of each held out at random; mean of "
            "the four hospitals' accuracies.",
            figure=figure,
            site_figure=accuracy,
            choices=_CHOICES,
            targets={INFINITY: 0.805, 1.0: 0.79, 0.5: 0.78},
            plan=heart_plan,
            sites=sites,
        ),
        Question(
            name="heart-flamby",
            title="Heart disease, four hospitals, FLamby's split",
            protocol=about + "patients; FLamby's own training and test patients; mean of the four "
            "hospitals' accuracies. Seeds differ in noise only.",
            figure=figure,
            site_figure=accuracy,
            choices=_CHOICES,
            targets={},
            plan=heart_plan,
            sites=flamby_sites,
        ),
    )
