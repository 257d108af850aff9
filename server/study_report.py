"""What a person asks about a study: where it is, what each site did and spent, how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from common.ids import StudyId
from common.privacy.disclosure import size_band
from common.protocol.messages import EvaluationCounts
from common.protocol.round_states import RoundState
from common.study.contingency import JOINT_ROUND
from server.books import Books
from server.evaluation import Auroc, auroc
from server.round_book import Answer, Outcome


@dataclass(frozen=True)
class SiteReport:
    """One site in one study.

    Args:
        patients: band of the declared cohort size, such as "250-499".
        auroc: of the newest evaluated model on the patients of `evaluated_by`, or None.
        epsilon_spent, epsilon_remaining: the site's newest ledger statement, or None.
        rounds: rounds in which its update was accepted.
        last_outcome: of its newest answer, with its number.
    """

    site_id: str
    patients: str
    auroc: Auroc | None
    epsilon_spent: float | None
    epsilon_remaining: float | None
    rounds: int
    last_outcome: str

    def as_record(self) -> dict[str, Any]:
        """Return a flat record for `--json`."""
        return {
            "site_id": self.site_id,
            "patients": self.patients,
            "auroc": self.auroc.value if self.auroc else None,
            "auroc_low": self.auroc.low if self.auroc else None,
            "auroc_high": self.auroc.high if self.auroc else None,
            "epsilon_spent": self.epsilon_spent,
            "epsilon_remaining": self.epsilon_remaining,
            "rounds": self.rounds,
            "last_outcome": self.last_outcome,
        }


@dataclass(frozen=True)
class StudyReport:
    """One study as stored.

    Args:
        evaluated_by: which patients scored the newest evaluated model: held-out or tuning.
    """

    study_id: str
    title: str
    state: str
    reason: str
    rounds_planned: int
    rounds_complete: int
    restarts: int
    sites: tuple[SiteReport, ...]
    pooled: Auroc | None
    events: tuple[str, ...]
    evaluated_by: str

    def as_record(self) -> dict[str, Any]:
        """Return a record for `--json`."""
        return {
            "study_id": self.study_id,
            "title": self.title,
            "state": self.state,
            "reason": self.reason,
            "rounds_planned": self.rounds_planned,
            "rounds_complete": self.rounds_complete,
            "restarts": self.restarts,
            "sites": [site.as_record() for site in self.sites],
            "evaluated_by": self.evaluated_by,
            "pooled_auroc": self.pooled.value if self.pooled else None,
            "pooled_auroc_low": self.pooled.low if self.pooled else None,
            "pooled_auroc_high": self.pooled.high if self.pooled else None,
            "events": list(self.events),
        }


def report_study(books: Books, study_id: StudyId) -> StudyReport:
    """Return the report of one study; raises `StudyStateError` if unknown."""
    study = books.register.find(study_id)
    answers = books.rounds.answers(study_id)
    rounds = books.rounds.rounds(study_id)
    planned = study.plan.training.rounds if study.plan.selection is None else JOINT_ROUND
    complete = [
        item.round_number
        for item in rounds
        if item.state is RoundState.COMPLETE and 1 <= item.round_number <= planned
    ]
    by_site: dict[str, list[Answer]] = {}
    for answer in answers:
        by_site.setdefault(answer.site_id, []).append(answer)
    newest = {site_id: _newest_evaluation(found) for site_id, found in by_site.items()}
    last_round = max((number for number, _ in filter(None, newest.values())), default=0)
    pooled = [item[1] for item in newest.values() if item is not None and item[0] == last_round]
    return StudyReport(
        study_id=study_id,
        title=study.plan.study.title,
        state=study.state.value,
        reason=study.reason,
        rounds_planned=planned,
        rounds_complete=len(complete),
        restarts=study.restarts,
        sites=tuple(
            _report_site(site_id, found, newest[site_id])
            for site_id, found in sorted(by_site.items())
        ),
        pooled=auroc(pooled),
        events=tuple(_event(answer) for answer in answers),
        evaluated_by="held-out"
        if study.plan.evaluation.tuning_fraction is None or last_round > planned
        else "tuning",
    )


def evaluation_of(answer: Answer) -> EvaluationCounts | None:
    """Return the evaluation that an accepted answer carries."""
    record = answer.detail.get("evaluation")
    if record is None:
        return None
    rows = record["counts"]
    return EvaluationCounts(
        model_version=record["model_version"],
        counts=(tuple(rows[0]), tuple(rows[1])),
        noise_multiplier=float(record["noise_multiplier"]),
    )


def _newest_evaluation(found: list[Answer]) -> tuple[int, EvaluationCounts] | None:
    for answer in reversed(found):
        if answer.outcome is Outcome.ACCEPTED:
            evaluation = evaluation_of(answer)
            if evaluation is not None:
                return answer.round_number, evaluation
    return None


def _report_site(
    site_id: str, found: list[Answer], newest: tuple[int, EvaluationCounts] | None
) -> SiteReport:
    accepted = [answer for answer in found if answer.outcome is Outcome.ACCEPTED]
    statement = accepted[-1].detail["statement"] if accepted else None
    last = found[-1]
    return SiteReport(
        site_id=site_id,
        patients=size_band(accepted[-1].detail["declared_cohort_size"]) if accepted else "",
        auroc=auroc([newest[1]]) if newest else None,
        epsilon_spent=float(statement["epsilon_spent"]) if statement else None,
        epsilon_remaining=float(statement["epsilon_remaining"]) if statement else None,
        rounds=len({answer.round_number for answer in accepted} - {0}),
        last_outcome=f"{last.outcome.value} {last.number}".strip(),
    )


def _event(answer: Answer) -> str:
    text = f"round {answer.round_number}: {answer.site_id} {answer.outcome.value}"
    return f"{text} ({answer.number})" if answer.number else text
