"""What a ledger's entries say, per study, population and period: pure functions of the entries."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.ids import Digest, StudyId
from common.privacy.accountant import epsilon_by_part, epsilon_of_counted, guess_right_max_of
from common.privacy.accounts import is_monitoring_account
from common.privacy.ledger_chain import committed_charges, head_of, spent_charges
from common.privacy.ledger_entry import CommittedEntry, LedgerEntry, ReservedEntry
from common.privacy.mechanism import GaussianVector, PatientPart
from common.privacy.renyi_filter import RenyiFilter
from common.privacy.spending_limits import Charges, Composition
from common.privacy.step_words import words_of_reports, words_of_steps


@dataclass(frozen=True)
class StudyStatement:
    """One study at one site, or its monitoring.

    Args:
        study_id: the study, or the account of its monitoring.
        plan_digests: the plans it committed to; empty for releases from before commitments.
        epsilon_promised: the plan's own number, None without a commitment.
        delta: at which everything here is stated.
        epsilon_committed: of all that the plan may ever do; this counts against the limits.
        epsilon_spent: of what was reserved so far.
        guess_right_max: how often a guess at even odds whether a patient took part is right at
            most, from the committed noise itself; never above what epsilon and delta allow.
        does: in words, each kind of noisy step that it committed to.
        releases: number of reservations.
        first_at_s, last_at_s: of its entries, seconds since 1970.
        scales: whether a plan of it releases sums for scaling once.
    """

    study_id: StudyId
    plan_digests: tuple[Digest, ...]
    epsilon_promised: float | None
    delta: float
    epsilon_committed: float
    epsilon_spent: float
    guess_right_max: float
    does: tuple[str, ...]
    releases: int
    first_at_s: int
    last_at_s: int
    scales: bool = False


@dataclass(frozen=True)
class PopulationStatement:
    """The patients of one elementary part: exactly the same records touch each of them.

    Args:
        part: of the salted hash.
        share: of all patients, in expectation.
        studies: that touch them.
        epsilon_committed, epsilon_spent: of all studies together.
    """

    part: PatientPart
    share: float
    studies: tuple[StudyId, ...]
    epsilon_committed: float
    epsilon_spent: float


@dataclass(frozen=True)
class PeriodStatement:
    """One calendar month or year (UTC); periods compose, so their epsilons are never the total.

    Args:
        period: "2026-11" or "2026".
        releases: reserved within it.
        epsilon_spent: of these alone, for the patient whom they touch most.
    """

    period: str
    releases: int
    epsilon_spent: float


@dataclass(frozen=True)
class TotalStatement:
    """All studies together, for the patient whom they touch most.

    Args:
        delta: at which everything here is stated.
        epsilon_committed, epsilon_spent: by PLD; a claim when composition is planned.
        composition: how the limit is kept.
        filter_order, filter_budget, filter_committed: of the Rényi filter when it is adaptive.
        entries, head: of the ledger.
    """

    delta: float
    epsilon_committed: float
    epsilon_spent: float
    composition: Composition
    filter_order: int | None
    filter_budget: float | None
    filter_committed: float | None
    entries: int
    head: Digest


def by_study(entries: Sequence[LedgerEntry], *, delta: float) -> tuple[StudyStatement, ...]:
    """Return a statement per study, by id.

    Args:
        entries: of a verified ledger.
        delta: for studies without a commitment; the others are stated at the plan's.

    Raises:
        AccountingError: as `epsilon_of`.
    """
    return tuple(
        _study_statement(own, study, delta)
        for study, own in sorted(_entries_by_study(entries).items())
    )


def by_population(
    entries: Sequence[LedgerEntry], *, delta: float
) -> tuple[PopulationStatement, ...]:
    """Return a statement per elementary part, rising; raises as `by_study`."""
    committed, spent = committed_charges(entries), spent_charges(entries)
    by_own = {
        study: committed_charges(own) for study, own in sorted(_entries_by_study(entries).items())
    }
    return tuple(
        PopulationStatement(
            part=part,
            share=part.share,
            studies=tuple(study for study, charges in by_own.items() if _touching(charges, part)),
            epsilon_committed=epsilon,
            epsilon_spent=epsilon_of_counted(_touching(spent, part), delta=delta),
        )
        for part, epsilon in epsilon_by_part(committed, delta=delta).items()
    )


def by_period(entries: Iterable[LedgerEntry], *, delta: float) -> tuple[PeriodStatement, ...]:
    """Return a statement per year and per month in which a release was reserved, rising."""
    charges: dict[str, Charges] = {}
    releases: Counter[str] = Counter()
    for entry in entries:
        if isinstance(entry, ReservedEntry):
            day = datetime.datetime.fromtimestamp(entry.at_s, tz=datetime.UTC)
            for period in (f"{day:%Y}", f"{day:%Y-%m}"):
                charges.setdefault(period, Counter()).update(entry.mechanisms)
                releases[period] += 1
    return tuple(
        PeriodStatement(period, releases[period], epsilon_of_counted(charged, delta=delta))
        for period, charged in sorted(charges.items())
    )


def total(
    entries: Sequence[LedgerEntry],
    *,
    delta: float,
    epsilon_total: float | None = None,
    composition: Composition = Composition.PLANNED,
) -> TotalStatement:
    """Return the statement over all studies.

    Args:
        entries: of a verified ledger.
        delta: at which the total is stated.
        epsilon_total: the site's limit, from which an adaptive filter follows.
        composition: how it is kept.

    Raises:
        AccountingError: as `epsilon_of`, or when there is no filter for the limit.
    """
    committed = committed_charges(entries)
    renyi = None
    if composition is Composition.ADAPTIVE and epsilon_total is not None:
        renyi = RenyiFilter.for_target(epsilon_total, delta)
    return TotalStatement(
        delta=delta,
        epsilon_committed=epsilon_of_counted(committed, delta=delta),
        epsilon_spent=epsilon_of_counted(spent_charges(entries), delta=delta),
        composition=composition,
        filter_order=renyi.order if renyi else None,
        filter_budget=renyi.budget if renyi else None,
        filter_committed=renyi.spent(committed) if renyi else None,
        entries=len(entries),
        head=head_of(entries),
    )


def _study_statement(own: Sequence[LedgerEntry], study_id: StudyId, delta: float) -> StudyStatement:
    commitments = [entry.commitment for entry in own if isinstance(entry, CommittedEntry)]
    stated = min((item.delta for item in commitments), default=delta)
    words_of = words_of_reports if is_monitoring_account(study_id) else words_of_steps
    return StudyStatement(
        study_id=study_id,
        plan_digests=tuple(item.plan_digest for item in commitments),
        epsilon_promised=max((item.epsilon for item in commitments), default=None),
        delta=stated,
        epsilon_committed=epsilon_of_counted(committed_charges(own), delta=stated),
        epsilon_spent=epsilon_of_counted(spent_charges(own), delta=stated),
        guess_right_max=guess_right_max_of(committed_charges(own)),
        does=tuple(text for item in commitments for text in words_of(item.planned)),
        releases=sum(isinstance(entry, ReservedEntry) for entry in own),
        first_at_s=own[0].at_s,
        last_at_s=own[-1].at_s,
        scales=any(
            isinstance(record, GaussianVector) for item in commitments for record, _ in item.planned
        ),
    )


def _entries_by_study(entries: Iterable[LedgerEntry]) -> dict[StudyId, list[LedgerEntry]]:
    found: dict[StudyId, list[LedgerEntry]] = {}
    for entry in entries:
        study = _study_of(entry)
        if study is not None:
            found.setdefault(study, []).append(entry)
    return found


def _study_of(entry: LedgerEntry) -> StudyId | None:
    if isinstance(entry, CommittedEntry):
        return entry.commitment.study_id
    return entry.study_id if isinstance(entry, ReservedEntry) else None


def _touching(charges: Charges, part: PatientPart) -> Charges:
    """Return the charges that cover an elementary part, all as if on the whole of it."""
    return Counter(
        {
            record: count
            for record, count in charges.items()
            if record.part.first <= part.first and part.stop <= record.part.stop
        }
    )
