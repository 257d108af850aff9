"""Every dial of a generated hospital, by its effect in what is written or true."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.linear_model import LogisticRegression

from simulations.populations import (
    CaseMix,
    Coding,
    Disparity,
    Drift,
    Form,
    GeneratedPatients,
    Hospital,
    Missing,
)
from simulations.populations.variables import INTERCEPT, MEASUREMENTS, WEIGHTS
from tests.lib.generated import measured, table, truth_of, write

PATIENTS = 6000
CHANGED = date(2022, 7, 1)
Written = Callable[..., Path]


def _hospital(**dials: Any) -> Hospital:
    return Hospital(site_id="dialled", **{"patients": PATIENTS, **dials})


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def at(**dials: Any) -> Path:
        write(_hospital(**{"patients": 1500, **dials}), tmp_path, Form.CSV)
        return tmp_path

    return at


def _first(**dials: Any) -> pandas.DataFrame:
    true = truth_of(_hospital(**dials))
    return true[true["stay"] == 1].reset_index(drop=True)


def test_size_is_the_number_of_patients_also_over_several_blocks() -> None:
    true = truth_of(_hospital(patients=20_007))
    assert true["subject_id"].nunique() == 20_007
    assert _hospital(patients=20_007).declared_cohort_size == 20_000
    assert _hospital(patients=87).declared_cohort_size == 87


def test_case_mix_moves_age_sex_emergencies_and_number_of_stays() -> None:
    mix = CaseMix(age_mean_years=50, age_deviation_years=8, male_fraction=0.8, stays_mean=3)
    true = _first(case_mix=mix)
    assert true["age"].mean() == pytest.approx(50, abs=0.7)
    assert true["age"].std() == pytest.approx(8, abs=0.4)
    assert (true["sex"] == "male").mean() == pytest.approx(0.8, abs=0.02)
    # Stays after the last day are cut off, and so are those after a death.
    many = len(truth_of(_hospital(case_mix=mix))) / PATIENTS
    few = len(truth_of(_hospital(case_mix=CaseMix(stays_mean=1)))) / PATIENTS
    assert few == 1
    assert 1.8 < many <= 3


def test_emergency_fraction_is_the_share_of_stays_with_a_visit_before(written: Written) -> None:
    visits = table(written(case_mix=CaseMix(emergency_fraction=0.7)), "visit")
    kinds = visits["class"].value_counts()
    assert kinds["ER"] / kinds["IP"] == pytest.approx(0.7, abs=0.03)


def test_severity_makes_patients_sicker_in_deviations_of_each_measurement() -> None:
    plain, severe = _first(), _first(case_mix=CaseMix(severity=1.0))
    assert (severe["severity"] - plain["severity"]).to_numpy() == pytest.approx(1.0)
    for item in MEASUREMENTS:
        one, other = plain[item.name], severe[item.name]
        moved = np.log(other).mean() - np.log(one).mean() if item.is_log else (other - one).mean()
        assert moved / item.spread == pytest.approx(item.severity, abs=0.08), item.name
    assert severe["heart_failure"].mean() > plain["heart_failure"].mean() + 0.03
    assert severe["dies"].mean() > 1.5 * plain["dies"].mean()


def test_log_odds_shift_everybodys_risk_by_that_much() -> None:
    moved = _first(log_odds=0.7)["log_odds"].to_numpy() - _first()["log_odds"].to_numpy()
    assert moved == pytest.approx(0.7)


def test_a_dial_moves_nothing_but_its_own_effect() -> None:
    plain = truth_of(_hospital(case_mix=CaseMix(stays_mean=1)))
    other = truth_of(
        _hospital(
            case_mix=CaseMix(stays_mean=1),
            coding=Coding(local_codes=True),
            missing={"sodium": Missing(share=0.5)},
        )
    )
    pandas.testing.assert_frame_equal(
        plain.drop(columns="sodium_read"), other.drop(columns="sodium_read")
    )


def test_the_outcome_happens_as_often_as_the_risk_says_in_every_tenth_of_it() -> None:
    true = truth_of(_hospital(patients=40_000))
    for _, part in true.groupby(pandas.qcut(true["risk"], 10)):
        error = np.sqrt((part["risk"] * (1 - part["risk"])).sum()) / len(part)
        assert abs(part["dies"].mean() - part["risk"].mean()) < 4 * error
    days = (true["died"] - true["index_time"]).dropna() / pandas.Timedelta(days=1)
    assert days.between(0, 30, inclusive="right").all()


def test_the_risk_is_the_stated_weights_of_the_true_values() -> None:
    true = _first()
    terms = {
        "age": (true["age"] - 65) / 10,
        "male": true["sex"] == "male",
        "tobacco_smoking": true["tobacco_smoking"] == "every day",
        **{item.name: (true[item.name] - item.centre) / item.per for item in MEASUREMENTS},
    }
    others = {name: true[name] for name in WEIGHTS if name not in terms}
    x = pandas.DataFrame({**terms, **others}).astype(float)
    log_odds = INTERCEPT + sum(WEIGHTS[name] * x[name] for name in WEIGHTS)
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds)), true["risk"])


def test_no_stay_follows_a_death_and_stays_of_a_patient_are_apart() -> None:
    true = truth_of(_hospital(case_mix=CaseMix(stays_mean=3)))
    by_patient = true.groupby("subject_id")
    last = true.loc[by_patient["stay"].idxmax()]
    assert true["dies"].sum() == last["dies"].sum() > 100
    apart = by_patient["admitted"].diff().dropna()
    assert apart.min() > pandas.Timedelta(days=31)


def test_units_are_those_of_the_dial_and_values_are_recorded_in_them(written: Written) -> None:
    folder = written(units={"creatinine": "umol/L", "temperature": "[degF]"})
    frame = table(folder, "measurement")
    creatinine = frame[frame["code"] == "LOINC:14682-9"]
    assert set(creatinine["unit"]) == {"umol/L"}
    assert creatinine["value"].median() == pytest.approx(88.4, rel=0.05)
    fahrenheit = frame[frame["code"] == "LOINC:8310-5"]
    assert fahrenheit["value"].median() == pytest.approx(98.6, abs=0.3)
    assert set(frame.loc[frame["code"] == "LOINC:2345-7", "unit"]) == {"mg/dL"}


def test_share_missing_is_that_of_the_stays_when_it_is_not_informative() -> None:
    true = truth_of(_hospital(missing={"glucose": Missing(share=0.3)}))
    assert true["glucose_read"].isna().mean() == pytest.approx(0.3, abs=0.02)
    assert true["sodium_read"].notna().all()
    is_missing = true["glucose_read"].isna()
    apart = true.loc[is_missing, "severity"].mean() - true.loc[~is_missing, "severity"].mean()
    assert abs(apart) < 0.06


def test_informative_missingness_has_the_stated_log_odds_for_each_deviation() -> None:
    true = truth_of(_hospital(missing={"glucose": Missing(share=0.4, informative=1.2)}))
    model = LogisticRegression(C=np.inf).fit(true[["severity"]], true["glucose_read"].isna())
    assert model.coef_[0, 0] == pytest.approx(-1.2, abs=0.12)
    assert 1 / (1 + np.exp(-model.intercept_[0])) == pytest.approx(0.4, abs=0.03)


def test_loinc_codes_are_used_as_often_as_weighted(written: Written) -> None:
    codes = {"creatinine": {"2160-0": 3.0, "38483-4": 1.0}}
    frame = measured(written(coding=Coding(loinc=codes)))
    used = frame.loc[frame["name"] == "creatinine", "code"].value_counts(normalize=True)
    assert used["LOINC:38483-4"] == pytest.approx(0.25, abs=0.03)
    assert set(used.index) == {"LOINC:2160-0", "LOINC:38483-4"}


def test_diagnoses_change_their_vocabulary_on_the_day(written: Written) -> None:
    coding = Coding(
        diagnoses="ICD10CM", diagnoses_before="ICD9CM", changed_on=CHANGED, icd_dots=False
    )
    frame = table(written(coding=coding), "diagnosis")
    vocabulary = frame["code"].str.partition(":")[0]
    late = frame["at"] >= pandas.Timestamp(CHANGED) + pandas.Timedelta(hours=3)
    early = frame["at"] < pandas.Timestamp(CHANGED)
    assert set(vocabulary[late]) == {"ICD10CM"}
    assert set(vocabulary[early]) == {"ICD9CM"}
    assert not frame["code"].str.contains(".", regex=False).any()


def test_unrecorded_diagnoses_are_the_stated_share_of_those_who_have_them() -> None:
    true = _first(coding=Coding(diagnoses_unrecorded=0.4))
    has = true[true["diabetes"]]
    assert has["diabetes_recorded"].mean() == pytest.approx(0.6, abs=0.04)
    assert not true.loc[~true["diabetes"], "diabetes_recorded"].any()


def test_drugs_are_in_the_vocabulary_of_the_dial(written: Written) -> None:
    codes = set(table(written(coding=Coding(drugs="ATC")), "drug")["code"])
    assert codes == {"ATC:B01AA03", "ATC:C10AA05"}


def test_own_codes_replace_loinc_and_the_share_unmapped_is_in_no_map(written: Written) -> None:
    folder = written(coding=Coding(local_codes=True, unmapped=0.2), patients=3000)
    frame = table(folder, "measurement")
    assert frame["code"].str.startswith("GEN-").all()
    sodium = frame[frame["code"].str.startswith("GEN-SODIUM")]
    unlisted = sodium["code"] == "GEN-SODIUM-UNLISTED"
    assert unlisted.mean() == pytest.approx(0.2, abs=0.02)
    assert '"GEN-SODIUM" = "LOINC/2951-2"' in (folder / "site.toml").read_text()
    assert "UNLISTED" not in (folder / "site.toml").read_text()


def test_a_delayed_label_is_missing_the_likelier_the_later_the_death() -> None:
    true = truth_of(_hospital(label_delay_days=60, patients=20_000))
    dead = true[true["dies"]]
    # Entered an exponential time after the death, or not before the data are taken.
    taken = pandas.Timestamp("2024-03-02")
    left_days = (taken - dead["died"]) / pandas.Timedelta(days=1)
    expected = 1 - np.exp(-left_days / 60)
    for part in (left_days < 120, left_days >= 120):
        error = np.sqrt((expected[part] * (1 - expected[part])).sum())
        assert abs(dead.loc[part, "death_is_recorded"].sum() - expected[part].sum()) < 4 * error + 1
    assert (~dead["death_is_recorded"]).sum() > 20
    assert truth_of(_hospital())["death_is_recorded"].sum() == truth_of(_hospital())["dies"].sum()


def test_drift_moves_age_severity_and_risk_from_its_day_and_no_earlier() -> None:
    drift = (Drift(begins=CHANGED, age_years=-10, severity=0.8, log_odds=0.5),)
    plain, drifted = _first(), _first(drift=drift)
    late = (plain["admitted"] >= pandas.Timestamp(CHANGED)).to_numpy()
    early = (plain["index_time"] < pandas.Timestamp(CHANGED)).to_numpy()
    assert (plain["severity"].to_numpy()[early] == drifted["severity"].to_numpy()[early]).all()
    assert (plain["risk"].to_numpy()[early] == drifted["risk"].to_numpy()[early]).all()
    assert (drifted["age"].to_numpy() - plain["age"].to_numpy())[late].mean() == pytest.approx(
        -10, abs=0.5
    )
    assert (drifted["severity"].to_numpy() - plain["severity"].to_numpy())[late] == pytest.approx(
        0.8
    )


def test_drift_over_days_grows_in_equal_steps() -> None:
    drift = (Drift(begins=CHANGED, over_days=100, severity=1.0),)
    moved = _first(drift=drift)["severity"].to_numpy() - _first()["severity"].to_numpy()
    days = (_first()["admitted"] - pandas.Timestamp(CHANGED)) / pandas.Timedelta(days=1)
    assert moved == pytest.approx(np.clip(days.to_numpy() / 100, 0, 1))


def test_concept_drift_multiplies_a_weight_and_leaves_the_patients_alone() -> None:
    plain = _first()
    drifted = _first(drift=(Drift(begins=CHANGED, weights={"hemoglobin": -1.0}),))
    late = plain["index_time"] >= pandas.Timestamp(CHANGED)
    moved = drifted["log_odds"].to_numpy() - plain["log_odds"].to_numpy()
    expected = -2 * WEIGHTS["hemoglobin"] * (plain["hemoglobin"] - 12.5)
    np.testing.assert_allclose(moved, np.where(late, expected, 0), atol=1e-9)
    assert (plain["hemoglobin"].to_numpy() == drifted["hemoglobin"].to_numpy()).all()


@pytest.mark.parametrize("labelled", [True, False])
def test_a_unit_changes_on_its_day_and_the_records_say_so_or_not(
    written: Written, labelled: bool
) -> None:
    drift = (Drift(begins=CHANGED, units={"creatinine": "umol/L"}, units_labelled=labelled),)
    frame = table(written(drift=drift), "measurement")
    creatinine = frame[frame["code"].isin(["LOINC:2160-0", "LOINC:14682-9"])]
    late = creatinine["at"] >= pandas.Timestamp(CHANGED) + pandas.Timedelta(days=1)
    assert set(creatinine.loc[late, "unit"]) == {"umol/L" if labelled else "mg/dL"}
    ratio = creatinine.loc[late, "value"].median() / creatinine.loc[~late, "value"].median()
    assert ratio == pytest.approx(88.4, rel=0.1)


def test_disparities_hit_their_group_alone() -> None:
    disparity = Disparity(group="female", missing=0.25, diagnoses_unrecorded=0.5, log_odds=0.6)
    plain, unequal = _first(), _first(disparities=(disparity,))
    women = (plain["sex"] == "female").to_numpy()
    moved = unequal["log_odds"].to_numpy() - plain["log_odds"].to_numpy()
    np.testing.assert_allclose(moved, np.where(women, 0.6, 0))
    assert unequal["sodium_read"].isna()[women].mean() == pytest.approx(0.25, abs=0.025)
    assert unequal["sodium_read"].notna()[~women].all()
    assert unequal.loc[women & unequal["diabetes"], "diabetes_recorded"].mean() == pytest.approx(
        0.5, abs=0.05
    )
    assert unequal.loc[~women & unequal["diabetes"], "diabetes_recorded"].all()


def test_a_disparity_of_the_old_is_by_age_at_the_first_stay() -> None:
    unequal = _first(disparities=(Disparity(group="aged_75_or_more", log_odds=1.0),))
    moved = unequal["log_odds"].to_numpy() - _first()["log_odds"].to_numpy()
    assert moved[unequal["age"] >= 76] == pytest.approx(1.0)
    assert moved[unequal["age"] <= 73] == pytest.approx(0.0)


def test_a_hundred_million_patients_are_made_a_block_at_a_time() -> None:
    patients = GeneratedPatients(_hospital(patients=100_000_000), seed=1)
    first = next(patients.records())
    assert len(first.history.patients) == 20_000


@pytest.mark.parametrize(
    ("dials", "words"),
    [
        ({"units": {"creatinine": "mg/L"}}, r"units.creatinine: one of \['mg/dL', 'umol/L'\]"),
        ({"units": {"calcium": "mmol/L"}}, r"no \['calcium'\], there are"),
        ({"missing": {"calcium": Missing()}}, r"missing: no \['calcium'\]"),
        ({"begins": date(2024, 1, 1), "ends": date(2023, 1, 1)}, "`begins` is after `ends`"),
        ({"drift": (Drift(begins=CHANGED, weights={"calcium": 2}),)}, "drift.weights: no"),
    ],
)
def test_a_dial_that_does_not_exist_is_refused_and_says_which_do(dials: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _hospital(**dials)


def test_half_a_change_of_vocabulary_or_a_foreign_loinc_code_is_refused() -> None:
    with pytest.raises(ValueError, match="go together"):
        Coding(changed_on=CHANGED)
    with pytest.raises(ValueError, match=r"sodium: no \['718-7'\]"):
        Coding(loinc={"sodium": {"718-7": 1.0}})
