"""Each numbered rule from tests to states, and from states to reasons."""

from __future__ import annotations

from common.study.report_tensors import ReportKind
from server.monitor_board.signal_rules import (
    is_concept,
    is_covariate,
    is_data,
    is_fairness,
    is_prior,
    state_of_signal,
    state_of_site,
)
from server.monitor_board.signal_types import Metric, QuarterlyLook, State, Watch

SENTINELS = 20


def _watch(metric: Metric, subject: str = "") -> Watch:
    return Watch(metric, ReportKind.CASE_MIX, "tensor", subject)


def _sentinels(number: int) -> set[Watch]:
    return {_watch(Metric.SENTINEL, f"feature {place}") for place in range(number)}


MISSING = _watch(Metric.MISSING, "feature 0")
SCORES, PREVALENCE = _watch(Metric.SCORES), _watch(Metric.PREVALENCE)
AUROC, SLOPE = _watch(Metric.AUROC), _watch(Metric.CALIBRATION_SLOPE)
INTERCEPT = _watch(Metric.CALIBRATION_INTERCEPT)
GAP = Watch(Metric.SENSITIVITY_GAP, ReportKind.OUTCOME, "tensor", "sex", 0)


def _state(
    *,
    is_compared: bool = True,
    is_at_alarm: bool = False,
    is_beyond: bool = False,
    is_found: bool = False,
    look: QuarterlyLook | None = None,
) -> State:
    return state_of_signal(
        is_compared=is_compared,
        is_at_alarm=is_at_alarm,
        is_beyond=is_beyond,
        is_found=is_found,
        look=look,
    )


def test_rule_1_nothing_compared_is_insufficient_whatever_the_level() -> None:
    assert _state(is_compared=False, is_at_alarm=True, is_beyond=True) is State.INSUFFICIENT


def test_rule_2_an_alert_needs_the_level_and_an_effect_beyond_the_tolerance() -> None:
    assert _state(is_at_alarm=True, is_beyond=True) is State.ALERT
    assert _state(is_at_alarm=True, is_beyond=False) is State.WATCH
    assert _state(is_at_alarm=False, is_beyond=True) is State.OK


def test_rule_3_a_quarterly_look_alerts_with_a_small_p_value_and_an_effect() -> None:
    assert _state(look=QuarterlyLook("2026-Q1", 0.2, 1e-6, 1e-5, is_beyond=True)) is State.ALERT
    assert _state(look=QuarterlyLook("2026-Q1", 0.2, 1e-4, 1e-5, is_beyond=True)) is State.OK
    assert _state(look=QuarterlyLook("2026-Q1", 0.2, 1e-6, 1e-5, is_beyond=False)) is State.OK


def test_rule_4_a_finding_of_the_round_is_to_watch() -> None:
    assert _state(is_found=True) is State.WATCH
    assert _state(is_found=True, is_beyond=True) is State.WATCH


def test_rule_5_else_a_signal_is_ok() -> None:
    assert _state() is State.OK


def test_rule_6_a_site_is_as_its_worst_signal() -> None:
    ok, watch, few = State.OK, State.WATCH, State.INSUFFICIENT
    assert state_of_site([ok, watch, State.ALERT], is_silent=True) is State.ALERT
    assert state_of_site([ok, watch], is_silent=True) is State.SILENT
    assert state_of_site([ok, watch, few], is_silent=False) is watch
    assert state_of_site([ok, few], is_silent=False) is ok
    assert state_of_site([few, few], is_silent=False) is few
    assert state_of_site([], is_silent=False) is few


def test_rule_7_data_is_few_inputs_at_one_site_or_missing_values() -> None:
    def holds(raised: set[Watch], **elsewhere: float) -> bool:
        shares = {
            _watch(Metric.SENTINEL, name.replace("_", " ")): elsewhere[name] for name in elsewhere
        }
        return is_data(raised, sentinels=SENTINELS, share_elsewhere=shares)

    assert holds(_sentinels(1))
    assert holds(_sentinels(5))
    assert not holds(_sentinels(6))
    assert holds({MISSING})
    assert not holds(_sentinels(1), feature_0=0.6)
    assert holds(_sentinels(2), feature_0=0.6)
    assert is_data({MISSING}, sentinels=SENTINELS, share_elsewhere={MISSING: 1.0})
    assert not holds({SCORES, AUROC})


def test_rule_8_covariate_is_many_inputs_or_scores_while_the_model_fits() -> None:
    def holds(raised: set[Watch], *, is_of_data: bool = False) -> bool:
        return is_covariate(raised, sentinels=SENTINELS, is_of_data=is_of_data)

    assert holds(_sentinels(10) | {SCORES})
    assert holds({SCORES})
    assert not holds(_sentinels(2), is_of_data=True)
    assert holds(_sentinels(2), is_of_data=False)
    for doubt in (AUROC, SLOPE, INTERCEPT):
        assert not holds(_sentinels(10) | {SCORES, doubt})
    assert not holds({PREVALENCE})


def test_rule_9_prior_is_prevalence_alone_or_the_intercept() -> None:
    assert is_prior({PREVALENCE})
    assert is_prior({PREVALENCE, INTERCEPT, SCORES})
    assert not is_prior({PREVALENCE, SCORES})
    assert not is_prior({PREVALENCE, INTERCEPT, AUROC})
    assert not is_prior({INTERCEPT, SLOPE})


def test_rule_10_concept_is_auroc_or_slope() -> None:
    assert is_concept({AUROC})
    assert is_concept({SLOPE, INTERCEPT})
    assert not is_concept({INTERCEPT, PREVALENCE, SCORES} | _sentinels(10))


def test_rule_11_fairness_is_a_gap_whose_interval_excludes_the_tolerance() -> None:
    assert is_fairness({GAP})
    assert not is_fairness(set())
