"""Small ledgers in memory: one study's plan, its reservations, and what a changed store returns."""

from __future__ import annotations

from collections.abc import Sequence

from common.clock import FixedClock
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.privacy.ledger_entry import Commitment, CommittedEntry, ReservedEntry
from common.privacy.mechanism import DpSgdSteps, GaussianVector, MechanismRecord, PatientPart
from common.privacy.spending_limits import Composition, SpendingLimits

STUDY, OTHER = StudyId("first-study"), StudyId("second-study")
TRAIN = DpSgdSteps(4.4493, 0.5, 5, PatientPart(250_000, 1_000_000))
SCORE = GaussianVector(1.7299, PatientPart(0, 250_000))
DELTA = 1e-4
PLAN, OTHER_PLAN = Digest("a1" * 32), Digest("b2" * 32)


class EditedStore(MemoryLedgerStore):
    """A store whose content somebody changed."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        super().__init__()
        self._entries = list(entries)


def release(number: int) -> ReleaseId:
    """Return the name of a release."""
    return ReleaseId(f"{number:064x}")


def payload(number: int) -> Digest:
    """Return the digest of a payload."""
    return Digest(f"{number:064x}")


def make_ledger(store: MemoryLedgerStore | None = None) -> Ledger:
    """Return a ledger over a store, empty without one."""
    return Ledger(store or MemoryLedgerStore(), FixedClock())


def reserve(
    ledger: Ledger,
    number: int,
    *,
    study_id: StudyId = STUDY,
    round_number: int = 1,
    mechanisms: Sequence[MechanismRecord] = (TRAIN, SCORE),
    epsilon_study_max: float = 3.0,
    epsilon_total_max: float = 8.0,
    delta_total: float | None = None,
    composition: Composition = Composition.PLANNED,
    plan_digest: Digest | None = None,
) -> ReservedEntry:
    """Reserve a release of the first study."""
    return ledger.reserve(
        release(number),
        study_id=study_id,
        round_number=round_number,
        mechanisms=mechanisms,
        limits=SpendingLimits(
            epsilon_study_max=epsilon_study_max,
            delta=DELTA,
            epsilon_total_max=epsilon_total_max,
            delta_total=DELTA if delta_total is None else delta_total,
            composition=composition,
        ),
        plan_digest=plan_digest,
    )


def commit(
    ledger: Ledger,
    *,
    study_id: StudyId = STUDY,
    plan_digest: Digest = PLAN,
    planned: tuple[tuple[MechanismRecord, int], ...] = ((TRAIN, 5), (SCORE, 1)),
    epsilon_study_max: float = 3.0,
    epsilon_total_max: float = 8.0,
    composition: Composition = Composition.PLANNED,
) -> CommittedEntry:
    """Commit the first study to five rounds and one evaluation."""
    return ledger.commit(
        Commitment(study_id, plan_digest, 3.0, DELTA, planned),
        SpendingLimits(epsilon_study_max, DELTA, epsilon_total_max, DELTA, composition),
    )
