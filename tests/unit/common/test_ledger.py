from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import pytest

from common.canonical import canonical_bytes
from common.clock import FixedClock
from common.errors import BudgetError, LedgerError
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.accountant import epsilon_of
from common.privacy.ledger import GENESIS, Ledger, MemoryLedgerStore
from common.privacy.ledger_entry import (
    Commitment,
    CommittedEntry,
    LedgerEntry,
    ReleasedEntry,
    ReservedEntry,
    entry_bytes,
    parse_entry,
)
from common.privacy.mechanism import DpSgdSteps, GaussianVector, MechanismRecord, PatientPart
from common.privacy.spending_limits import Composition, SpendingLimits

STUDY, OTHER = StudyId("first-study"), StudyId("second-study")
TRAIN = DpSgdSteps(4.4493, 0.5, 5, PatientPart(250_000, 1_000_000))
SCORE = GaussianVector(1.7299, PatientPart(0, 250_000))
DELTA = 1e-4
PLAN, OTHER_PLAN = Digest("a1" * 32), Digest("b2" * 32)


def release(number: int) -> ReleaseId:
    return ReleaseId(f"{number:064x}")


def payload(number: int) -> Digest:
    return Digest(f"{number:064x}")


def make_ledger(store: MemoryLedgerStore | None = None) -> Ledger:
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
    return ledger.commit(
        Commitment(study_id, plan_digest, 3.0, DELTA, planned),
        SpendingLimits(epsilon_study_max, DELTA, epsilon_total_max, DELTA, composition),
    )


def test_an_empty_ledger_has_spent_nothing() -> None:
    ledger = make_ledger()
    assert ledger.entries() == ()
    assert ledger.head() == GENESIS
    assert ledger.spent(STUDY, DELTA).epsilon == 0.0
    assert ledger.spent_total(DELTA).epsilon == 0.0
    ledger.verify()


def test_what_is_reserved_is_spent_whether_released_or_not() -> None:
    ledger = make_ledger()
    reserve(ledger, 1)
    assert ledger.spent(STUDY, DELTA).epsilon == epsilon_of([TRAIN, SCORE], delta=DELTA)
    before = ledger.spent(STUDY, DELTA)
    ledger.record_released(release(1), payload(1))
    assert ledger.spent(STUDY, DELTA) == before


def test_studies_are_charged_apart_and_together() -> None:
    ledger = make_ledger()
    reserve(ledger, 1)
    reserve(ledger, 2, study_id=OTHER)
    assert ledger.spent(STUDY, DELTA) == ledger.spent(OTHER, DELTA)
    both = epsilon_of([TRAIN, SCORE, TRAIN, SCORE], delta=DELTA)
    assert ledger.spent_total(DELTA).epsilon == both


def test_a_retry_of_a_release_is_not_charged_twice() -> None:
    ledger = make_ledger()
    assert reserve(ledger, 1) == reserve(ledger, 1)
    assert len(ledger.entries()) == 1


def test_a_retry_at_the_limit_is_not_refused() -> None:
    ledger = make_ledger()
    limit = epsilon_of([TRAIN, SCORE], delta=DELTA)
    reserve(ledger, 1, epsilon_study_max=limit, epsilon_total_max=limit)
    reserve(ledger, 1, epsilon_study_max=limit, epsilon_total_max=limit)


@pytest.mark.parametrize(
    "change",
    [
        {"mechanisms": (TRAIN,)},
        {"mechanisms": (DpSgdSteps(9.0, 0.5, 5), SCORE)},
        {"study_id": OTHER},
        {"round_number": 2},
    ],
)
def test_a_release_reserved_for_something_else_is_refused(change: dict[str, object]) -> None:
    ledger = make_ledger()
    reserve(ledger, 1)
    with pytest.raises(LedgerError, match="already reserved"):
        reserve(ledger, 1, **change)  # type: ignore[arg-type]
    assert len(ledger.entries()) == 1


def test_r11_the_release_that_would_pass_the_study_limit_is_refused_before_it_is_written() -> None:
    ledger = make_ledger()
    for number in range(1, 11):
        reserve(ledger, number, mechanisms=(TRAIN,))
    with pytest.raises(BudgetError) as caught:
        reserve(ledger, 11, mechanisms=(TRAIN,))
    assert caught.value.number == "R11"
    assert "epsilon_per_study" in str(caught.value)
    assert len(ledger.entries()) == 10
    assert ledger.spent(STUDY, DELTA).epsilon <= 3.0


def test_r12_the_limit_over_all_studies_stops_another_study() -> None:
    ledger = make_ledger()
    reserve(ledger, 1, epsilon_total_max=2.5)
    with pytest.raises(BudgetError) as caught:
        reserve(ledger, 2, study_id=OTHER, epsilon_total_max=2.5)
    assert caught.value.number == "R12"
    assert "epsilon_total" in str(caught.value)


def test_the_total_may_be_stated_at_another_delta() -> None:
    at_study_delta = epsilon_of([TRAIN, SCORE], delta=DELTA)
    with pytest.raises(BudgetError) as caught:
        reserve(make_ledger(), 1, epsilon_total_max=at_study_delta, delta_total=1e-8)
    assert caught.value.number == "R12"


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_no_limit_lets_nothing_pass(limit: float) -> None:
    with pytest.raises(BudgetError):
        reserve(make_ledger(), 1, epsilon_study_max=limit)
    with pytest.raises(BudgetError):
        reserve(make_ledger(), 1, epsilon_total_max=limit)


@pytest.mark.parametrize("count", [0, 17])
def test_a_release_has_one_to_sixteen_mechanisms(count: int) -> None:
    with pytest.raises(LedgerError):
        reserve(make_ledger(), 1, mechanisms=(GaussianVector(1e4),) * count)


def test_a_release_without_a_reservation_is_refused() -> None:
    with pytest.raises(LedgerError, match="entry 1"):
        make_ledger().record_released(release(1), payload(1))


def test_one_charge_pays_for_one_payload() -> None:
    ledger = make_ledger()
    reserve(ledger, 1)
    first = ledger.record_released(release(1), payload(1))
    assert ledger.record_released(release(1), payload(1)) == first
    with pytest.raises(LedgerError):
        ledger.record_released(release(1), payload(2))
    assert len(ledger.entries()) == 2


def test_entries_chain_and_survive_a_restart() -> None:
    store = MemoryLedgerStore()
    ledger = make_ledger(store)
    reserve(ledger, 1)
    ledger.record_released(release(1), payload(1))
    again = make_ledger(store)
    assert again.entries() == ledger.entries()
    assert again.head() == ledger.head() == ledger.entries()[-1].digest
    assert [entry.previous for entry in again.entries()] == [GENESIS, again.entries()[0].digest]


def test_two_processes_cannot_fork_the_chain() -> None:
    store = MemoryLedgerStore()
    one, two = make_ledger(store), make_ledger(store)
    reserve(one, 1, mechanisms=(TRAIN,))
    two.entries()
    entry = reserve(one, 2, mechanisms=(TRAIN,))
    with pytest.raises(LedgerError):
        store.append(entry.sequence, entry_bytes(entry))
    reserve(two, 3, mechanisms=(TRAIN,))
    assert [item.sequence for item in one.entries()] == [1, 2, 3]
    one.verify()


class _EditedStore(MemoryLedgerStore):
    """A store whose content somebody changed."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        super().__init__()
        self._entries = list(entries)


def _three_entries() -> tuple[bytes, ...]:
    store = MemoryLedgerStore()
    ledger = make_ledger(store)
    reserve(ledger, 1)
    ledger.record_released(release(1), payload(1))
    reserve(ledger, 2)
    return tuple(store.read_all())


@pytest.mark.parametrize("place", range(3))
def test_every_changed_byte_is_noticed(place: int) -> None:
    entries = list(_three_entries())
    for index in range(0, len(entries[place]), 7):
        changed = bytearray(entries[place])
        changed[index] ^= 1
        edited = [*entries[:place], bytes(changed), *entries[place + 1 :]]
        with pytest.raises(LedgerError):
            make_ledger(_EditedStore(edited)).verify()


def test_a_removed_repeated_or_moved_entry_is_noticed() -> None:
    one, two, three = _three_entries()
    for edited in ((two, three), (one, three), (one, one), (one, two, two), (two, one), (one, b"")):
        with pytest.raises(LedgerError, match=r"entry [123]"):
            make_ledger(_EditedStore(edited)).entries()


def test_a_second_reservation_of_a_release_is_noticed_even_when_well_chained() -> None:
    first = parse_entry(_three_entries()[0], 1)
    assert isinstance(first, ReservedEntry)
    second = ReservedEntry(
        2, first.release_id, 0, first.digest, first.study_id, 1, first.mechanisms
    )
    unreserved = ReleasedEntry(2, release(9), 0, first.digest, payload(1))
    for entry in (second, unreserved):
        with pytest.raises(LedgerError, match="entry 2"):
            make_ledger(_EditedStore([entry_bytes(first), entry_bytes(entry)])).verify()


def test_an_entry_replaced_by_a_cheaper_one_is_noticed_by_the_next() -> None:
    entries = _three_entries()
    first = parse_entry(entries[0], 1)
    assert isinstance(first, ReservedEntry)
    cheaper = dataclasses.replace(first, mechanisms=(GaussianVector(1e4),))
    with pytest.raises(LedgerError, match="entry 2"):
        make_ledger(_EditedStore([entry_bytes(cheaper), *entries[1:]])).verify()


def test_newest_entries_cut_off_are_noticed_by_a_head_stated_earlier() -> None:
    entries = _three_entries()
    heads = [parse_entry(data, 1).digest for data in entries]
    make_ledger(_EditedStore(entries)).verify(must_contain=[GENESIS, *heads])
    cut = make_ledger(_EditedStore(entries[:2]))
    cut.verify()
    with pytest.raises(LedgerError, match="entry 3"):
        cut.verify(must_contain=heads)


def test_entries_that_vanish_while_the_agent_runs_are_noticed() -> None:
    store = MemoryLedgerStore()
    ledger = make_ledger(store)
    reserve(ledger, 1)
    ledger.entries()
    store._entries.clear()
    with pytest.raises(LedgerError):
        ledger.spent(STUDY, DELTA)
    with pytest.raises(LedgerError):
        reserve(ledger, 2)


def test_an_entry_that_is_too_large_or_has_more_fields_is_refused() -> None:
    data = _three_entries()[0]
    record = json.loads(data)
    for other in (b"x" * 20_000, canonical_bytes(record | {"note": "x"}), b"null", b"[]"):
        with pytest.raises(LedgerError, match="entry 7"):
            parse_entry(other, 7)


def test_entry_bytes_are_frozen() -> None:
    assert parse_entry(_three_entries()[2], 3).digest == (
        "18405201801f61b07726a6e434a561f850e541675e81fdbaf6ade84a317555dc"
    )


def test_a_commitment_is_charged_in_full_before_anything_is_spent() -> None:
    ledger = make_ledger()
    commit(ledger)
    assert ledger.spent(STUDY, DELTA).epsilon == 0.0
    assert ledger.committed(STUDY, DELTA).epsilon == epsilon_of([TRAIN] * 5 + [SCORE], delta=DELTA)
    assert ledger.committed_total(DELTA) == ledger.committed(STUDY, DELTA)


def test_a_reservation_under_a_commitment_is_spent_and_charges_nothing_more() -> None:
    ledger = make_ledger()
    commit(ledger)
    promised = ledger.committed_total(DELTA)
    for number in range(1, 4):
        reserve(ledger, number, mechanisms=(TRAIN,), plan_digest=PLAN)
    assert ledger.spent(STUDY, DELTA).epsilon == epsilon_of([TRAIN] * 3, delta=DELTA)
    assert ledger.committed_total(DELTA) == promised  # what is not used is still promised


def test_a_reservation_without_a_commitment_is_charged_as_itself_on_top() -> None:
    ledger = make_ledger()
    commit(ledger)
    reserve(ledger, 1, mechanisms=(TRAIN,), epsilon_study_max=9.0)
    promised = epsilon_of([TRAIN] * 6 + [SCORE], delta=DELTA)
    assert ledger.committed(STUDY, DELTA).epsilon == promised
    assert ledger.spent(STUDY, DELTA).epsilon == epsilon_of([TRAIN], delta=DELTA)


def test_r8_more_than_was_committed_is_refused_before_it_is_written() -> None:
    ledger = make_ledger()
    commit(ledger)
    for number in range(1, 6):
        reserve(ledger, number, mechanisms=(TRAIN,), plan_digest=PLAN)
    too_much: list[tuple[MechanismRecord, ...]] = [(TRAIN,), (SCORE, SCORE), (GaussianVector(9.0),)]
    for mechanisms in too_much:
        with pytest.raises(BudgetError) as caught:
            reserve(ledger, 6, mechanisms=mechanisms, plan_digest=PLAN)
        assert caught.value.number == "R8"
    assert len(ledger.entries()) == 6


def test_a_reservation_for_a_plan_that_was_never_committed_is_refused() -> None:
    ledger = make_ledger()
    commit(ledger)
    for change in ({"plan_digest": OTHER_PLAN}, {"plan_digest": PLAN, "study_id": OTHER}):
        with pytest.raises(LedgerError, match="entry 2"):
            reserve(ledger, 1, mechanisms=(TRAIN,), **change)  # type: ignore[arg-type]


def test_a_commitment_made_again_charges_nothing_and_with_other_numbers_is_refused() -> None:
    ledger = make_ledger()
    limit = epsilon_of([TRAIN] * 5 + [SCORE], delta=DELTA)
    first = commit(ledger, epsilon_study_max=limit, epsilon_total_max=limit)
    assert commit(ledger, epsilon_study_max=limit, epsilon_total_max=limit) == first
    with pytest.raises(LedgerError, match="already committed"):
        commit(ledger, planned=((TRAIN, 4), (SCORE, 1)))
    assert len(ledger.entries()) == 1


def test_r11_a_plan_above_the_study_limit_is_never_committed() -> None:
    ledger = make_ledger()
    with pytest.raises(BudgetError) as caught:
        commit(ledger, planned=((TRAIN, 11),))
    assert caught.value.number == "R11"
    assert ledger.entries() == ()


def test_r12_a_second_study_is_refused_by_what_the_first_promised_not_by_what_it_used() -> None:
    ledger = make_ledger()
    commit(ledger, epsilon_total_max=2.5)
    with pytest.raises(BudgetError) as caught:
        commit(ledger, study_id=OTHER, epsilon_total_max=2.5)
    assert caught.value.number == "R12"
    assert len(ledger.entries()) == 1


def test_r11_a_second_plan_under_one_study_id_is_charged_together_with_the_first() -> None:
    ledger = make_ledger()
    commit(ledger, planned=((TRAIN, 8),))
    with pytest.raises(BudgetError) as caught:
        commit(ledger, plan_digest=OTHER_PLAN, planned=((TRAIN, 8),))
    assert caught.value.number == "R11"


def test_a_limit_lowered_under_what_was_promised_ends_the_study() -> None:
    ledger = make_ledger()
    commit(ledger)
    reserve(ledger, 1, mechanisms=(TRAIN,), plan_digest=PLAN)
    with pytest.raises(BudgetError) as caught:
        reserve(ledger, 2, mechanisms=(TRAIN,), plan_digest=PLAN, epsilon_total_max=1.0)
    assert caught.value.number == "R12"
    again = reserve(ledger, 1, mechanisms=(TRAIN,), plan_digest=PLAN, epsilon_total_max=1.0)
    assert again.sequence == 2  # a retry of what was reserved is let through


def test_r12_adaptive_composition_refuses_where_the_filter_is_full() -> None:
    ledger = make_ledger()
    adaptive = {"epsilon_total_max": 3.1, "composition": Composition.ADAPTIVE}
    commit(ledger, **adaptive)  # type: ignore[arg-type]
    with pytest.raises(BudgetError) as caught:
        commit(ledger, study_id=OTHER, **adaptive)  # type: ignore[arg-type]
    assert caught.value.number == "R12"
    assert "order" in str(caught.value)
    commit(ledger, study_id=OTHER, epsilon_total_max=3.1)  # planned composition has room


def _committed_entries() -> tuple[bytes, ...]:
    store = MemoryLedgerStore()
    ledger = make_ledger(store)
    commit(ledger)
    reserve(ledger, 1, mechanisms=(TRAIN,), plan_digest=PLAN)
    return tuple(store.read_all())


def test_entries_under_a_commitment_survive_a_restart_and_every_changed_byte_is_noticed() -> None:
    entries = _committed_entries()
    make_ledger(_EditedStore(entries)).verify()
    for place, data in enumerate(entries):
        for index in range(0, len(data), 5):
            changed = bytearray(data)
            changed[index] ^= 1
            edited = [*entries[:place], bytes(changed), *entries[place + 1 :]]
            with pytest.raises(LedgerError):
                make_ledger(_EditedStore(edited)).verify()


def test_a_well_chained_entry_that_its_commitment_does_not_cover_is_noticed() -> None:
    committed, reserved = (
        parse_entry(data, number) for number, data in enumerate(_committed_entries(), start=1)
    )
    assert isinstance(committed, CommittedEntry)
    assert isinstance(reserved, ReservedEntry)
    forged: list[LedgerEntry] = [
        dataclasses.replace(reserved, mechanisms=(TRAIN,) * 6),
        dataclasses.replace(reserved, mechanisms=(GaussianVector(9.0),)),
        dataclasses.replace(reserved, plan_digest=OTHER_PLAN),
        dataclasses.replace(reserved, study_id=OTHER),
        dataclasses.replace(committed, sequence=2, previous=committed.digest),
    ]
    for entry in forged:
        with pytest.raises(LedgerError, match="entry 2"):
            make_ledger(_EditedStore([entry_bytes(committed), entry_bytes(entry)])).verify()


def test_committed_entry_bytes_are_frozen() -> None:
    committed, reserved = _committed_entries()
    assert parse_entry(committed, 1).digest == (
        "cfabe4a3d72538b82e1100bbb129fa887499b75dc81e8e944ba4e276b3c69656"
    )
    assert parse_entry(reserved, 2).digest == (
        "539b80ed6ea7f09f60f43e475a4b08f8f597ec4ba67e20c0907590bfedfd4eae"
    )
