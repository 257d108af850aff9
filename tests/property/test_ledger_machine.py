"""Crash anywhere, restart, retry: the ledger never under-counts and never charges twice.

Studies begin in any order, with parts that overlap; some releases stand outside any commitment. The
store crashes before or after its write. The model keeps its own list of what it asked for and of
what it was told is charged (the gate may have let that out). The truth lies between them, and after
a crash and a retry it is exactly what was asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.clock import FixedClock
from common.errors import BudgetError, LedgerError
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.accountant import epsilon_of
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.privacy.ledger_entry import Commitment, CommittedEntry, ReleasedEntry, ReservedEntry
from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)
from common.privacy.renyi_filter import RenyiFilter
from common.privacy.spending_limits import Composition, SpendingLimits

DELTA = 1e-5
LIMITS = {
    how: SpendingLimits(2.0, DELTA, total, DELTA, how)
    for how, total in ((Composition.PLANNED, 2.4), (Composition.ADAPTIVE, 3.4))
}
TRAIN = DpSgdSteps(9.0, 1.0, 4, PatientPart(250_000, 1_000_000))
COUNTS = DiscreteGaussianCounts(6.0, 1, PatientPart(0, 250_000))
VECTOR = GaussianVector(9.0, PatientPart(100_000, 500_000))
OTHER_TRAIN = DpSgdSteps(14.0, 0.5, 5, PatientPart(400_000, 1_000_000))
PLANS = [
    Commitment(StudyId("alpha"), Digest("a1" * 32), 2.0, DELTA, ((TRAIN, 3), (COUNTS, 2))),
    Commitment(StudyId("alpha"), Digest("a2" * 32), 2.0, DELTA, ((TRAIN, 1), (VECTOR, 1))),
    Commitment(StudyId("beta"), Digest("b1" * 32), 2.0, DELTA, ((OTHER_TRAIN, 4), (COUNTS, 1))),
    Commitment(StudyId("gamma"), Digest("c1" * 32), 2.0, DELTA, ((VECTOR, 2),)),
    Commitment(StudyId("delta"), Digest("d1" * 32), 2.0, DELTA, ((TRAIN, 30),)),  # never fits
]
OUTSIDE: list[tuple[MechanismRecord, ...]] = [(VECTOR,), (COUNTS, TRAIN), (OTHER_TRAIN,)]
STUDIES = sorted({plan.study_id for plan in PLANS})
RELEASES = [ReleaseId(f"{number:064x}") for number in range(12)]
CUTS = st.sampled_from([None, None, "before", "after"])


class PowerCut(BaseException):
    """The process dies inside the store."""


@dataclass(frozen=True)
class Asked:
    study_id: StudyId
    plan_digest: Digest | None
    mechanisms: tuple[MechanismRecord, ...]


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
    composition = Composition.PLANNED

    def __init__(self) -> None:
        super().__init__()
        self.store = _CrashingStore()
        self.ledger = Ledger(self.store, FixedClock())
        self.told: dict[ReleaseId, Asked] = {}
        self.asked: dict[ReleaseId, Asked] = {}
        self.committed: set[Commitment] = set()  # told to be in force
        self.commit_asked: set[Commitment] = set()
        self.payloads: dict[ReleaseId, Digest] = {}
        self.heads: list[Digest] = []

    @property
    def limits(self) -> SpendingLimits:
        return LIMITS[self.composition]

    @rule(plan=st.sampled_from(PLANS), cut=CUTS)
    def commit(self, plan: Commitment, cut: str | None) -> None:
        self.store.cut = cut
        try:
            self.ledger.commit(plan, self.limits)
        except BudgetError:
            assert plan not in self.committed
        except PowerCut:
            self.commit_asked.add(plan)
            self.restart()
        else:
            self.committed.add(plan)
            self.commit_asked.add(plan)
        self.store.cut = None

    @precondition(lambda self: self.committed)
    @rule(release_id=st.sampled_from(RELEASES), data=st.data(), cut=CUTS)
    def reserve_planned(self, release_id: ReleaseId, data: st.DataObject, cut: str | None) -> None:
        plan = data.draw(st.sampled_from(sorted(self.committed, key=lambda item: item.plan_digest)))
        mechanisms = tuple(
            data.draw(
                st.lists(st.sampled_from([r for r, _ in plan.planned]), min_size=1, max_size=2)
            )
        )
        self.reserve(release_id, Asked(plan.study_id, plan.plan_digest, mechanisms), cut)

    @rule(
        release_id=st.sampled_from(RELEASES),
        study_id=st.sampled_from(STUDIES),
        mechanisms=st.sampled_from(OUTSIDE),
        cut=CUTS,
    )
    def reserve_outside(
        self,
        release_id: ReleaseId,
        study_id: StudyId,
        mechanisms: tuple[MechanismRecord, ...],
        cut: str | None,
    ) -> None:
        self.reserve(release_id, Asked(study_id, None, mechanisms), cut)

    def reserve(self, release_id: ReleaseId, asked: Asked, cut: str | None) -> None:
        asked = self.asked.get(release_id, asked)
        self.store.cut = cut
        try:
            self.ledger.reserve(
                release_id,
                study_id=asked.study_id,
                round_number=1,
                mechanisms=asked.mechanisms,
                limits=self.limits,
                plan_digest=asked.plan_digest,
            )
        except BudgetError:
            assert release_id not in self.told
        except PowerCut:
            self.asked[release_id] = asked
            self.restart()
        else:
            self.asked[release_id] = self.told[release_id] = asked
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
        entries = self.ledger.entries()
        plans = [item.commitment for item in entries if isinstance(item, CommittedEntry)]
        assert len(set(plans)) == len(plans)
        assert self.committed <= set(plans) <= self.commit_asked
        reserved = [item for item in entries if isinstance(item, ReservedEntry)]
        names = [item.release_id for item in reserved]
        assert len(set(names)) == len(names)
        assert set(self.told) <= set(names) <= set(self.asked)
        for item in reserved:
            stands = Asked(item.study_id, item.plan_digest, item.mechanisms)
            assert stands == self.asked[item.release_id]

    @invariant()
    def no_commitment_is_used_beyond_what_it_promised(self) -> None:
        for plan in PLANS:
            out = Counter(m for a in self.told.values() if _pays(plan, a) for m in a.mechanisms)
            assert out <= Counter(dict(plan.planned))

    @invariant()
    def spending_covers_every_release_and_promises_stay_within_the_limits(self) -> None:
        for study_id in STUDIES:
            used, charged = self._own_lists(study_id)
            spent = self.ledger.spent(study_id, DELTA).epsilon
            committed = self.ledger.committed(study_id, DELTA).epsilon
            assert epsilon_of(used, delta=DELTA) <= spent + 1e-9
            assert epsilon_of(charged, delta=DELTA) <= committed + 1e-9
            assert spent - 1e-9 <= committed <= self.limits.epsilon_study_max
        used, charged = self._own_lists()
        spent = self.ledger.spent_total(DELTA).epsilon
        committed = self.ledger.committed_total(DELTA).epsilon
        assert epsilon_of(used, delta=DELTA) <= spent + 1e-9
        assert epsilon_of(charged, delta=DELTA) <= committed + 1e-9
        assert spent - 1e-9 <= committed <= self.limits.epsilon_total_max
        if self.composition is Composition.ADAPTIVE:
            renyi = RenyiFilter.for_target(self.limits.epsilon_total_max, DELTA)
            assert renyi.spent(Counter(charged)) <= renyi.budget

    def _own_lists(
        self, study_id: StudyId | None = None
    ) -> tuple[list[MechanismRecord], list[MechanismRecord]]:
        """What may have been released, and what was promised, by the model's own record."""
        told = [item for item in self.told.values() if study_id in (None, item.study_id)]
        used = [mechanism for item in told for mechanism in item.mechanisms]
        charged = [m for item in told if item.plan_digest is None for m in item.mechanisms]
        for plan in self.committed:
            if study_id in (None, plan.study_id):
                charged += [mechanism for mechanism, count in plan.planned for _ in range(count)]
        return used, charged

    def _written_payload(self, release_id: ReleaseId) -> Digest | None:
        for item in self.ledger.entries():
            if isinstance(item, ReleasedEntry) and item.release_id == release_id:
                return item.payload_digest
        return None


class AdaptiveLedgerMachine(LedgerMachine):
    composition = Composition.ADAPTIVE


def _pays(plan: Commitment, asked: Asked) -> bool:
    return (plan.study_id, plan.plan_digest) == (asked.study_id, asked.plan_digest)


TestLedgerMachine = LedgerMachine.TestCase
TestAdaptiveLedgerMachine = AdaptiveLedgerMachine.TestCase
TestLedgerMachine.settings = TestAdaptiveLedgerMachine.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True
)
