"""Mechanism records travel in the ledger's own form."""

from __future__ import annotations

import pytest

from common.canonical import Canonical
from common.errors import ProtocolError
from common.privacy import mechanism_record
from common.protocol.mechanisms import mechanism_from_record, mechanism_to_record
from tests.lib.messages import release


def test_the_record_that_travels_is_the_ledgers() -> None:
    for mechanism in release().mechanisms:
        record = mechanism_to_record(mechanism)
        assert record == mechanism_record.mechanism_to_record(mechanism)
        assert mechanism_from_record(record) == mechanism


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "laplace"},
        {"kind": "gaussian-vector"},
        {"noise_multiplier": 1.25},
        {"noise_multiplier": "0.0"},
        {"noise_multiplier": "nan"},
        {"sampling_probability": "1e999"},
        {"steps": 0},
        {"steps": True},
        {"part": [5, 5]},
        {"part": [0, 1_000_001]},
        {"part": [0]},
        {"extra": 1},
    ],
)
def test_another_record_is_refused(change: dict[str, Canonical]) -> None:
    record = mechanism_to_record(release().mechanisms[0]) | change
    with pytest.raises(ProtocolError):
        mechanism_from_record(record)


def test_a_list_is_no_record() -> None:
    with pytest.raises(ProtocolError):
        mechanism_from_record([])
