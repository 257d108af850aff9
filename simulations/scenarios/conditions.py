"""The conditions of every scenario, in prose and as code; all are checked after every operation.

Each compares the product's own records with what the witness saw leave the sites and reach the
coordinator, never with another record of the same program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from common.errors import CohortiumError
from common.privacy.accountant import epsilon_of
from common.privacy.ledger_entry import ReleasedEntry, ReservedEntry
from common.protocol.messages import RefusedTask, ReleasedTask
from common.protocol.round_states import RoundState, StudyState
from server.coordinator import ATTEMPTS_PER_ROUND_MAX
from server.round_book import Answer, Outcome
from server.study_report import report_study
from simulations.scenarios.model_check import models_that_differ
from simulations.scenarios.stage import Stage
from simulations.scenarios.witness import Delivery, Label

_SLACK: Final = 1e-9
_NEVER_TAKEN: Final[dict[Label, tuple[str, ...]]] = {
    Label.REPEATED: ("U3",),
    Label.LATE: ("U1", "U3"),
    Label.REPLAYED: ("U1", "U3"),
    Label.CHANGED: ("U1", "U3", "U5"),
    Label.FOREIGN: ("U1",),
}


@dataclass(frozen=True)
class Condition:
    """One condition.

    Args:
        name: short and stable.
        says: what must be so, for a reader.
        breaches: yields what is wrong, in words, after an operation.
    """

    name: str
    says: str
    breaches: Callable[[Stage], Iterator[str]]


def ledger_counts_enough(stage: Stage) -> Iterator[str]:
    """Each release that left is charged, and they cost no more than the ledger says."""
    delta = stage.plan.privacy.delta
    for site_id, account in stage.witness.accounts.items():
        ledger = stage.sites[site_id].ledger()
        reserved = {item.release_id for item in ledger.entries() if isinstance(item, ReservedEntry)}
        left = account.releases
        for release_id, reply in left.items():
            if release_id not in reserved:
                yield f"{site_id} released round {reply.round_number} without a charge"
        if not left:
            continue
        cost = epsilon_of(
            [item for reply in left.values() for item in reply.mechanisms], delta=delta
        )
        spent = ledger.spent(stage.study_id, delta).epsilon
        if spent < cost - _SLACK:
            yield f"{site_id} let out {cost:.6f}, its ledger counts {spent:.6f}"


def ledger_counts_once(stage: Stage) -> Iterator[str]:
    """No release, and no round, is charged twice; no release has two payloads."""
    for site_id, site in stage.sites.items():
        entries = site.ledger().entries()
        for kind in (ReservedEntry, ReleasedEntry):
            twice = _more_than_once(item.release_id for item in entries if isinstance(item, kind))
            if twice:
                yield f"{site_id} has {twice} release(s) with two {kind.kind} entries"
        rounds = _more_than_once(
            item.round_number for item in entries if isinstance(item, ReservedEntry)
        )
        if rounds:
            yield f"{site_id} was charged twice for {rounds} round(s)"


def promise_is_kept(stage: Stage) -> Iterator[str]:
    """No site spends more than the plan's epsilon."""
    privacy = stage.plan.privacy
    for site_id, site in stage.sites.items():
        spent = site.ledger().spent(stage.study_id, privacy.delta).epsilon
        if spent > privacy.epsilon + _SLACK:
            yield f"{site_id} spent {spent:.6f} of {privacy.epsilon}"


def ledger_only_grows(stage: Stage) -> Iterator[str]:
    """Each ledger is one unbroken chain that holds every head it ever showed."""
    for site_id, site in stage.sites.items():
        ledger, seen = site.ledger(), stage.heads.setdefault(site_id, [])
        try:
            ledger.verify(must_contain=seen)
        except CohortiumError as error:
            yield f"{site_id}: {error.refused}"
            continue
        if ledger.entries() and ledger.head() not in seen:
            seen.append(ledger.head())


def epsilon_shown_is_the_ledgers(stage: Stage) -> Iterator[str]:
    """A statement is the ledger's own number, and the newest accepted one is shown."""
    yield from _faults_at_the_door(stage, "epsilon shown")
    newest: dict[str, float] = {}
    for delivery, answer in _delivered(stage, everything=True):
        if answer.outcome is Outcome.ACCEPTED and isinstance(delivery.reply, ReleasedTask):
            newest[answer.site_id] = delivery.reply.statement.epsilon_spent
    for site in report_study(stage.books, stage.study_id).sites:
        shown, stated = site.epsilon_spent, newest.get(site.site_id)
        if shown is not None and (stated is None or abs(shown - stated) > _SLACK):
            yield f"{site.site_id} is shown with {shown:.6f}, it stated {stated}"


def resent_bytes_are_the_same(stage: Stage) -> Iterator[str]:
    """One request has one reply, byte for byte; one release has one payload."""
    yield from _faults_at_the_door(stage, "same bytes")


def each_answer_is_recorded(stage: Stage) -> Iterator[str]:
    """What was delivered is in the books once, in order; what was refused has its number."""
    deliveries = [
        item
        for asking in stage.witness.askings[stage.askings_before :]
        for item in asking.deliveries
    ]
    answers = stage.new_answers()
    if [(item.round_number, item.site_id) for item in deliveries] != [
        (item.round_number, item.site_id) for item in answers
    ]:
        yield f"{len(deliveries)} answers were delivered, {len(answers)} recorded, or others"
        return
    for answer in answers:
        if answer.outcome is not Outcome.ACCEPTED and not answer.number:
            yield f"{answer.site_id} in round {answer.round_number} was refused without a number"


def only_true_answers_are_taken(stage: Stage) -> Iterator[str]:
    """A changed, repeated, late, replayed or foreign answer is refused, with the right number."""
    for delivery, answer in _delivered(stage):
        numbers = _NEVER_TAKEN.get(delivery.label)
        if numbers is None:
            continue
        if delivery.is_skewed:
            numbers = (*numbers, "U1")
        where = f"{answer.site_id} in round {answer.round_number}: a {delivery.label} answer"
        if answer.outcome is Outcome.ACCEPTED:
            yield f"{where} was accepted"
        elif answer.outcome is Outcome.REFUSED_BY_COORDINATOR and answer.number not in numbers:
            yield f"{where} was refused with {answer.number}, not {' or '.join(numbers)}"


def true_answers_are_taken(stage: Stage) -> Iterator[str]:
    """A site's own answer of the moment is accepted, or recorded as the site's own refusal."""
    for delivery, answer in _delivered(stage):
        if delivery.label is not Label.TRUE or delivery.is_skewed:
            continue
        where = f"{answer.site_id} in round {answer.round_number}"
        if isinstance(delivery.reply, ReleasedTask) and answer.outcome is not Outcome.ACCEPTED:
            yield f"{where}: a true answer became {answer.outcome.value} {answer.number}"
        if isinstance(delivery.reply, RefusedTask) and (
            answer.outcome is not Outcome.REFUSED_BY_SITE or answer.number != delivery.reply.number
        ):
            yield f"{where}: the site's refusal {delivery.reply.number} became {answer.number}"


def models_are_made_of_accepted_answers(stage: Stage) -> Iterator[str]:
    """Each model is the one before and the accepted updates, each once, and nothing else."""
    yield from models_that_differ(stage)


def rounds_end(stage: Stage) -> Iterator[str]:
    """No round is left open unless its coordinator died; it asks each at most three times."""
    study = stage.books.register.find(stage.study_id)
    for item in stage.books.rounds.rounds(stage.study_id):
        if (
            item.state is RoundState.OPEN
            and not stage.died
            and study.state
            in (
                StudyState.FINISHED,
                StudyState.FAILED,
            )
        ):
            yield f"round {item.round_number} is open in a study that is {study.state.value}"
    asked = Counter(asking.round_number for asking in stage.witness.askings[stage.askings_before :])
    for number, times in asked.items():
        # A coordinator that died is followed by one that has its own three attempts.
        if times > ATTEMPTS_PER_ROUND_MAX * (2 if stage.died else 1):
            yield f"round {number} was asked {times} times"
    if not stage.died and any(
        not asking.is_over for asking in stage.witness.askings[stage.askings_before :]
    ):
        yield "a round went on before all answers were taken"


CONDITIONS: Final = tuple(
    Condition(check.__name__.replace("_", " "), str(check.__doc__).strip(), check)
    for check in (
        ledger_counts_enough,
        ledger_counts_once,
        promise_is_kept,
        ledger_only_grows,
        epsilon_shown_is_the_ledgers,
        resent_bytes_are_the_same,
        each_answer_is_recorded,
        only_true_answers_are_taken,
        true_answers_are_taken,
        models_are_made_of_accepted_answers,
        rounds_end,
    )
)


def _delivered(stage: Stage, *, everything: bool = False) -> Iterator[tuple[Delivery, Answer]]:
    """Yield deliveries with their rows in the books, of the last operation or of all."""
    begin = 0 if everything else stage.askings_before
    deliveries = [item for asking in stage.witness.askings[begin:] for item in asking.deliveries]
    answers = stage.books.rounds.answers(stage.study_id)
    rows = answers if everything else answers[stage.answers_before :]
    # Where they do not fit, `each_answer_is_recorded` says so.
    yield from zip(deliveries, rows, strict=False)


def _faults_at_the_door(stage: Stage, name: str) -> Iterator[str]:
    for account in stage.witness.accounts.values():
        for kind, found in account.faults:
            if kind == name:
                yield found


def _more_than_once(found: Iterator[object]) -> int:
    return sum(times > 1 for times in Counter(found).values())
