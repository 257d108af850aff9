"""Reports of sites with known laws to states and reasons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from common.ids import Digest, SiteId
from common.study.report_periods import parse_period, report_late_s
from common.study.report_tensors import ReportKind
from server.monitor_board.alarm_levels import alarm_levels
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.plan_watches import plan_watches
from server.monitor_board.signal_types import Metric, Reason, State
from server.monitor_board.signals import BoardSignals, assess, trail_of
from server.monitor_board.statistics.noisy_counts import NoisyCounts
from tests.lib.monitored import SAME, World, make_report, make_reports, monitored_plan, weeks

PLAN = monitored_plan(numeric=8)
SITES = [f"site-{place}" for place in range(6)]
WEEKS = weeks(8)
CHANGED = SITES[0]


def _reports(
    world: World, *, patients: int = 10_000, seed: int = 5, sites: list[str] = SITES
) -> list[KeptReport]:
    """Return eight weeks, in the last three of which the first site is in another world."""
    return make_reports(
        PLAN,
        WEEKS,
        sites=sites,
        patients=patients,
        reference_patients=20_000,
        rng=np.random.default_rng(seed),
        of_site={CHANGED: dict.fromkeys(WEEKS[5:], world)},
    )


def _assess(reports: list[KeptReport]) -> BoardSignals:
    return assess(PLAN, reports, now_s=0, expected={})


SHIFTED = {f"marker_{place:02d}": 0.25 for place in range(5)}


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (World(shifts={"marker_00": 1.0}), Reason.DATA),
        (World(missing={"marker_03": 0.2}), Reason.DATA),
        (World(shifts=SHIFTED, score_shift=0.3), Reason.COVARIATE),
        (World(intercept=0.5), Reason.PRIOR),
        (World(slope=0.5, intercept=-0.8), Reason.CONCEPT),
        (World(group_slope=0.3), Reason.FAIRNESS),
    ],
    ids=["unit", "missing", "case mix", "prevalence", "slope", "group"],
)
def test_a_known_change_alerts_at_its_site_with_its_reason(world: World, reason: Reason) -> None:
    board = _assess(_reports(world))
    changed, *others = board.sites
    assert changed.state is State.ALERT
    assert reason in changed.reasons
    certain = [finding.reason for finding in changed.findings if finding.is_certain]
    assert certain == [reason]
    assert all(site.state in (State.OK, State.WATCH) for site in others)


def test_a_flagged_report_is_judged_by_itself_and_enters_no_pool() -> None:
    sites, odd = SITES[:3], World(shifts={"marker_00": 3.0}, slope=0.3)
    reports = make_reports(
        PLAN,
        WEEKS[:4],
        sites=sites,
        patients=10_000,
        reference_patients=20_000,
        rng=np.random.default_rng(3),
        of_site={CHANGED: {WEEKS[2]: odd}},
    )

    def is_odd(report: KeptReport) -> bool:
        return report.site_id == CHANGED and report.period == WEEKS[2]

    flagged = _assess([replace(item, is_flagged=is_odd(item)) for item in reports])
    without = _assess([item for item in reports if not is_odd(item)])
    for watch in plan_watches(PLAN):
        for site in (None, *map(SiteId, sites)):
            shown, expected = (trail_of(board, site, watch) for board in (flagged, without))
            for point, other in zip(shown, expected, strict=True):
                if site == CHANGED and point.period == WEEKS[2]:
                    assert point.p_value is not None  # it is shown all the same
                    assert other.p_value is None
                else:
                    fields = ("estimate", "change", "p_value")
                    found = [getattr(point, name) for name in fields]
                    expected_values = [getattr(other, name) for name in fields]
                    assert found == pytest.approx(expected_values, rel=1e-9)
    pooled = _assess(reports)
    watch = next(item for item in plan_watches(PLAN) if item.subject == "marker_00")
    used, left_out = (trail_of(board, None, watch)[2].p_value for board in (pooled, flagged))
    assert used is not None and left_out is not None
    assert used < 1e-6 < left_out


def test_without_a_change_no_site_alerts() -> None:
    board = _assess(_reports(SAME))
    assert State.ALERT not in {site.state for site in board.sites}
    assert board.pooled is not None
    assert board.pooled.state is not State.ALERT


def test_a_change_at_every_site_alerts_for_all_together() -> None:
    world = World(intercept=0.4)
    reports = make_reports(
        PLAN,
        WEEKS,
        sites=SITES,
        patients=1_500,
        reference_patients=5_000,
        rng=np.random.default_rng(9),
        worlds=dict.fromkeys(WEEKS[5:], world),
    )
    board = _assess(reports)
    assert board.pooled is not None
    assert board.pooled.state is State.ALERT
    assert Reason.PRIOR in board.pooled.reasons


def test_a_change_smaller_than_the_tolerance_is_to_watch_at_most() -> None:
    small = World(shifts=dict.fromkeys(SHIFTED, 0.06))
    assert _assess(_reports(small)).sites[0].state in (State.WATCH, State.OK)


def test_too_few_patients_are_insufficient_and_never_an_alert() -> None:
    board = _assess(_reports(World(intercept=3.0), patients=30))
    assert {site.state for site in board.sites} == {State.INSUFFICIENT}
    assert all(signal.estimate is None for signal in board.sites[0].signals)


def test_a_first_report_without_a_reference_is_insufficient() -> None:
    reports = [
        report
        for report in _reports(SAME)
        if report.kind is not ReportKind.REFERENCE and report.period == WEEKS[0]
    ]
    states = {
        signal.watch.metric: signal.state
        for site in _assess(reports).sites
        for signal in site.signals
    }
    assert states[Metric.AUROC] is State.INSUFFICIENT
    assert states[Metric.SENTINEL] is State.INSUFFICIENT


def test_scores_are_compared_only_within_a_model_version() -> None:
    reports = _reports(SAME)
    other = World(score_shift=1.0)
    newer = make_report(
        PLAN,
        ReportKind.CASE_MIX,
        weeks(9)[8],
        site=CHANGED,
        patients=10_000,
        rng=np.random.default_rng(1),
        world=other,
        sequence=99,
    )
    states = {}
    for version in (newer.model_version, Digest("c3" * 32)):
        board = _assess([*reports, replace(newer, model_version=version)])
        found = {signal.watch.metric: signal for signal in board.sites[0].signals}
        states[version] = found[Metric.SCORES].state, found[Metric.SENTINEL].state
    assert states[newer.model_version][0] is State.ALERT
    assert states[Digest("c3" * 32)] == (State.INSUFFICIENT, State.OK)


def test_a_report_is_silent_after_its_deadline_and_not_before() -> None:
    reports = [
        report
        for report in _reports(SAME)
        if (report.site_id, report.kind, report.period) != (CHANGED, ReportKind.CASE_MIX, WEEKS[-1])
    ]
    last = parse_period(WEEKS[-1], "week")
    late_s = report_late_s(PLAN, ReportKind.CASE_MIX, last)
    expected = {SiteId(site): parse_period(WEEKS[0], "week").begin_s for site in SITES}
    before = assess(PLAN, reports, now_s=late_s, expected=expected)
    assert not any(site.missing for site in before.sites)
    after = assess(PLAN, reports, now_s=late_s + 1, expected=expected)
    silent, *others = after.sites
    assert silent.state is State.SILENT
    assert [(item.kind, item.period) for item in silent.missing] == [
        (ReportKind.CASE_MIX, WEEKS[-1])
    ]
    assert silent.reasons == (Reason.SILENT,)
    assert not any(site.missing for site in others)


def test_a_site_that_never_reported_is_listed_and_silent() -> None:
    begin = parse_period(WEEKS[0], "week")
    now_s = report_late_s(PLAN, ReportKind.CASE_MIX, begin) + 1
    board = assess(PLAN, [], now_s=now_s, expected={SiteId("new"): begin.begin_s})
    assert [(site.site_id, site.state) for site in board.sites] == [("new", State.SILENT)]
    assert board.pooled is None


def test_a_period_that_had_begun_is_not_owed() -> None:
    begin = parse_period(WEEKS[0], "week")
    now_s = report_late_s(PLAN, ReportKind.CASE_MIX, begin) + 1
    board = assess(PLAN, [], now_s=now_s, expected={SiteId("new"): begin.begin_s + 1})
    assert board.sites[0].missing == ()


def test_a_site_that_falls_silent_does_not_look_like_drift_of_all() -> None:
    rng = np.random.default_rng(4)
    large = make_reports(
        PLAN,
        WEEKS,
        sites=["large"],
        patients=20_000,
        reference_patients=20_000,
        rng=rng,
        worlds=dict.fromkeys(["reference", *WEEKS], World(intercept=1.0)),
    )
    reference = make_report(
        PLAN,
        ReportKind.REFERENCE,
        "reference",
        site="large",
        patients=20_000,
        rng=rng,
        world=World(intercept=1.0),
    )
    reports = [reference, *large[1:], *_reports(SAME)]
    quiet = [report for report in reports if report.site_id != "large" or report.period < WEEKS[5]]
    board = _assess(quiet)
    assert board.pooled is not None
    assert board.pooled.state in (State.OK, State.WATCH)


def test_sums_over_sites_are_judged_by_themselves() -> None:
    reports = _reports(SAME, sites=["all"])
    board = _assess(reports)
    assert [site.site_id for site in board.sites] == ["all"]
    assert board.pooled is None


def test_the_same_reports_in_any_order_give_the_same_signals() -> None:
    reports = _reports(World(slope=0.5))
    shuffled = [reports[place] for place in np.random.default_rng(0).permutation(len(reports))]
    one, other = _assess(reports), _assess(shuffled)
    assert one.sites == other.sites
    assert one.pooled == other.pooled


def test_a_repeated_report_of_a_period_counts_once_and_the_newest() -> None:
    reports = _reports(SAME)
    wrong = replace(
        reports[-1],
        sequence=0,
        tensors={
            name: NoisyCounts(tensor.values * 0, tensor.sd)
            for name, tensor in reports[-1].tensors.items()
        },
    )
    assert _assess([*reports, wrong]).sites == _assess(reports).sites


def test_the_trail_tells_every_period_and_ends_with_the_signal() -> None:
    board = _assess(_reports(World(intercept=0.5)))
    signal = next(item for item in board.sites[0].signals if item.watch.metric is Metric.PREVALENCE)
    trail = trail_of(board, SiteId(CHANGED), signal.watch)
    assert [point.period for point in trail] == WEEKS
    assert (trail[-1].estimate, trail[-1].level) == (signal.estimate, signal.level)
    assert trail_of(board, None, signal.watch)[-1].period == WEEKS[-1]


def test_every_finding_says_what_may_and_may_not_be_concluded() -> None:
    board = _assess(_reports(World(slope=0.5)))
    for site in board.sites:
        for finding in site.findings:
            assert finding.words.endswith(".")
            assert finding.may_conclude
            assert finding.may_not_conclude.startswith(("Not ", "Nothing "))
        assert all(signal.words for signal in site.signals)


def test_an_alert_always_has_a_reason() -> None:
    for world in (World(shifts=SHIFTED), World(shifts={"marker_00": 1.0}, intercept=0.5)):
        for signals in _assess(_reports(world)).sites:
            assert (signals.state is State.ALERT) <= bool(signals.reasons)


def test_the_alarm_level_follows_from_the_plan_alone() -> None:
    levels = alarm_levels(PLAN)
    assert levels.tests == len(plan_watches(PLAN))
    assert np.exp(levels.sequential) == pytest.approx(levels.tests * 53 / 0.04)
    looked_at = sum(not watch.metric.value.endswith("gap") for watch in plan_watches(PLAN))
    assert levels.look_p_value_max == pytest.approx(0.01 / (4 * looked_at))


def test_two_levels_have_one_gap_and_a_feature_that_cannot_be_missing_has_no_missing_test() -> None:
    watches = plan_watches(PLAN)
    gaps = [item for item in watches if item.metric is Metric.SENSITIVITY_GAP]
    assert [(item.subject, item.level) for item in gaps] == [
        ("sex", 0),
        *(("age_band", level) for level in range(4)),
    ]
    missing = {item.subject for item in watches if item.metric is Metric.MISSING}
    assert missing == {f"marker_{place:02d}" for place in range(8)}
