"""An envelope in a Flower message: back byte for byte, few objects, and anything else is none."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given, settings
from hypothesis import strategies as st

from common import limits
from common.flower_content import (
    ENVELOPE_KEY,
    ONE_OBJECT_BYTES_MAX,
    pack_envelope,
    unpack_envelope,
)


@pytest.mark.parametrize(
    "size", [0, 1, 5000, ONE_OBJECT_BYTES_MAX, ONE_OBJECT_BYTES_MAX + 1, 11 << 20]
)
def test_an_envelope_of_any_size_comes_back_byte_for_byte(size: int) -> None:
    envelope = secrets.token_bytes(size)
    assert unpack_envelope(pack_envelope(envelope)) == envelope


def test_a_small_envelope_is_two_objects_and_a_large_one_is_cut_into_chunks() -> None:
    assert len(get_all_nested_objects(pack_envelope(b"small"))) == 2
    assert len(get_all_nested_objects(pack_envelope(secrets.token_bytes(11 << 20)))) > 5


_NPY = Array(np.arange(10, dtype=np.uint8)).data


def _record(value: Any) -> RecordDict:
    return RecordDict({ENVELOPE_KEY: value})


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        _record(ConfigRecord({"other": b"x"})),
        _record(ConfigRecord({ENVELOPE_KEY: "text"})),
        _record(ConfigRecord({ENVELOPE_KEY: [b"x"]})),
        _record(MetricRecord({ENVELOPE_KEY: 1.0})),
        _record(ArrayRecord({"other": Array(np.zeros(3, np.uint8))})),
        _record(ArrayRecord({ENVELOPE_KEY: Array(np.zeros(3, np.float32))})),
        _record(ArrayRecord({ENVELOPE_KEY: Array(np.zeros((3, 3), np.uint8))})),
    ],
)
def test_what_is_no_envelope_is_none(content: RecordDict) -> None:
    assert unpack_envelope(content) is None


@settings(max_examples=300, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(lambda tail: b"\x93NUMPY\x01\x00" + tail),
        st.integers(0, 140).map(lambda cut: _NPY[:cut]),
    ),
    stype=st.sampled_from(["numpy.ndarray", "torch", ""]),
)
def test_a_hostile_array_is_none_or_the_bytes_it_holds(data: bytes, stype: str) -> None:
    array = Array(dtype="uint8", shape=(3,), stype=stype, data=data)
    unpacked = unpack_envelope(_record(ArrayRecord({ENVELOPE_KEY: array})))
    assert unpacked is None or unpacked in data


def test_more_than_the_bound_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    content = pack_envelope(bytes(100))
    assert unpack_envelope(content) == bytes(100)
    monkeypatch.setattr(limits, "ENVELOPE_BYTES_MAX", 99)
    assert unpack_envelope(content) is None
