"""Append-only, hash-chained record of what a site has spent on its patients, over a store.

Two kinds of entry. `reserved` is written before any noise is drawn and is the charge; `released`
follows when a payload is about to leave. Everything reserved counts as spent, released or not, so
a crash can only over-count. A reservation is named by its release: asking again charges nothing,
and asking with other mechanisms is refused.

The total over studies supposes that no study's noise was chosen in reply to another study's
releases; plans are fixed and approved before their first release (a PLD is no privacy filter for
adaptively chosen mechanisms, arXiv:2602.15815).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from common import limits
from common.canonical import digest_bytes
from common.clock import Clock
from common.errors import BudgetError, LedgerError
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.accountant import epsilon_of
from common.privacy.budget import Budget
from common.privacy.ledger_entry import (
    LedgerEntry,
    ReleasedEntry,
    ReservedEntry,
    entry_bytes,
    parse_entry,
)
from common.privacy.mechanism import MechanismRecord

GENESIS = digest_bytes("privacy-ledger-genesis")
"""What the first entry names as its previous entry."""


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
            raise _broken(sequence, "another entry was written at the same time")
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
                raise _broken(known, "an entry that was there has gone or changed")
            self._parsed += _parse_chain(raw[known:], after=self._parsed)
            self._raw = raw
            return self._parsed

    def head(self) -> Digest:
        """Return the digest of the newest entry; raises `LedgerError`."""
        return _head(self.entries())

    def verify(self, *, must_contain: Iterable[Digest] = ()) -> None:
        """Read everything afresh and check the chain.

        Args:
            must_contain: heads known from elsewhere, such as statements in the release log. A
                chain alone cannot show that its newest entries were cut off; these can.

        Raises:
            LedgerError: naming the first entry that does not fit.
        """
        with self._lock:
            chain = _parse_chain(tuple(self._store.read_all()), after=())
        missing = set(must_contain) - {GENESIS} - {entry.digest for entry in chain}
        if missing:
            raise _broken(
                len(chain) + 1, f"{len(missing)} heads that were stated earlier are not in it"
            )

    def spent(self, study_id: StudyId, delta: float) -> Budget:
        """Return what one study has spent at `delta`; raises `LedgerError`, `AccountingError`."""
        return Budget(epsilon_of(_charges(self.entries(), study_id), delta=delta), delta)

    def spent_total(self, delta: float) -> Budget:
        """Return what all studies have spent at `delta`; raises as `spent`."""
        return Budget(epsilon_of(_charges(self.entries()), delta=delta), delta)

    def reservation(self, release_id: ReleaseId) -> ReservedEntry | None:
        """Return the reservation of this release, if there is one; raises `LedgerError`."""
        for entry in self.entries():
            if isinstance(entry, ReservedEntry) and entry.release_id == release_id:
                return entry
        return None

    def check_reserve(
        self,
        study_id: StudyId,
        mechanisms: Sequence[MechanismRecord],
        *,
        delta: float,
        epsilon_study_max: float,
        epsilon_total_max: float,
        delta_total: float | None = None,
    ) -> None:
        """Refuse mechanisms that would pass a limit if they were charged now.

        Args:
            study_id: whose budget is charged.
            mechanisms: every noisy step of the release.
            delta: at which the study's epsilon is stated.
            epsilon_study_max: the lesser of the plan's epsilon and the site's limit for one study.
            epsilon_total_max: the site's limit over all studies.
            delta_total: at which the total is stated; `delta` when not given.

        Raises:
            BudgetError: R11 for the study's limit, R12 for the total's.
            LedgerError, AccountingError: when the spend cannot be known.
        """
        entries = self.entries()
        study = (*_charges(entries, study_id), *mechanisms)
        epsilon = epsilon_of(study, delta=delta)
        if not epsilon <= epsilon_study_max:
            raise _over("R11", "epsilon_per_study", epsilon, epsilon_study_max, delta)
        delta_total = delta if delta_total is None else delta_total
        epsilon = epsilon_of((*_charges(entries), *mechanisms), delta=delta_total)
        if not epsilon <= epsilon_total_max:
            raise _over("R12", "epsilon_total", epsilon, epsilon_total_max, delta_total)

    def reserve(
        self,
        release_id: ReleaseId,
        *,
        study_id: StudyId,
        round_number: int,
        mechanisms: Sequence[MechanismRecord],
        delta: float,
        epsilon_study_max: float,
        epsilon_total_max: float,
        delta_total: float | None = None,
    ) -> ReservedEntry:
        """Charge a release before its noise is drawn; durable on return.

        A release that is already reserved with the same mechanisms is not charged again.

        Args:
            release_id: the gate's name for the release.
            study_id, mechanisms, delta, epsilon_study_max, epsilon_total_max, delta_total: as in
                `check_reserve`, which is always applied to a new reservation.
            round_number: of the study.

        Raises:
            BudgetError: R11 or R12; nothing is written.
            LedgerError: when it cannot be written, or the release is reserved for something else.
        """
        with self._lock:
            known = self.reservation(release_id)
            if known is not None:
                asked = (study_id, round_number, tuple(mechanisms))
                if (known.study_id, known.round_number, known.mechanisms) != asked:
                    raise _reserved_otherwise(known)
                return known
            _check_mechanism_count(mechanisms)
            self.check_reserve(
                study_id,
                mechanisms,
                delta=delta,
                epsilon_study_max=epsilon_study_max,
                epsilon_total_max=epsilon_total_max,
                delta_total=delta_total,
            )
            entry = ReservedEntry(
                sequence=len(self._parsed) + 1,
                release_id=release_id,
                at_s=self._clock.now_s(),
                previous=_head(self._parsed),
                study_id=study_id,
                round_number=round_number,
                mechanisms=tuple(mechanisms),
            )
            self._store.append(entry.sequence, entry_bytes(entry))
            return entry

    def record_released(self, release_id: ReleaseId, payload_digest: Digest) -> ReleasedEntry:
        """Record which payload leaves under a reservation; the same payload again is no new entry.

        Raises:
            LedgerError: without a reservation, or for a second, different payload: two noise draws
                for one charge would tell more than was paid for.
        """
        with self._lock:
            if self.reservation(release_id) is None:
                raise _broken(len(self._parsed) + 1, "a release without a reservation")
            for known in self._parsed:
                if isinstance(known, ReleasedEntry) and known.release_id == release_id:
                    if known.payload_digest != payload_digest:
                        raise _broken(known.sequence, "a second payload for one release")
                    return known
            entry = ReleasedEntry(
                sequence=len(self._parsed) + 1,
                release_id=release_id,
                at_s=self._clock.now_s(),
                previous=_head(self._parsed),
                payload_digest=payload_digest,
            )
            self._store.append(entry.sequence, entry_bytes(entry))
            return entry


def _parse_chain(
    raw: tuple[bytes, ...], *, after: tuple[LedgerEntry, ...]
) -> tuple[LedgerEntry, ...]:
    """Parse entries that follow `after`, checking each link; raises `LedgerError`."""
    reserved = {entry.release_id for entry in after if isinstance(entry, ReservedEntry)}
    released = {entry.release_id for entry in after if isinstance(entry, ReleasedEntry)}
    previous = _head(after)
    chain: list[LedgerEntry] = []
    for sequence, data in enumerate(raw, start=len(after) + 1):
        entry = parse_entry(data, sequence)
        if entry.sequence != sequence or entry.previous != previous:
            raise _broken(sequence, "it does not follow the entry before it")
        seen = reserved if isinstance(entry, ReservedEntry) else released
        if entry.release_id in seen:
            raise _broken(sequence, "its release has such an entry already")
        if isinstance(entry, ReleasedEntry) and entry.release_id not in reserved:
            raise _broken(sequence, "its release was never reserved")
        seen.add(entry.release_id)
        chain.append(entry)
        previous = entry.digest
    return tuple(chain)


def _head(entries: tuple[LedgerEntry, ...]) -> Digest:
    return entries[-1].digest if entries else GENESIS


def _charges(
    entries: tuple[LedgerEntry, ...], study_id: StudyId | None = None
) -> tuple[MechanismRecord, ...]:
    return tuple(
        mechanism
        for entry in entries
        if isinstance(entry, ReservedEntry) and study_id in (None, entry.study_id)
        for mechanism in entry.mechanisms
    )


def _check_mechanism_count(mechanisms: Sequence[MechanismRecord]) -> None:
    count, most = len(mechanisms), limits.LEDGER_RECORDS_PER_RELEASE_MAX
    if not 1 <= count <= most:
        raise LedgerError(
            "a reservation is refused",
            expected=f"1 to {most} mechanism records for a release",
            arrived=str(count),
            todo="report this as a fault; nothing was released",
        )


def _over(number: str, limit: str, epsilon: float, most: float, delta: float) -> BudgetError:
    return BudgetError(
        f"the release would pass the limit {limit}",
        expected=f"at most epsilon {most:.4f} at delta {delta:g}",
        arrived=f"epsilon {epsilon:.4f} with this release",
        todo=f"nothing was released; hospital IT may raise {limit} in site.toml, or the study ends",
        number=number,
    )


def _reserved_otherwise(known: ReservedEntry) -> LedgerError:
    return LedgerError(
        f"the release is already reserved by ledger entry {known.sequence} for something else",
        expected="the same study, round and mechanisms",
        arrived="another study, round or mechanism",
        todo="nothing was released; use one software version and one plan for a study",
    )


def _broken(sequence: int, what: str) -> LedgerError:
    return LedgerError(
        f"the privacy ledger does not hold together at entry {sequence}",
        expected="entries that follow each other, none changed, none missing",
        arrived=what,
        todo="stop releasing, keep the file as it is, and restore the newest backup",
    )
