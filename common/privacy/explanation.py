"""A ledger in words that a data steward understands: what was promised, and what it means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.privacy.accounts import is_monitoring_account, study_of_account
from common.privacy.spending_limits import Composition
from common.privacy.statements import StudyStatement, TotalStatement
from common.privacy.unit import NOT_COVERED_SENTENCE, UNIT_SENTENCE


@dataclass(frozen=True)
class Paragraph:
    """One heading and what stands under it."""

    heading: str
    text: str


@dataclass(frozen=True)
class Limits:
    """What hospital IT allows: one study, all at the total's delta, and a study's monitoring."""

    epsilon_per_study: float
    epsilon_total: float
    epsilon_monitoring_per_study: float


def guess_right_max(epsilon: float, delta: float) -> float:
    """Return how often, at most, a guess whether a patient is in the data is right.

    For somebody who starts at even odds, sees everything released, knows every other patient and
    has any computer: (e^epsilon + delta) / (1 + e^epsilon).

    Source: Kairouz, Oh and Viswanath 2015 (arXiv:1311.0776), theorem 2.1: an (epsilon, delta)
    release is no easier to guess from than randomised response.
    """
    return min(1.0, 1 / (1 + math.exp(-epsilon)) + delta / (1 + math.exp(epsilon)))


def explain(
    studies: Sequence[StudyStatement], total: TotalStatement, limits: Limits
) -> tuple[Paragraph, ...]:
    """Return the paragraphs for some or all studies of a site.

    Args:
        studies: to explain.
        total: over all studies of the site.
        limits: of the site.
    """
    return (
        Paragraph("What is protected", UNIT_SENTENCE),
        Paragraph("What the numbers mean", _MEANING),
        *(Paragraph(_heading(item), _study(item, limits)) for item in studies),
        Paragraph("All studies together", _total(total, limits)),
        Paragraph("What is not covered", NOT_COVERED_SENTENCE + " " + _DISCLOSED),
    )


_MEANING = (
    "Everything a study releases carries random noise, so that it looks almost the same whether or "
    "not any one patient is in the data. Epsilon (ε) says how nearly the same: the chance of any "
    "outcome changes by a factor of at most e^ε; 0 would be no trace at all, and each release "
    "adds. Delta (δ) is the small chance left over for which that factor is not promised. Both "
    "hold against somebody who knows all other patients and has any computer, now or later."
)
_DISCLOSED = (
    "Numbers of patients that people read outside the site are shown in bands or rounded and "
    "suppressed when small; that protects against a reader, but it is not counted in ε. What is "
    "true of many patients, such as that smoking harms, is meant to be learned: a patient may be "
    "affected by it without having taken part."
)


def _heading(study: StudyStatement) -> str:
    if is_monitoring_account(study.study_id):
        return f"Study {study_of_account(study.study_id)}: monitoring of its model"
    return f"Study {study.study_id}"


def _study(study: StudyStatement, limits: Limits) -> str:
    share = _percent(guess_right_max(study.epsilon_committed, study.delta))
    does = f"It {', and '.join(study.does)}. " if study.does else ""
    if study.epsilon_promised is None:
        promise = "It made its releases before plans were charged as a whole, so they are charged."
    elif is_monitoring_account(study.study_id):
        promise = (
            "The reports about the model in use are an account of their own, beside what the study "
            "spent on training: a patient who comes in several periods is in the reports of each, "
            "so their epsilons compose. All the reports that the approved plan may ever make come "
            f"to ε {study.epsilon_committed:.4f} at δ {study.delta:g}, and this counts, even if "
            "monitoring stops early. A report's noise is drawn once; a report sent again is the "
            "same bytes."
        )
    else:
        promise = (
            f"Its approved plan promises ε at most {study.epsilon_promised:g} at δ "
            f"{study.delta:g}. All that the plan may ever do comes to ε "
            f"{study.epsilon_committed:.4f}. This is what counts, even if the study stops "
            "early, because the reason to stop may lie in what it saw."
        )
    if study.scales:
        promise += (
            " Within this it releases once, before the first round, noised sums over the patients "
            "who train, from which the mean and the spread of each numeric feature are estimated."
        )
    return (
        f"{does}{promise} Used so far: {_releases(study.releases)}, "
        f"ε {study.epsilon_spent:.4f}. "
        "In plain words: whoever starts at even odds, 50 %, and sees all that this study may ever "
        "release guesses rightly whether a given patient took part at most "
        f"{_percent(study.guess_right_max)} of the time; ε and δ alone, whatever the noise is "
        f"like, would allow {share}. "
        f"{_limit(study, limits)}."
    )


def _limit(study: StudyStatement, limits: Limits) -> str:
    if is_monitoring_account(study.study_id):
        return f"Your limit for one study's monitoring is ε {limits.epsilon_monitoring_per_study:g}"
    return f"Your limit for one study is ε {limits.epsilon_per_study:g}"


def _total(total: TotalStatement, limits: Limits) -> str:
    share = _percent(guess_right_max(limits.epsilon_total, total.delta))
    now = _percent(guess_right_max(total.epsilon_committed, total.delta))
    if total.composition is Composition.PLANNED:
        how = (
            f"For the patient whom they touch most, all studies together promised ε "
            f"{total.epsilon_committed:.4f} at δ {total.delta:g} (used so far: "
            f"{total.epsilon_spent:.4f}), so that such a guess is right at most {now} of the time. "
            "This supposes that no plan was chosen in reply to what another study released; set "
            'composition = "adaptive" in site.toml if that is not so.'
        )
    else:
        how = (
            f"They are kept by a filter that holds even when a plan was chosen in reply to "
            f"what earlier studies released: {total.filter_committed:.4f} of "
            f"{total.filter_budget:.4f} are used, at order {total.filter_order}. What it promises "
            "is your limit itself."
        )
    return (
        f"{how} Your limit is ε {limits.epsilon_total:g} at δ {total.delta:g}: there such a guess "
        f"would be right at most {share} of the time. A study that would pass it is refused before "
        "anything is computed."
    )


def _releases(count: int) -> str:
    return f"{count} release" if count == 1 else f"{count} releases"


def _percent(share: float) -> str:
    # Rounded up: a bound must not look smaller than it is.
    hundredths = math.ceil(share * 10_000)
    return "100 %" if hundredths >= 10_000 else f"{hundredths / 100:.2f} %"
