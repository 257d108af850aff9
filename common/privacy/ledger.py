"""Append-only, hash-chained record of what a site has spent on its patients, over a store.

Three kinds of entry. `committed` charges all that an approved plan may ever do and stands before
the study's first release. `reserved` is written before any noise is drawn; `released` follows when
a payload is about to leave. Limits are checked against commitments, so a study that stops early,
perhaps because of what it saw, is still charged what it promised; a reservation outside any
commitment is charged as itself. Everything reserved counts as spent, released or not. So a crash
can only over-count. A commitment is named by its study and plan, a reservation by its release:
asking again charges nothing, and asking with other mechanisms is refused.

The total over studies supposes that no study's noise was chosen in reply to another study's
releases (a PLD is no privacy filter for adaptively chosen mechanisms, arXiv:2602.15815), unless
the limits say `Composition.ADAPTIVE`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from common import limits as bounds
from common.clock import Clock
from common.errors import BudgetError, LedgerError
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.accountant import epsilon_of_counted
from common.privacy.budget import Budget
from common.privacy.ledger_chain import (
    GENESIS,
    broken,
    check_contains,
    committed_charges,
    find_commitment,
    head_of,
    parse_chain,
    spent_charges,
    unused_charges,
)
from common.privacy.ledger_entry import (
    Commitment,
    CommittedEntry,
    LedgerEntry,
    ReleasedEntry,
    ReservedEntry,
    entry_bytes,
)
from common.privacy.mechanism import MechanismRecord
from common.privacy.spending_limits import SpendingLimits, check_study, check_total

__all__ = ["GENESIS", "Ledger", "LedgerStore", "MemoryLedgerStore"]


class LedgerStore(Protocol):
    """Where entries lie: in a site's SQLite file, or in memory for simulations."""

    def append(self, sequence: int, entry: bytes) -> None:
        """Write one entry, durable on return.

        Args:
            sequence: 1 for the first entry. A store that already holds this number, or does not
                hold the one before, must write nothing: two processes may not fork the chain.
            entry: its bytes.

        Raises:
            LedgerError: when it cannot be written.
        """

    def read_all(self) -> Sequence[bytes]:
        """Return all entries in order of their sequence; raises `LedgerError`."""


class MemoryLedgerStore:
    """Entries in memory, for simulations and tests; nothing survives the process."""

    def __init__(self) -> None:
        self._entries: list[bytes] = []

    def append(self, sequence: int, entry: bytes) -> None:
        """Keep one entry; raises `LedgerError` when `sequence` is not the next."""
        if sequence != len(self._entries) + 1:
            raise broken(sequence, "another entry was written at the same time")
        self._entries.append(entry)

    def read_all(self) -> Sequence[bytes]:
        """Return all entries in order."""
        return tuple(self._entries)


class Ledger:
    """What a site has spent, over all studies and kinds of release."""

    def __init__(self, store: LedgerStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.RLock()
        self._raw: tuple[bytes, ...] = ()
        self._parsed: tuple[LedgerEntry, ...] = ()

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Return all entries, oldest first; raises `LedgerError` when the chain is broken."""
        with self._lock:
            raw = tuple(self._store.read_all())
            known = len(self._raw)
            if raw[:known] != self._raw:
                raise broken(known, "an entry that was there has gone or changed")
            if len(raw) > known:
                self._parsed += parse_chain(raw[known:], after=self._parsed)
                self._raw = raw
            return self._parsed

    def entries_bytes(self) -> tuple[bytes, ...]:
        """Return the bytes of all entries, oldest first; raises as `entries`."""
        with self._lock:
            self.entries()
            return self._raw

    def head(self) -> Digest:
        """Return the digest of the newest entry; raises `LedgerError`."""
        return head_of(self.entries())

    def verify(self, *, must_contain: Iterable[Digest] = ()) -> None:
        """Read everything afresh and check the chain.

        Args:
            must_contain: heads known from elsewhere, such as statements in the release log.

        Raises:
            LedgerError: naming the first entry that does not fit.
        """
        with self._lock:
            check_contains(parse_chain(tuple(self._store.read_all())), must_contain)

    def spent(self, study_id: StudyId, delta: float) -> Budget:
        """Return what one study has used so far; raises `LedgerError`, `AccountingError`."""
        return _budget(spent_charges(self.entries(), study_id), delta)

    def spent_total(self, delta: float) -> Budget:
        """Return what all studies have used so far; raises as `spent`."""
        return _budget(spent_charges(self.entries()), delta)

    def committed(self, study_id: StudyId, delta: float) -> Budget:
        """Return what one study is charged: its promise; raises as `spent`."""
        return _budget(committed_charges(self.entries(), study_id), delta)

    def committed_total(self, delta: float) -> Budget:
        """Return what all studies together are charged; raises as `spent`."""
        return _budget(committed_charges(self.entries()), delta)

    def reservation(self, release_id: ReleaseId) -> ReservedEntry | None:
        """Return the reservation of this release, if there is one; raises `LedgerError`."""
        for entry in self.entries():
            if isinstance(entry, ReservedEntry) and entry.release_id == release_id:
                return entry
        return None

    def check_commit(self, commitment: Commitment, limits: SpendingLimits) -> None:
        """Refuse a plan that would pass a limit if it were charged now; one in force is not asked.

        Args:
            commitment: all that the plan may ever do.
            limits: of the plan and the site.

        Raises:
            BudgetError: R11 for the study's limit, R12 for the total's.
            LedgerError, AccountingError: when the spend cannot be known.
        """
        entries = self.entries()
        if find_commitment(entries, commitment.study_id, commitment.plan_digest) is None:
            _check_charges(entries, commitment.study_id, dict(commitment.planned), limits)

    def commit(self, commitment: Commitment, limits: SpendingLimits) -> CommittedEntry:
        """Charge all that a plan may ever do, before its first release; durable on return.

        A plan that is already committed is not charged again.

        Args:
            commitment, limits: as in `check_commit`, which is always applied to a new one.

        Raises:
            BudgetError: R11 or R12; nothing is written.
            LedgerError: when it cannot be written, or the plan was committed with other mechanisms.
        """
        with self._lock:
            entries = self.entries()
            known = find_commitment(entries, commitment.study_id, commitment.plan_digest)
            if known is not None:
                if known.commitment != commitment:
                    raise _charged_otherwise("plan", known)
                return known
            _check_mechanism_count(commitment.planned)
            self.check_commit(commitment, limits)
            entry = CommittedEntry(
                sequence=len(entries) + 1,
                at_s=self._clock.now_s(),
                previous=head_of(entries),
                commitment=commitment,
            )
            self._append(entry)
            return entry

    def reserve(
        self,
        release_id: ReleaseId,
        *,
        study_id: StudyId,
        round_number: int,
        mechanisms: Sequence[MechanismRecord],
        limits: SpendingLimits,
        plan_digest: Digest | None = None,
    ) -> ReservedEntry:
        """Charge a release before its noise is drawn; durable on return.

        A release that is already reserved with the same mechanisms is not charged again. A new one
        is checked against the limits even under a commitment: a site may lower a limit and so end
        a study.

        Args:
            release_id: the gate's name for the release.
            study_id, round_number: whose release it is.
            mechanisms: every noisy step of the release.
            limits: of the plan and the site.
            plan_digest: of the commitment that pays for it; None charges the release as itself.

        Raises:
            BudgetError: R11 or R12, or R8 for more than was committed; nothing is written.
            LedgerError: when it cannot be written, or the release is reserved for something else.
        """
        with self._lock:
            known = self.reservation(release_id)
            if known is not None:
                asked = (study_id, round_number, tuple(mechanisms), plan_digest)
                stands = (known.study_id, known.round_number, known.mechanisms, known.plan_digest)
                if stands != asked:
                    raise _charged_otherwise("release", known)
                return known
            _check_mechanism_count(mechanisms)
            entries = self.entries()
            if plan_digest is not None:
                _check_room(entries, study_id, plan_digest, mechanisms)
            more = Counter(mechanisms if plan_digest is None else ())
            _check_charges(entries, study_id, more, limits)
            entry = ReservedEntry(
                sequence=len(entries) + 1,
                release_id=release_id,
                at_s=self._clock.now_s(),
                previous=head_of(entries),
                study_id=study_id,
                round_number=round_number,
                mechanisms=tuple(mechanisms),
                plan_digest=plan_digest,
            )
            self._append(entry)
            return entry

    def record_released(self, release_id: ReleaseId, payload_digest: Digest) -> ReleasedEntry:
        """Record which payload leaves under a reservation; the same payload again is no new entry.

        Raises:
            LedgerError: without a reservation, or for a second, different payload: two noise draws
                for one charge would tell more than was paid for.
        """
        with self._lock:
            if self.reservation(release_id) is None:
                raise broken(len(self._parsed) + 1, "a release without a reservation")
            for known in self._parsed:
                if isinstance(known, ReleasedEntry) and known.release_id == release_id:
                    if known.payload_digest != payload_digest:
                        raise broken(known.sequence, "a second payload for one release")
                    return known
            entry = ReleasedEntry(
                sequence=len(self._parsed) + 1,
                release_id=release_id,
                at_s=self._clock.now_s(),
                previous=head_of(self._parsed),
                payload_digest=payload_digest,
            )
            self._append(entry)
            return entry

    def _append(self, entry: LedgerEntry) -> None:
        """Write an entry that follows `entries`; what the store gives next must begin with it."""
        data = entry_bytes(entry)
        self._store.append(entry.sequence, data)
        self._raw += (data,)
        self._parsed += (entry,)


def _budget(charges: Mapping[MechanismRecord, int], delta: float) -> Budget:
    return Budget(epsilon_of_counted(charges, delta=delta), delta)


def _check_charges(
    entries: Sequence[LedgerEntry],
    study_id: StudyId,
    more: Mapping[MechanismRecord, int],
    limits: SpendingLimits,
) -> None:
    study, total = committed_charges(entries, study_id), committed_charges(entries)
    study.update(more)
    total.update(more)
    check_study(study, limits)
    check_total(total, limits)


def _check_room(
    entries: Sequence[LedgerEntry],
    study_id: StudyId,
    plan_digest: Digest,
    mechanisms: Sequence[MechanismRecord],
) -> None:
    commitment = find_commitment(entries, study_id, plan_digest)
    if commitment is None:
        raise broken(len(entries) + 1, "a reservation for a plan that was never committed")
    room = unused_charges(entries, commitment)
    room.subtract(mechanisms)
    if any(room[mechanism] < 0 for mechanism in mechanisms):
        raise BudgetError(
            "the release is more than the study committed to",
            expected="no more rounds and evaluations than the approved plan has",
            arrived="one more",
            todo="nothing was released; the study has ended at this site",
            number="R8",
        )


def _check_mechanism_count(mechanisms: Sequence[object]) -> None:
    count, most = len(mechanisms), bounds.LEDGER_RECORDS_PER_RELEASE_MAX
    if not 1 <= count <= most:
        raise LedgerError(
            "a charge is refused",
            expected=f"1 to {most} mechanism records",
            arrived=str(count),
            todo="report this as a fault; nothing was released",
        )


def _charged_otherwise(what: str, known: CommittedEntry | ReservedEntry) -> LedgerError:
    return LedgerError(
        f"the {what} is already {known.kind} by ledger entry {known.sequence} for something else",
        expected="the same study, plan, round and mechanisms",
        arrived="another study, plan, round or mechanism",
        todo="nothing was released; use one software version and one plan for a study",
    )
