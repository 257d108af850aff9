"""The rules by which ledger entries follow each other, and what they charge, as pure functions.

(1) each entry names its number and the digest of the entry before
(2) a study commits to one plan at most once
(3) a release is reserved once; under a commitment only as far as that has room
(4) a release has one payload, and was reserved before
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from common.canonical import digest_bytes
from common.errors import LedgerError
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.ledger_entry import (
    CommittedEntry,
    LedgerEntry,
    ReservedEntry,
    parse_entry,
)
from common.privacy.mechanism import MechanismRecord
from common.privacy.spending_limits import Charges

GENESIS = digest_bytes("privacy-ledger-genesis")
"""What the first entry names as its previous entry."""


def parse_chain(
    raw: Sequence[bytes], *, after: Sequence[LedgerEntry] = ()
) -> tuple[LedgerEntry, ...]:
    """Return the entries that follow `after`, each rule checked; raises `LedgerError`."""
    seen = _Seen()
    for entry in after:
        seen.add(entry)
    previous = head_of(after)
    chain: list[LedgerEntry] = []
    for sequence, data in enumerate(raw, start=len(after) + 1):
        entry = parse_entry(data, sequence)
        if entry.sequence != sequence or entry.previous != previous:
            raise broken(sequence, "it does not follow the entry before it")
        seen.add(entry)
        chain.append(entry)
        previous = entry.digest
    return tuple(chain)


def check_contains(chain: Sequence[LedgerEntry], heads: Iterable[Digest]) -> None:
    """Check that heads known from elsewhere are in the chain; raises `LedgerError`.

    A chain alone cannot show that its newest entries were cut off; these can.
    """
    missing = set(heads) - {GENESIS} - {entry.digest for entry in chain}
    if missing:
        raise broken(len(chain) + 1, f"{len(missing)} heads that were stated earlier are not in it")


def head_of(entries: Sequence[LedgerEntry]) -> Digest:
    """Return the digest of the newest entry."""
    return entries[-1].digest if entries else GENESIS


def spent_charges(entries: Iterable[LedgerEntry], study_id: StudyId | None = None) -> Charges:
    """Return what was reserved, by one study or by all: what may have been released so far."""
    charges: Charges = Counter()
    for entry in entries:
        if isinstance(entry, ReservedEntry) and study_id in (None, entry.study_id):
            charges.update(entry.mechanisms)
    return charges


def committed_charges(entries: Iterable[LedgerEntry], study_id: StudyId | None = None) -> Charges:
    """Return what counts against the limits: commitments, and reservations that have none."""
    charges: Charges = Counter()
    for entry in entries:
        study, charged = _charge_of(entry)
        if charged and study_id in (None, study):
            charges.update(charged)
    return charges


def find_commitment(
    entries: Iterable[LedgerEntry], study_id: StudyId, plan_digest: Digest
) -> CommittedEntry | None:
    """Return the commitment of a study to exactly this plan, if there is one."""
    for entry in entries:
        if isinstance(entry, CommittedEntry):
            commitment = entry.commitment
            if (commitment.study_id, commitment.plan_digest) == (study_id, plan_digest):
                return entry
    return None


def unused_charges(entries: Iterable[LedgerEntry], commitment: CommittedEntry) -> Charges:
    """Return what a commitment still has room for."""
    room: Charges = Counter(dict(commitment.commitment.planned))
    named = (commitment.commitment.study_id, commitment.commitment.plan_digest)
    for entry in entries:
        if isinstance(entry, ReservedEntry) and (entry.study_id, entry.plan_digest) == named:
            room.subtract(entry.mechanisms)
    return room


def broken(sequence: int, what: str) -> LedgerError:
    """Return the error of a ledger that does not hold together at an entry."""
    return LedgerError(
        f"the privacy ledger does not hold together at entry {sequence}",
        expected="entries that follow each other, none changed, none missing",
        arrived=what,
        todo="stop releasing, keep the file as it is, and restore the newest backup",
    )


def _charge_of(entry: LedgerEntry) -> tuple[StudyId | None, Charges]:
    if isinstance(entry, CommittedEntry):
        return entry.commitment.study_id, Counter(dict(entry.commitment.planned))
    if isinstance(entry, ReservedEntry) and entry.plan_digest is None:
        return entry.study_id, Counter(entry.mechanisms)
    return None, Counter()


class _Seen:
    """What the entries so far allow the next one to be."""

    def __init__(self) -> None:
        self._reserved: set[ReleaseId] = set()
        self._released: set[ReleaseId] = set()
        self._room: dict[tuple[StudyId, Digest], Counter[MechanismRecord]] = {}

    def add(self, entry: LedgerEntry) -> None:
        if isinstance(entry, CommittedEntry):
            commitment = entry.commitment
            named = (commitment.study_id, commitment.plan_digest)
            planned = dict(commitment.planned)
            if named in self._room or len(planned) != len(commitment.planned):
                raise broken(entry.sequence, "its plan is committed already, or a record twice")
            self._room[named] = Counter(planned)
            return
        seen = self._reserved if isinstance(entry, ReservedEntry) else self._released
        if entry.release_id in seen:
            raise broken(entry.sequence, "its release has such an entry already")
        if isinstance(entry, ReservedEntry):
            self._charge(entry)
        elif entry.release_id not in self._reserved:
            raise broken(entry.sequence, "its release was never reserved")
        seen.add(entry.release_id)

    def _charge(self, entry: ReservedEntry) -> None:
        if entry.plan_digest is None:
            return
        room = self._room.get((entry.study_id, entry.plan_digest))
        if room is None:
            raise broken(entry.sequence, "its plan was never committed")
        room.subtract(entry.mechanisms)
        if any(room[mechanism] < 0 for mechanism in entry.mechanisms):
            raise broken(entry.sequence, "it is more than its plan committed")
