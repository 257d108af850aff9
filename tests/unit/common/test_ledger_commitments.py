"""A study is charged its whole plan before its first release."""

from __future__ import annotations

import dataclasses

import pytest

from common.errors import BudgetError, LedgerError
from common.privacy.accountant import epsilon_of
from common.privacy.ledger import MemoryLedgerStore
from common.privacy.ledger_entry import (
    CommittedEntry,
    LedgerEntry,
    ReservedEntry,
    entry_bytes,
    parse_entry,
)
from common.privacy.mechanism import GaussianVector, MechanismRecord
from common.privacy.spending_limits import Composition
from tests.lib.ledgers import (
    DELTA,
    OTHER,
    OTHER_PLAN,
    PLAN,
    SCORE,
    STUDY,
    TRAIN,
    EditedStore,
    commit,
    make_ledger,
    reserve,
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


def test_a_study_from_before_commitments_is_charged_both_and_its_old_entries_are_read() -> None:
    """Its plan's promise does not shrink by what was released before it was written down."""
    store = MemoryLedgerStore()
    old = make_ledger(store)
    for number in (1, 2):
        reserve(old, number, mechanisms=(TRAIN,))
    ledger = make_ledger(store)
    assert ledger.committed(STUDY, DELTA) == ledger.spent(STUDY, DELTA)
    commit(ledger)
    both = epsilon_of([TRAIN] * 7 + [SCORE], delta=DELTA)
    assert ledger.committed(STUDY, DELTA).epsilon == both
    with pytest.raises(BudgetError) as caught:
        commit(ledger, plan_digest=OTHER_PLAN, planned=((TRAIN, 8),))
    assert caught.value.number == "R11"


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
    make_ledger(EditedStore(entries)).verify()
    for place, data in enumerate(entries):
        for index in range(0, len(data), 5):
            changed = bytearray(data)
            changed[index] ^= 1
            edited = [*entries[:place], bytes(changed), *entries[place + 1 :]]
            with pytest.raises(LedgerError):
                make_ledger(EditedStore(edited)).verify()


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
            make_ledger(EditedStore([entry_bytes(committed), entry_bytes(entry)])).verify()


def test_committed_entry_bytes_are_frozen() -> None:
    committed, reserved = _committed_entries()
    assert parse_entry(committed, 1).digest == (
        "cfabe4a3d72538b82e1100bbb129fa887499b75dc81e8e944ba4e276b3c69656"
    )
    assert parse_entry(reserved, 2).digest == (
        "539b80ed6ea7f09f60f43e475a4b08f8f597ec4ba67e20c0907590bfedfd4eae"
    )
