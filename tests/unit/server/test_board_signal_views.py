"""What pages show is what the signals and statistics say, site by site and for all together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from common.study.report_periods import parse_period
from common.study.report_tensors import ReportKind
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.plan_watches import plan_watches
from server.monitor_board.signal_types import Metric, State
from server.monitor_board.signals import BoardSignals, assess, trail_of
from server.monitor_board.statistics.noisy_counts import NoisyCounts
from server.monitor_board.web.pages import content, render_site, summary
from server.monitor_board.web.performance_views import performance_of, sum_of
from server.monitor_board.web.selection import Query
from server.monitor_board.web.states import RANKS
from server.monitor_board.web.store_views import ProtocolRecords, StudyRecords, study_view
from server.monitor_board.web.views import ALL_SITES, StudyView
from tests.lib.board_views import make_view
from tests.lib.html_pages import Page
from tests.lib.monitored import World, make_reports, monitored_plan, weeks

PLAN = monitored_plan(numeric=4)
WEEKS = weeks(4)
SITES = ("harbour", "hill", "lake")
NOW_S = parse_period(WEEKS[-1], "week").end_s


@pytest.fixture(scope="module")
def reports() -> list[KeptReport]:
    """Three sites; at the lake one feature's unit changed in the last week."""
    return make_reports(
        PLAN,
        WEEKS,
        sites=SITES,
        patients=8_000,
        reference_patients=8_000,
        rng=np.random.default_rng(3),
        of_site={"lake": {WEEKS[-1]: World(shifts={"marker_01": 2.0})}},
    )


def _records(reports: Sequence[KeptReport]) -> StudyRecords:
    return StudyRecords(PLAN, reports, {}, (), ProtocolRecords(None, (), (), (), (), ()))


@pytest.fixture(scope="module")
def study(reports: list[KeptReport]) -> StudyView:
    return study_view(_records(reports), now_s=NOW_S)


@pytest.fixture(scope="module")
def signals(reports: list[KeptReport]) -> BoardSignals:
    return assess(PLAN, reports, now_s=NOW_S, expected={})


def test_the_heat_map_has_each_familys_worst_signal_with_its_estimate(
    study: StudyView, signals: BoardSignals
) -> None:
    families = {
        "features": {Metric.SENTINEL},
        "scores": {Metric.SCORES},
        "auroc": {Metric.AUROC},
        "calibration": {Metric.CALIBRATION_SLOPE, Metric.CALIBRATION_INTERCEPT},
    }
    keys = [column.key for column in study.columns]
    for row, site in zip(study.rows, signals.sites, strict=True):
        assert (row.site_id, row.state, row.reasons) == (site.site_id, site.state, site.reasons)
        for key, metrics in families.items():
            cell = row.cells[keys.index(key)]
            found = [item for item in site.signals if item.watch.metric in metrics]
            assert cell.state is min((item.state for item in found), key=RANKS.__getitem__)
            assert cell.number is not None
            assert cell.number.value in [item.estimate for item in found]


def test_a_changed_unit_is_an_alert_that_names_its_feature(study: StudyView) -> None:
    rows = {row.site_id: row for row in study.rows}
    [cell] = [
        cell
        for column, cell in zip(study.columns, rows["lake"].cells, strict=True)
        if column.key == "features"
    ]
    assert cell.state is State.ALERT
    assert "marker_01" in cell.words
    [finding] = study.sites["lake"].findings
    assert "marker_01" in finding.words
    assert rows["hill"].state is State.OK


def test_a_sites_page_has_every_signal_and_its_course(
    study: StudyView, signals: BoardSignals
) -> None:
    for site in signals.sites:
        shown = study.sites[str(site.site_id)]
        assert len(shown.signals) == len(site.signals) == len(plan_watches(PLAN))
        assert len(shown.series) == len(site.signals)
        assert len({series.key for series in shown.series}) == len(shown.series)
        by_name = {item.name: item for item in site.signals}
        for row in shown.signals:
            signal = by_name[row.metric]
            assert (row.number.value, row.p_value, row.effect) == (
                signal.estimate,
                signal.p_value,
                signal.change,
            )
            assert row.evidence == pytest.approx(max(0.0, signal.level / signal.alarm))
    lake = signals.sites[-1]
    auroc = next(item for item in lake.signals if item.watch.metric is Metric.AUROC)
    [series] = [item for item in study.sites["lake"].series if item.key == "auroc"]
    trail = trail_of(signals, lake.site_id, auroc.watch)
    assert [point.number.value for point in series.points] == [item.estimate for item in trail]


def test_a_sites_page_first_shows_courses_of_all_patients_and_what_is_raised(
    study: StudyView,
) -> None:
    site = study.sites["lake"]
    view = make_view(study)
    short = Page(render_site(view, study, site, stale=False))
    whole = Page(render_site(view, study, site, stale=False, whole=True))
    shown = {caption for caption in short.tables if caption.endswith(", Site lake")}
    assert "The distribution of marker_01, Site lake" in shown
    assert "AUROC, Site lake" in shown
    assert len(shown) == sum(series.is_main for series in site.series)
    assert len(whole.tables) - len(short.tables) == len(site.series) - len(shown)
    assert "/study/" + study.study_id + "/site/lake?courses=all" in short.addresses()


def test_all_sites_together_have_a_page_and_a_reliability_diagram(study: StudyView) -> None:
    assert study.pooled is not None
    assert study.pooled.site_id == ALL_SITES
    assert study.pooled.performance is not None
    assert study.pooled.performance.title.startswith("All sites together (3 reported)")


def test_one_site_alone_has_no_page_of_all_together(reports: list[KeptReport]) -> None:
    alone = study_view(_records([x for x in reports if x.site_id == "hill"]), now_s=NOW_S)
    assert alone.pooled is None
    assert {row.where for row in alone.fairness.rows} == {"hill"}


def test_every_gap_is_shown_with_its_signals_state(study: StudyView, signals: BoardSignals) -> None:
    places = [ALL_SITES, *SITES]
    assert {row.where for row in study.fairness.rows} == set(places)
    # sex has one comparison, four age bands have four; six measures each
    assert len(study.fairness.rows) == len(places) * 6 * (1 + 4)
    assert study.fairness.rows[0].where == ALL_SITES
    untested = {row.metric for row in study.fairness.rows if row.state is None}
    assert untested == {"demographic parity", "discrimination by group"}
    hill = signals.sites[1]
    tested = [item for item in hill.signals if item.watch.metric is Metric.SENSITIVITY_GAP]
    rows = [
        row
        for row in study.fairness.rows
        if row.where == "hill" and row.metric == "equal opportunity"
    ]
    assert [row.number.value for row in rows] == pytest.approx([item.estimate for item in tested])
    assert [row.state for row in rows] == [item.state for item in tested]


def test_the_worst_group_of_each_measure_is_named_for_all_sites_together(study: StudyView) -> None:
    worst = study.fairness.worst
    assert {item.where for item in worst} == {ALL_SITES}
    lowest = next(item for item in worst if item.metric == "lowest sensitivity")
    gaps = [
        row
        for row in study.fairness.rows
        if (row.where, row.feature, row.metric) == (ALL_SITES, lowest.feature, "equal opportunity")
    ]
    assert lowest.number.value is not None
    if len(gaps) > 1:  # one gap a level: the worst level's is the lowest
        known = [row for row in gaps if row.number.value is not None]
        assert min(known, key=lambda row: row.number.value or 0).level == lowest.level


def test_the_summary_counts_every_site_once_in_each_column(study: StudyView) -> None:
    for _, counts in summary(study):
        assert sum(counts.values()) == len(SITES)


def test_the_report_file_has_every_site_in_the_overview(study: StudyView) -> None:
    assert len(content(study, "overview", None)["part"].rows) == len(SITES)
    gaps = content(study, "fairness", None)["part"].rows
    assert {row.where for row in gaps if row.state is State.OK} == {ALL_SITES}
    assert len(content(study, "fairness", Query())["part"].rows) == 50


def test_a_new_model_version_is_the_newest_and_the_page_shows_it_alone(
    reports: list[KeptReport],
) -> None:
    newest = max((x for x in reports if x.kind is ReportKind.OUTCOME), key=lambda x: x.period)
    other = dataclasses.replace(
        newest, model_version="cd" * 32, received_at_s=9, sequence=newest.sequence + 1
    )
    model = study_view(_records([*reports, other]), now_s=NOW_S).model
    assert [(item.version, item.is_newest) for item in model.versions] == [
        ("cd" * 32, True),
        (newest.model_version, False),
    ]
    [performance] = model.performances
    assert performance.title.startswith("All sites together (1 reported)")


def test_without_noise_roc_and_auroc_are_those_of_scikit_learn() -> None:
    assert PLAN.monitoring is not None
    edges = PLAN.monitoring.score_edges
    rng = np.random.default_rng(8)
    counts = rng.integers(40, 400, size=(2, len(edges) + 1))
    found = performance_of(NoisyCounts(counts, 0.0), PLAN.monitoring, title="", period="")
    bins = np.concatenate([np.repeat(np.arange(counts.shape[1]), row) for row in counts])
    label = np.repeat([0, 1], counts.sum(axis=1))
    assert dict(found.metrics)["AUROC"].value == pytest.approx(roc_auc_score(label, bins), abs=1e-9)
    false_rate, true_rate, at = roc_curve(label, bins, drop_intermediate=False)
    expected = {
        int(edge): (fpr, tpr)
        for fpr, tpr, edge in zip(false_rate[1:], true_rate[1:], at[1:], strict=True)
    }
    for place, point in enumerate(found.roc, start=1):
        shown = (point.false_positive_rate.value, point.true_positive_rate.value)
        assert shown == pytest.approx(expected[place], abs=1e-9)
    for place, item in enumerate(found.reliability):
        share = counts[1, place] / counts[:, place].sum()
        assert item.observed.value == pytest.approx(share, abs=1e-9)
        assert item.patients == counts[:, place].sum()


def test_sums_of_reports_add_counts_and_variances() -> None:
    parts = [NoisyCounts(np.array([1, 2]), 3.0), NoisyCounts(np.array([10, 20]), 4.0)]
    total = sum_of(parts)
    assert total.values.tolist() == [11, 22]
    assert total.sd == pytest.approx(5.0)
