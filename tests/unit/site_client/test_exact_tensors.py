"""Exact counts of a report against a slow reader of the same table in pandas, and scikit-learn."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from common.errors import DataSourceError
from common.models import build_model, load_parameters
from common.study.plan import CategoricalFeature, StudyPlan
from common.study.plan_file import plan_digest
from common.study.report_periods import parse_period
from common.study.report_tensors import ReportKind, report_tensors
from site_client.features.matrix import patient_part
from site_client.monitoring.period_rows import one_row_each, take_rows
from site_client.monitoring.report import MonitoredStudy
from site_client.monitoring.tensors import exact_counts, score_rows
from site_client.sources.table import PatientTable, read_table
from tests.lib.event_hospital import SOURCE, admissions_plan, write_meds_hospital
from tests.lib.monitored_site import (
    MonitoredSite,
    make_monitored_site,
    monitored_plan,
    seconds,
    some_model,
)

FEBRUARY = parse_period("2026-02", "month")


def _study(site: MonitoredSite) -> MonitoredStudy:
    return site.monitor.study(site.study_id)


def _patients(site: MonitoredSite, kind: ReportKind, label: str) -> PatientTable:
    request = site.monitor.asked(_study(site), label, kind, is_late_allowed=True)
    return site.monitor.patients(request, site.monitor.new_rows())


def _scores(site: MonitoredSite, table: PatientTable) -> Any:
    parameters, scaling = _study(site).model.arrays(site.plan)
    return score_rows(
        table,
        site.plan,
        parameters,
        scaling,
        salt=site.site.keys.salt,
        expected=400,
        stream=np.random.default_rng(5),
    )


def _tensors(plan: StudyPlan, kind: ReportKind, table: PatientTable, scores: Any) -> dict[str, Any]:
    flat = exact_counts(table, scores, plan, kind).for_the_site_alone()
    found, place = {}, 0
    for tensor in report_tensors(plan, kind):
        found[tensor.name] = flat[place : place + tensor.cells].reshape(tensor.shape)
        place += tensor.cells
    assert place == len(flat)
    return found


def _slow_score(plan: StudyPlan, frame: pandas.DataFrame, content: bytes, site: Any) -> Any:
    """Each row alone through the model, from columns made by hand."""
    parameters, _ = _study(site).model.arrays(plan)
    model = build_model(plan)
    load_parameters(model, parameters)
    out = []
    for row in frame.itertuples():
        columns = [(min(max(row.age, 20), 90) - 20) / 70 * 2 - 1]
        missing = math.isnan(row.sbp)
        columns += [0.0 if missing else (min(max(row.sbp, 90), 200) - 90) / 110 * 2 - 1, missing]
        columns += [row.sex == "f", row.sex == "m", row.sex == "?"]
        logit = model(torch.tensor([[float(item) for item in columns]]))
        out.append(float(torch.sigmoid(logit.detach().double())))
    return np.array(out)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> MonitoredSite:
    made = make_monitored_site(tmp_path_factory.mktemp("table"), now="2026-01-15")
    made.begin()
    made.clock.seconds = seconds("2026-06-30")
    return made


def _frame(site: MonitoredSite, table: PatientTable) -> pandas.DataFrame:
    """The table's lines of the drawn rows, found by pandas in the file itself."""
    lines = pandas.read_csv(site.paths.home / "patients.csv", dtype={"stroke": "string"})
    lines = lines[lines.seen.str.startswith("2026-02")]
    frames = []
    for place, subject in enumerate(table.subject_ids):
        mine = lines[(lines.patient == subject) & (lines.age == table.numeric["age"][place])]
        sbp = table.numeric["systolic_bp"][place]
        mine = mine[mine.sbp.isna() if math.isnan(sbp) else mine.sbp == sbp]
        assert len(mine) >= 1
        frames.append(mine.iloc[:1])
    return pandas.concat(frames)


def test_a_case_mix_counts_one_row_of_each_patient_of_the_month_as_pandas_does(
    site: MonitoredSite,
) -> None:
    table = _patients(site, ReportKind.CASE_MIX, "2026-02")
    lines = pandas.read_csv(site.paths.home / "patients.csv", dtype={"stroke": "string"})
    month = lines[lines.seen.str.startswith("2026-02")]
    assert sorted(table.subject_ids) == sorted(month.patient.unique())
    assert len(set(table.subject_ids)) < len(month)  # somebody came twice
    frame = _frame(site, table)
    scores = _slow_score(site.plan, frame, some_model(site.plan), site)
    assert np.allclose(scores, _scores(site, table), atol=1e-7)
    found = _tensors(site.plan, ReportKind.CASE_MIX, table, _scores(site, table))
    ages = pandas.cut(
        frame.age, [-np.inf, *(20 + 70 / 6 * k for k in range(1, 6)), np.inf], right=False
    )
    assert found["sentinels/age"].tolist() == [*ages.value_counts(sort=False).tolist(), 0]
    pressure = pandas.cut(
        frame.sbp, [-np.inf, *(90 + 110 / 6 * k for k in range(1, 6)), np.inf], right=False
    )
    assert found["sentinels/systolic_bp"].tolist() == [
        *pressure.value_counts(sort=False).tolist(),
        int(frame.sbp.isna().sum()),
    ]
    sexes = [int((frame.sex == sex).sum()) for sex in ("f", "m", "?")]
    assert found["sentinels/sex"].tolist() == sexes
    edges = [-1, *site.plan.monitoring.score_edges, 2]  # type: ignore[union-attr]
    bins = pandas.cut(scores, edges, right=False)
    assert found["scores"].tolist() == pandas.Series(bins).value_counts(sort=False).tolist()
    four = pandas.cut(scores, [-1, 0.2, 0.5, 0.8, 2], right=False)
    crossed = pandas.crosstab(
        pandas.Categorical(frame.sex, ["f", "m", "?"]), four, dropna=False
    ).to_numpy()
    assert found["group_scores/sex"].tolist() == crossed.tolist()


def test_an_outcome_report_gives_the_metrics_of_scikit_learn_on_the_same_bins(
    site: MonitoredSite,
) -> None:
    table = _patients(site, ReportKind.OUTCOME, "2026-02")
    scores = _scores(site, table)
    found = _tensors(site.plan, ReportKind.OUTCOME, table, scores)
    overall = found["overall"]
    assert overall.shape == (2, 10)
    assert found["groups/sex"].sum(axis=0).sum() == overall.sum() == table.rows
    assert set(table.label) == {0.0, 1.0}
    middles = np.linspace(0.05, 0.95, 10)
    binned = middles[np.searchsorted(np.linspace(0.1, 0.9, 9), scores, side="right")]
    rank = np.cumsum(overall[0]) - overall[0] / 2
    auroc = float((overall[1] * rank).sum() / overall[0].sum() / overall[1].sum())
    assert auroc == pytest.approx(roc_auc_score(table.label, binned), abs=1e-12)
    brier = float((overall[1] * (1 - middles) ** 2 + overall[0] * middles**2).sum() / table.rows)
    assert brier == pytest.approx(brier_score_loss(table.label, binned), abs=1e-12)


def test_patients_without_an_outcome_are_in_the_case_mix_and_not_in_the_outcome(
    site: MonitoredSite,
) -> None:
    mixed = _patients(site, ReportKind.CASE_MIX, "2026-02")
    known = _patients(site, ReportKind.OUTCOME, "2026-02")
    lines = pandas.read_csv(site.paths.home / "patients.csv")
    lines = lines[lines.seen.str.startswith("2026-02")]
    assert set(mixed.subject_ids) == set(lines.patient)
    assert set(known.subject_ids) == set(lines[lines.stroke.notna()].patient)
    assert len(known.subject_ids) < len(mixed.subject_ids)


def test_the_reference_is_of_held_out_patients_seen_before_the_promotion(
    site: MonitoredSite,
) -> None:
    table = _patients(site, ReportKind.REFERENCE, "reference")
    lines = pandas.read_csv(site.paths.home / "patients.csv")
    before = lines[(lines.seen < "2026-01-15") & lines.stroke.notna()]
    held_out = {name for name in before.patient if patient_part(name, salt=b"s" * 32) < 250_000}
    assert set(table.subject_ids) == held_out
    assert len(table.subject_ids) == len(held_out) > 5


def test_the_same_row_of_a_patient_is_drawn_again_and_another_salt_draws_others(
    site: MonitoredSite,
) -> None:
    first = _patients(site, ReportKind.CASE_MIX, "2026-02")
    again = _patients(site.reopened(), ReportKind.CASE_MIX, "2026-02")
    assert first.numeric["age"].tolist() == again.numeric["age"].tolist()
    assert first.subject_ids == again.subject_ids
    whole = read_table(
        site.plan,
        site.config.source,
        folder=site.paths.home,
        is_monitored=True,  # type: ignore[arg-type]
    )
    assert whole.index_time is not None
    every = np.arange(whole.rows)
    ages = [
        one_row_each(whole, whole.index_time, every, label="2026-02", salt=salt).numeric["age"]
        for salt in (b"s" * 32, b"s" * 32, b"t" * 32)
    ]
    assert ages[0].tolist() == ages[1].tolist()
    assert sorted(ages[0].tolist()) != sorted(ages[2].tolist())


@settings(deadline=None, max_examples=30)
@given(place=st.integers(0, 10_000), kind=st.sampled_from(ReportKind))
def test_a_patient_more_is_one_more_in_one_cell_of_each_tensor_and_nothing_else(
    site: MonitoredSite, place: int, kind: ReportKind
) -> None:
    table = _patients(site, ReportKind.OUTCOME, "2026-02")
    scores = _scores(site, table)
    gone = place % table.rows
    others = np.array([row for row in range(table.rows) if row != gone])
    with_all = _tensors(site.plan, kind, table, scores)
    without = _tensors(site.plan, kind, take_rows(table, others), scores[others])
    for name, counts in with_all.items():
        change = (counts - without[name]).ravel()
        assert sorted(change.tolist()) == [0] * (len(change) - 1) + [1], name
    # ... and nobody else's score changes when the patient is gone.
    assert np.allclose(_scores(site, take_rows(table, others)), scores[others], atol=1e-7)


def test_own_edges_and_values_at_an_edge_go_to_the_bin_above(tmp_path: Path) -> None:
    plan = monitored_plan(
        monitoring__sentinel_edges=[{"feature": "age", "edges": [40, 65]}],
    )
    made = make_monitored_site(tmp_path, plan=plan)
    (tmp_path / "patients.csv").write_text(
        "patient,seen,age,sbp,sex,stroke\n"
        + "".join(f"p{age},2026-02-01,{age},,f,0\n" for age in range(38, 68))
    )
    made.begin()
    made.clock.seconds = seconds("2026-03-05")
    table = _patients(made, ReportKind.CASE_MIX, "2026-02")
    counts = _tensors(plan, ReportKind.CASE_MIX, table, _scores(made, table))
    assert counts["sentinels/age"].tolist() == [2, 25, 3, 0]  # 38-39, 40-64, 65-67
    assert counts["sentinels/systolic_bp"].tolist() == [0, 0, 0, 0, 0, 0, 30]


def test_an_event_source_is_read_as_it_is_now_and_the_reference_is_of_the_rows_of_training(
    tmp_path: Path,
) -> None:
    plan = admissions_plan(
        label__follow_up="required",
        monitoring={
            "sentinel_features": ["creatinine", "sex"],
            "epsilon_per_report": 1.0,
            "patients_min": 20,
        },
    )
    made = make_monitored_site(
        tmp_path,
        plan=plan,
        source=SOURCE,
        write_data=lambda place: write_meds_hospital(place, patients=300),
        now="2023-11-15",
    )
    made.begin()
    features = made.site.records.feature_pins
    from site_client.site_features import builder_of

    assert features is not None
    builder = builder_of(made.config.source, paths=made.paths, clock=made.clock)  # type: ignore[arg-type]
    built = builder.build(plan).entry
    features.pin(plan_digest(plan), built.id)
    before = _patients(made, ReportKind.REFERENCE, "reference")
    for file in (tmp_path / "meds/data/all").iterdir():
        file.unlink()
    for file in (tmp_path / "meds/metadata").iterdir():
        file.unlink()
    (tmp_path / "meds/metadata").rmdir()
    write_meds_hospital(tmp_path, patients=400, seed=2)
    made.clock.seconds = seconds("2023-12-31")
    after = _patients(made, ReportKind.REFERENCE, "reference")
    assert after.subject_ids == before.subject_ids
    mixed = _patients(made, ReportKind.CASE_MIX, "2023-05")
    known = _patients(made, ReportKind.OUTCOME, "2023-05")
    assert len(mixed.subject_ids) > len(known.subject_ids) > 0  # follow-up is required for outcomes
    assert set(known.subject_ids) <= set(mixed.subject_ids)
    tensors = _tensors(plan, ReportKind.CASE_MIX, mixed, _scores(made, mixed))
    assert tensors["sentinels/creatinine"].sum() == len(mixed.subject_ids)
    sex = next(item for item in plan.features if isinstance(item, CategoricalFeature))
    assert tensors["sentinels/sex"][-1] == (mixed.levels[sex.name] == -1).sum()


@pytest.mark.parametrize(("kind", "until"), [("case-mix", "2023-06-01"), ("outcome", "2023-07-01")])
def test_no_report_is_made_of_data_that_are_declared_to_end_before_it_is_due(
    tmp_path: Path, kind: str, until: str
) -> None:
    monitoring = {"sentinel_features": ["sex"], "epsilon_per_report": 1.0}
    plan = admissions_plan(monitoring=monitoring)
    end = datetime.date.fromisoformat(until)
    for place, is_late in (("short", True), ("whole", False)):
        declared = end - datetime.timedelta(days=1) if is_late else end
        made = make_monitored_site(
            tmp_path / place,
            plan=plan,
            source=f"{SOURCE}data_until = {declared.isoformat()}\n",
            write_data=lambda folder: write_meds_hospital(folder, patients=60),
            now="2023-05-15",
        )
        made.begin()
        made.clock.seconds = seconds("2023-12-31")
        if not is_late:
            assert _patients(made, ReportKind(kind), "2023-05").rows > 0
            continue
        with pytest.raises(DataSourceError, match="end before"):
            _patients(made, ReportKind(kind), "2023-05")
