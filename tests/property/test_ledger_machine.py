"""Crash anywhere, restart, retry: the ledger never under-counts and never charges twice.

The store crashes before or after its write. The model keeps two sets: what the site was told is
reserved (the gate may have let it out) and what it ever asked for. The truth lies between them, and
after a crash and a retry it is exactly what was asked for.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.clock import FixedClock
from common.errors import BudgetError, LedgerError
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.accountant import epsilon_of
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.privacy.ledger_entry import ReleasedEntry, ReservedEntry
from common.privacy.mechanism import DpSgdSteps, GaussianVector, MechanismRecord, PatientPart

DELTA = 1e-5
EPSILON_STUDY_MAX = 2.0
EPSILON_TOTAL_MAX = 2.4
MECHANISMS: list[tuple[MechanismRecord, ...]] = [
    (DpSgdSteps(9.0, 1.0, 4, PatientPart(250_000, 1_000_000)),),
    (
        DpSgdSteps(9.0, 1.0, 4, PatientPart(250_000, 1_000_000)),
        GaussianVector(4.0, PatientPart(0, 250_000)),
    ),
    (GaussianVector(6.0, PatientPart(100_000, 500_000)),),
]
STUDIES = [StudyId("alpha"), StudyId("beta")]
RELEASES = [ReleaseId(f"{number:064x}") for number in range(8)]


class PowerCut(BaseException):
    """The process dies inside the store."""


class _CrashingStore(MemoryLedgerStore):
    def __init__(self) -> None:
        super().__init__()
        self.cut: str | None = None

    def append(self, sequence: int, entry: bytes) -> None:
        cut, self.cut = self.cut, None
        if cut == "before":
            raise PowerCut
        super().append(sequence, entry)
        if cut == "after":
            raise PowerCut


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = _CrashingStore()
        self.ledger = Ledger(self.store, FixedClock())
        self.told: dict[ReleaseId, tuple[StudyId, tuple[MechanismRecord, ...]]] = {}
        self.asked: dict[ReleaseId, tuple[StudyId, tuple[MechanismRecord, ...]]] = {}
        self.payloads: dict[ReleaseId, Digest] = {}
        self.heads: list[Digest] = []

    @rule(
        release_id=st.sampled_from(RELEASES),
        study_id=st.sampled_from(STUDIES),
        mechanisms=st.sampled_from(MECHANISMS),
        cut=st.sampled_from([None, None, "before", "after"]),
    )
    def reserve(
        self,
        release_id: ReleaseId,
        study_id: StudyId,
        mechanisms: tuple[MechanismRecord, ...],
        cut: str | None,
    ) -> None:
        study_id, mechanisms = self.asked.get(release_id, (study_id, mechanisms))
        self.store.cut = cut
        try:
            self.ledger.reserve(
                release_id,
                study_id=study_id,
                round_number=1,
                mechanisms=mechanisms,
                delta=DELTA,
                epsilon_study_max=EPSILON_STUDY_MAX,
                epsilon_total_max=EPSILON_TOTAL_MAX,
            )
        except BudgetError:
            assert release_id not in self.told
        except PowerCut:
            self.asked[release_id] = (study_id, mechanisms)
            self.restart()
        else:
            self.asked[release_id] = self.told[release_id] = (study_id, mechanisms)
        self.store.cut = None

    @precondition(lambda self: self.told)
    @rule(data=st.data(), number=st.integers(0, 2), cut=st.sampled_from([None, "before", "after"]))
    def release(self, data: st.DataObject, number: int, cut: str | None) -> None:
        release_id = data.draw(st.sampled_from(sorted(self.told)))
        known = self.payloads.get(release_id)
        payload = Digest(f"{number:064x}")
        self.store.cut = cut
        try:
            self.ledger.record_released(release_id, payload)
        except LedgerError:
            assert known is not None or self._written_payload(release_id) is not None
        except PowerCut:
            self.restart()
        else:
            assert known in (None, payload)
            self.payloads[release_id] = payload
        self.store.cut = None

    @rule()
    def restart(self) -> None:
        self.ledger = Ledger(self.store, FixedClock())

    @rule()
    def state_the_head(self) -> None:
        self.heads.append(self.ledger.head())

    @invariant()
    def the_chain_is_whole_and_contains_every_head_ever_stated(self) -> None:
        self.ledger.verify(must_contain=self.heads)

    @invariant()
    def nothing_told_is_missing_nothing_is_charged_twice_or_unasked(self) -> None:
        reserved = [item for item in self.ledger.entries() if isinstance(item, ReservedEntry)]
        names = [item.release_id for item in reserved]
        assert len(set(names)) == len(names)
        assert set(self.told) <= set(names) <= set(self.asked)
        for item in reserved:
            assert (item.study_id, item.mechanisms) == self.asked[item.release_id]

    @invariant()
    def spending_covers_every_release_and_stays_within_the_limits(self) -> None:
        for study_id in STUDIES:
            out = [m for study, ms in self.told.values() if study == study_id for m in ms]
            spent = self.ledger.spent(study_id, DELTA).epsilon
            assert epsilon_of(out, delta=DELTA) <= spent + 1e-9
            assert spent <= EPSILON_STUDY_MAX
        out = [m for _, ms in self.told.values() for m in ms]
        total = self.ledger.spent_total(DELTA).epsilon
        assert epsilon_of(out, delta=DELTA) <= total + 1e-9
        assert total <= EPSILON_TOTAL_MAX

    def _written_payload(self, release_id: ReleaseId) -> Digest | None:
        for item in self.ledger.entries():
            if isinstance(item, ReleasedEntry) and item.release_id == release_id:
                return item.payload_digest
        return None


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)
