"""What may leave a site, over generated tables: no small count is shown or can be worked out."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from site_client.features.index_dates import Attrition
from site_client.features.site_rows import SiteRows
from site_client.quality.figures import QualityFigures
from site_client.quality.page import page_of
from site_client.quality.report import QualityReport, report_quality
from site_client.quality.shareable_report import SharedFigures, shared_figures
from site_client.quality.suppression import Hidden, Shared, Shown
from site_client.sources.table import FeatureCounts, PatientTable
from tests.lib.plans import make_plan

PLAN = make_plan(features__2__missing="indicator")


@st.composite
def reports(draw: st.DrawFn) -> QualityReport:
    rows = draw(st.integers(1, 220))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    patients = draw(st.sampled_from([rows, max(1, rows // 2)]))
    prevalence, lacking, rare = (draw(st.floats(0, 1)) for _ in range(3))
    table = PatientTable(
        subject_ids=tuple(
            f"patient-{number}-of-house" for number in rng.integers(0, patients, rows)
        )
        if patients < rows
        else tuple(f"patient-{number}-of-house" for number in range(rows)),
        numeric={
            "age": rng.normal(60, 12, rows),
            "systolic_bp": np.where(rng.random(rows) < lacking, np.nan, rng.normal(140, 9, rows)),
        },
        levels={"sex": rng.choice([-1, 0, 1], rows, p=[rare / 2, 1 - rare, rare / 2])},
        label=(rng.random(rows) < prevalence).astype(np.float32),
        counts={item.name: FeatureCounts(rows) for item in PLAN.features},
        unlabelled=draw(st.integers(0, 20)),
    )
    return report_quality(PLAN, SiteRows(table, None))


def totals_of(shared: SharedFigures) -> list[tuple[Shared, ...]]:
    return [
        shared.outcome,
        *(item.parts for item in shared.features),
        *filter(None, [shared.years]),
    ]


def bounds_of(shown: Shown) -> tuple[float, float | None]:
    known = {Hidden.SMALL: (0, 9), Hidden.HELD_BACK: (10, None), Hidden.NOT_SHOWN: (0, None)}
    return known[shown] if isinstance(shown, Hidden) else (max(10, shown - 2), shown + 2)


@given(reports())
@settings(max_examples=40, deadline=None)
def test_from_all_totals_of_a_report_together_no_small_count_can_be_worked_out(
    report: QualityReport,
) -> None:
    if report.figures.patients != report.figures.rows:
        return
    totals = totals_of(shared_figures(PLAN, report.figures))
    cells = [item.count for parts in totals for item in parts]
    # Every total is the number of patients: the last variable, known exactly.
    sums = np.zeros((len(totals), len(cells) + 1))
    start = 0
    for row, parts in enumerate(totals):
        sums[row, start : start + len(parts)] = 1
        sums[row, -1] = -1
        start += len(parts)
    patients = float(report.figures.patients)
    bounds = [*(bounds_of(item) for item in cells), (patients, patients)]
    small = [place for place, item in enumerate(cells) if item is Hidden.SMALL]
    for value in (0.0, 9.0):
        for place in small:
            fixed = [*bounds[:place], (value, value), *bounds[place + 1 :]]
            answer = linprog(
                np.zeros(len(bounds)), A_eq=sums, b_eq=np.zeros(len(totals)), bounds=fixed
            )
            assert answer.success, (value, place)


@given(reports())
@settings(max_examples=40, deadline=None)
def test_a_shareable_page_shows_counts_in_no_other_form(report: QualityReport) -> None:
    document = report.shareable()
    for section in document.sections:
        for chart in section.charts:
            for _, height, text in chart.counts:
                assert (height is None) == (text in {"<10", "held back", "not shown"})
                assert height is None or (height % 5 == 0 and height >= 10)
        for table in section.tables:
            for _, *cells in table.rows:
                for cell in cells:
                    assert re.fullmatch(
                        r"<10|held back|not shown|[\d,]*[05]|0\.\d[05]|1\.00|above 0\.95|"
                        "none, says the plan|used|left out: .*",
                        cell,
                    ), cell
    page = page_of(document)
    assert not any(subject in page for subject in report.rows.table.subject_ids[:5])


def months_only(months: dict[str, int]) -> QualityFigures:
    rows = sum(months.values())
    return QualityFigures(rows, rows, 0, 0, 0, (), (), months, (), None, 0)


@given(st.dictionaries(st.integers(2010, 2030), st.integers(0, 40), min_size=1, max_size=9))
def test_the_first_and_last_year_of_few_patients_have_no_line(years: dict[int, int]) -> None:
    months = {f"{year}-03": rows for year, rows in sorted(years.items())}
    found = shared_figures(PLAN.model_copy(update={"features": ()}), months_only(months)).years
    if not found:
        assert max(years.values()) < 10
        return
    labels = [item.label for item in found]
    assert labels[-1] == "other years"
    assert years[int(labels[0])] >= 10 and years[int(labels[-2])] >= 10


def test_patients_left_out_of_the_cohort_are_told_without_a_total_to_subtract_from() -> None:
    steps = [("entry events", 1203), ("alive", 1200), ("of the plan's ages", 1000)]
    figures = months_only({"2023-01": 1000})
    figures = QualityFigures(
        **{
            **vars(figures),
            "attrition": tuple(Attrition(step, left, left) for step, left in steps),
        }
    )
    shared = shared_figures(PLAN.model_copy(update={"features": ()}), figures)
    assert [(item.label, item.text) for item in shared.left_out] == [
        ("alive", "<10"),
        ("of the plan's ages", "200"),
    ]
    assert "120" not in str(shared)


def test_with_fewer_than_ten_patients_nothing_is_shown() -> None:
    table = PatientTable(
        subject_ids=tuple("abcdefghi"),
        numeric={"age": np.full(9, 50.0), "systolic_bp": np.full(9, 120.0)},
        levels={"sex": np.zeros(9, np.int64)},
        label=np.ones(9, np.float32),
        counts={item.name: FeatureCounts(9) for item in PLAN.features},
        unlabelled=0,
    )
    document = report_quality(PLAN, SiteRows(table, None)).shareable()
    [section] = document.sections
    assert section.tables == () and section.charts == ()
    assert "fewer than 10 patients" in section.paragraphs[0]
