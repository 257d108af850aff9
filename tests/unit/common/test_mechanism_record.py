from __future__ import annotations

import pytest

from common.canonical import Canonical
from common.errors import AccountingError
from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)
from common.privacy.mechanism_record import mechanism_from_record, mechanism_to_record
from common.protocol import mechanisms as on_the_wire

RECORDS: list[MechanismRecord] = [
    DpSgdSteps(4.4493, 0.5, 5, PatientPart(250_000, 1_000_000)),
    GaussianVector(1.7299, PatientPart(0, 250_000)),
    GaussianVector(1e-05),
    DiscreteGaussianCounts(1.7299, 3, PatientPart(0, 250_000)),
]


@pytest.mark.parametrize("mechanism", RECORDS)
def test_a_record_reads_back_as_it_was(mechanism: MechanismRecord) -> None:
    assert mechanism_from_record(mechanism_to_record(mechanism)) == mechanism


@pytest.mark.parametrize("mechanism", RECORDS)
def test_the_ledger_and_the_wire_write_one_form(mechanism: MechanismRecord) -> None:
    assert mechanism_to_record(mechanism) == on_the_wire.mechanism_to_record(mechanism)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "laplace"},
        {"kind": None},
        {"noise_multiplier": "4.40"},
        {"noise_multiplier": "nan"},
        {"noise_multiplier": "inf"},
        {"noise_multiplier": "-1.0"},
        {"noise_multiplier": "x"},
        {"noise_multiplier": 4},
        {"steps": 0},
        {"steps": True},
        {"part": [5, 5]},
        {"part": [0, 2_000_000]},
        {"part": [0]},
        {"more": 1},
    ],
)
def test_another_record_is_refused(change: dict[str, Canonical]) -> None:
    with pytest.raises(AccountingError):
        mechanism_from_record(mechanism_to_record(RECORDS[0]) | change)


@pytest.mark.parametrize("cells", [0, 10_001, True, "1", None])
def test_counts_with_an_impossible_number_of_cells_are_refused(cells: Canonical) -> None:
    record = mechanism_to_record(DiscreteGaussianCounts(2.0, 1))
    with pytest.raises(AccountingError):
        mechanism_from_record(record | {"cells_per_patient_max": cells})


def test_what_is_no_object_is_refused() -> None:
    for record in (None, [], "dp-sgd-steps", 3):
        with pytest.raises(AccountingError):
            mechanism_from_record(record)
