"""Statements against sums done by hand over small ledgers, and their words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from common.clock import FixedClock
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.accountant import epsilon_of, guess_right_max_of
from common.privacy.explanation import Limits, explain, guess_right_max
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.privacy.ledger_entry import Commitment, LedgerEntry
from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)
from common.privacy.spending_limits import Composition, SpendingLimits
from common.privacy.statements import by_period, by_population, by_study, total
from common.privacy.unit import NOT_COVERED_SENTENCE, UNIT_SENTENCE

DELTA, DELTA_TOTAL = 1e-4, 1e-3
HELD_OUT, TRAINED = PatientPart(0, 250_000), PatientPart(250_000, 1_000_000)
TRAIN = DpSgdSteps(4.4493, 0.5, 5, TRAINED)
COUNTS = DiscreteGaussianCounts(2.0, 1, HELD_OUT)
REPORT = GaussianVector(9.0)
LIMITS = SpendingLimits(4.0, DELTA, 8.0, DELTA_TOTAL)
PLAN = Commitment(StudyId("stroke"), Digest("a1" * 32), 3.0, DELTA, ((TRAIN, 10), (COUNTS, 2)))
DECEMBER_S, JANUARY_S = 1_798_675_200, 1_798_761_600  # 31 December 2026 and 1 January 2027, UTC


@pytest.fixture
def entries() -> tuple[LedgerEntry, ...]:
    """A study that stopped after two of ten rounds, then a report that belongs to no plan."""
    store = MemoryLedgerStore()
    december, january = (Ledger(store, FixedClock(at)) for at in (DECEMBER_S, JANUARY_S))
    december.commit(PLAN, LIMITS)
    for number, ledger in ((1, december), (2, january)):
        ledger.reserve(
            ReleaseId(f"{number:064x}"),
            study_id=PLAN.study_id,
            round_number=number,
            mechanisms=(TRAIN,) if number == 1 else (TRAIN, COUNTS),
            limits=LIMITS,
            plan_digest=PLAN.plan_digest,
        )
    january.reserve(
        ReleaseId("f" * 64),
        study_id=StudyId("watch"),
        round_number=1,
        mechanisms=(REPORT,),
        limits=LIMITS,
    )
    return january.entries()


def test_a_study_states_its_promise_and_what_it_used(entries: tuple[LedgerEntry, ...]) -> None:
    stroke, watch = by_study(entries, delta=DELTA_TOTAL)
    assert (stroke.study_id, stroke.delta, stroke.epsilon_promised) == ("stroke", DELTA, 3.0)
    planned: list[MechanismRecord] = [TRAIN] * 10 + [COUNTS] * 2
    assert stroke.epsilon_committed == epsilon_of(planned, delta=DELTA)
    assert stroke.epsilon_spent == epsilon_of([TRAIN, TRAIN, COUNTS], delta=DELTA)
    assert stroke.epsilon_spent < stroke.epsilon_committed
    assert stroke.plan_digests == (PLAN.plan_digest,)
    assert (stroke.releases, stroke.first_at_s, stroke.last_at_s) == (2, DECEMBER_S, JANUARY_S)
    assert (watch.delta, watch.epsilon_promised, watch.plan_digests) == (DELTA_TOTAL, None, ())
    assert watch.epsilon_committed == watch.epsilon_spent
    assert watch.epsilon_spent == epsilon_of([REPORT], delta=DELTA_TOTAL)


def test_a_population_is_stated_with_the_studies_that_touch_it(
    entries: tuple[LedgerEntry, ...],
) -> None:
    held_out, trained = by_population(entries, delta=DELTA_TOTAL)
    assert (held_out.part, held_out.share) == (HELD_OUT, 0.25)
    assert (trained.part, trained.share) == (TRAINED, 0.75)
    assert held_out.studies == trained.studies == ("stroke", "watch")
    promised: list[MechanismRecord] = [TRAIN] * 10 + [REPORT]
    assert trained.epsilon_committed == epsilon_of(promised, delta=DELTA_TOTAL)
    assert trained.epsilon_spent == epsilon_of([TRAIN, TRAIN, REPORT], delta=DELTA_TOTAL)
    assert held_out.epsilon_spent == epsilon_of([COUNTS, REPORT], delta=DELTA_TOTAL)
    whole = total(entries, delta=DELTA_TOTAL)
    assert whole.epsilon_committed == max(held_out.epsilon_committed, trained.epsilon_committed)
    assert whole.epsilon_spent == max(held_out.epsilon_spent, trained.epsilon_spent)


def test_a_period_states_what_was_reserved_within_it(entries: tuple[LedgerEntry, ...]) -> None:
    periods = {item.period: item for item in by_period(entries, delta=DELTA_TOTAL)}
    assert list(periods) == ["2026", "2026-12", "2027", "2027-01"]
    assert periods["2026-12"].epsilon_spent == epsilon_of([TRAIN], delta=DELTA_TOTAL)
    january: list[MechanismRecord] = [TRAIN, COUNTS, REPORT]
    assert periods["2027"].epsilon_spent == epsilon_of(january, delta=DELTA_TOTAL)
    assert [item.releases for item in periods.values()] == [1, 1, 2, 2]
    whole = total(entries, delta=DELTA_TOTAL).epsilon_spent
    assert max(item.epsilon_spent for item in periods.values()) <= whole


def test_an_empty_ledger_states_nothing() -> None:
    assert by_study((), delta=DELTA) == by_population((), delta=DELTA) == ()
    assert by_period((), delta=DELTA) == ()
    assert total((), delta=DELTA).epsilon_committed == 0.0


@pytest.mark.parametrize("noise_multiplier", [0.5, 1.0, 3.0, 20.0])
def test_a_guess_is_right_as_often_as_the_normal_distribution_says(noise_multiplier: float) -> None:
    """Neyman and Pearson: two normals one apart are told apart with probability Phi(1 / 2s)."""
    exact = 0.5 * math.erfc(-1 / (2 * noise_multiplier) / math.sqrt(2))
    stated = guess_right_max_of({GaussianVector(noise_multiplier): 1})
    assert exact <= stated <= exact + 1e-3


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 3.0, 8.0, 100.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-3])
def test_what_epsilon_and_delta_allow_is_randomised_response(epsilon: float, delta: float) -> None:
    """With probability delta the answer is told; else it is a coin with odds e^epsilon."""
    told = delta + (1 - delta) * math.exp(epsilon) / (1 + math.exp(epsilon))
    assert guess_right_max(epsilon, delta) == pytest.approx(told, abs=1e-12)


@pytest.mark.parametrize("count", [1, 20])
def test_the_noise_itself_never_allows_more_than_its_epsilon_and_delta(count: int) -> None:
    for record in (TRAIN, COUNTS, REPORT):
        epsilon = epsilon_of([record] * count, delta=DELTA)
        assert guess_right_max_of({record: count}) <= guess_right_max(epsilon, DELTA)


def test_the_words_say_unit_promise_use_limits_and_what_is_not_covered(
    entries: tuple[LedgerEntry, ...],
) -> None:
    studies = by_study(entries, delta=DELTA_TOTAL)
    paragraphs = explain(studies, total(entries, delta=DELTA_TOTAL), Limits(4.0, 8.0, 4.0))
    assert [item.heading for item in paragraphs] == [
        "What is protected",
        "What the numbers mean",
        "Study stroke",
        "Study watch",
        "All studies together",
        "What is not covered",
    ]
    text = {item.heading: item.text for item in paragraphs}
    assert text["What is protected"] == UNIT_SENTENCE
    stroke = text["Study stroke"]
    assert "promises ε at most 3 at δ 0.0001" in stroke
    assert f"comes to ε {studies[0].epsilon_committed:.4f}" in stroke
    assert f"2 releases, ε {studies[0].epsilon_spent:.4f}" in stroke
    assert "limit for one study is ε 4" in stroke
    assert "1 release, ε" in text["Study watch"]
    assert "limit is ε 8 at δ 0.001" in text["All studies together"]
    assert "no plan was chosen in reply" in text["All studies together"]
    assert text["What is not covered"].startswith(NOT_COVERED_SENTENCE)


def test_the_words_say_when_a_plan_releases_sums_for_scaling(
    entries: tuple[LedgerEntry, ...],
) -> None:
    store = MemoryLedgerStore()
    scaled = replace(PLAN, planned=((GaussianVector(7.75, TRAINED), 1), *PLAN.planned))
    ledger = Ledger(store, FixedClock(DECEMBER_S))
    ledger.commit(scaled, SpendingLimits(8.0, DELTA, 8.0, DELTA_TOTAL))
    words = "releases once, before the first round, noised sums over the patients who train"
    for found, says in ((ledger.entries(), True), (entries, False)):
        studies = by_study(found, delta=DELTA_TOTAL)
        paragraphs = explain(studies, total(found, delta=DELTA_TOTAL), Limits(4.0, 8.0, 4.0))
        assert (words in paragraphs[2].text) == says


def test_the_words_of_an_adaptive_site_promise_its_limit_by_the_filter(
    entries: tuple[LedgerEntry, ...],
) -> None:
    stated = total(entries, delta=DELTA_TOTAL, epsilon_total=8.0, composition=Composition.ADAPTIVE)
    assert stated.filter_committed is not None
    assert stated.filter_budget is not None
    assert 0 < stated.filter_committed < stated.filter_budget
    words = explain((), stated, Limits(4.0, 8.0, 4.0))[2].text
    assert f"at order {stated.filter_order}" in words
    assert "even when a plan was chosen in reply" in words


def test_a_bound_is_rounded_up_and_never_to_a_certainty_it_is_not() -> None:
    stated = replace(total((), delta=1e-3), epsilon_committed=5.0)
    words = explain((), stated, Limits(4.0, 8.0, 4.0))[2].text
    assert "at most 99.34 % of the time" in words
    assert "at most 99.97 % of the time" in words
