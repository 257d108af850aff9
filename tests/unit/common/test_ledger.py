from __future__ import annotations

import dataclasses
import json

import pytest

from common.canonical import canonical_bytes
from common.errors import BudgetError, LedgerError
from common.privacy.accountant import epsilon_of
from common.privacy.ledger import GENESIS, MemoryLedgerStore
from common.privacy.ledger_entry import (
    ReleasedEntry,
    ReservedEntry,
    entry_bytes,
    parse_entry,
)
from common.privacy.mechanism import DpSgdSteps, GaussianVector
from tests.lib.ledgers import (
    DELTA,
    OTHER,
    SCORE,
    STUDY,
    TRAIN,
    EditedStore,
    make_ledger,
    payload,
    release,
    reserve,
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
            make_ledger(EditedStore(edited)).verify()


def test_a_removed_repeated_or_moved_entry_is_noticed() -> None:
    one, two, three = _three_entries()
    for edited in ((two, three), (one, three), (one, one), (one, two, two), (two, one), (one, b"")):
        with pytest.raises(LedgerError, match=r"entry [123]"):
            make_ledger(EditedStore(edited)).entries()


def test_a_second_reservation_of_a_release_is_noticed_even_when_well_chained() -> None:
    first = parse_entry(_three_entries()[0], 1)
    assert isinstance(first, ReservedEntry)
    second = ReservedEntry(
        2, first.release_id, 0, first.digest, first.study_id, 1, first.mechanisms
    )
    unreserved = ReleasedEntry(2, release(9), 0, first.digest, payload(1))
    for entry in (second, unreserved):
        with pytest.raises(LedgerError, match="entry 2"):
            make_ledger(EditedStore([entry_bytes(first), entry_bytes(entry)])).verify()


def test_an_entry_replaced_by_a_cheaper_one_is_noticed_by_the_next() -> None:
    entries = _three_entries()
    first = parse_entry(entries[0], 1)
    assert isinstance(first, ReservedEntry)
    cheaper = dataclasses.replace(first, mechanisms=(GaussianVector(1e4),))
    with pytest.raises(LedgerError, match="entry 2"):
        make_ledger(EditedStore([entry_bytes(cheaper), *entries[1:]])).verify()


def test_newest_entries_cut_off_are_noticed_by_a_head_stated_earlier() -> None:
    entries = _three_entries()
    heads = [parse_entry(data, 1).digest for data in entries]
    make_ledger(EditedStore(entries)).verify(must_contain=[GENESIS, *heads])
    cut = make_ledger(EditedStore(entries[:2]))
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
