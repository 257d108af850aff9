"""Parameters: one byte form, exactly the arrays expected."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from common.errors import ProtocolError
from common.protocol.arrays import (
    Parameters,
    check_finite,
    decode_parameters,
    encode_parameters,
    is_finite,
    l2_norm,
    parameters_digest,
)
from tests.lib.messages import PARAMETERS, SHAPES

BYTES_MAX = 1 << 20


def _decode(data: bytes) -> Parameters:
    return decode_parameters(data, expected=SHAPES, bytes_max=BYTES_MAX)


def _with_header(header: object, body: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def _entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


RIGHT = {"linear.bias": _entry("F32", [1], 0, 4), "linear.weight": _entry("F32", [1, 3], 4, 16)}


def test_arrays_survive_and_can_be_written_to() -> None:
    arrays = _decode(PARAMETERS)
    assert {name: array.shape for name, array in arrays.items()} == SHAPES
    assert encode_parameters(arrays) == PARAMETERS
    arrays["linear.bias"] += 1


def test_the_order_of_the_names_does_not_change_the_bytes() -> None:
    arrays = _decode(PARAMETERS)
    assert encode_parameters(dict(reversed(arrays.items()))) == PARAMETERS


def test_a_transposed_array_has_the_bytes_of_its_copy() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert encode_parameters({"a": array.T}) == encode_parameters({"a": array.T.copy()})


def test_arrays_of_another_type_are_not_rounded_in_silence() -> None:
    with pytest.raises(ProtocolError):
        encode_parameters({"a": np.zeros(2, dtype=np.float64)})  # type: ignore[dict-item]


@pytest.mark.parametrize("name", ["", "a b", 'a"', "é", "a" * 201, "__metadata__"])
def test_a_name_that_could_not_travel_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        encode_parameters({name: np.zeros(1, dtype=np.float32)})


@pytest.mark.parametrize(
    "header",
    [
        {"linear.bias": RIGHT["linear.bias"]},
        {**RIGHT, "extra": _entry("F32", [0], 16, 16)},
        {"linear.bias": RIGHT["linear.bias"], "linear.wait": RIGHT["linear.weight"]},
        {**RIGHT, "linear.weight": _entry("F32", [3, 1], 4, 16)},
        {**RIGHT, "linear.weight": _entry("I32", [1, 3], 4, 16)},
        {**RIGHT, "linear.weight": _entry("F16", [1, 6], 4, 16)},
        {"__metadata__": {"note": "x"}, **RIGHT},
        dict(reversed(RIGHT.items())),
        {**RIGHT, "linear.bias": _entry("F32", [1], 12, 16)},
        {**RIGHT, "linear.bias": 7},
        [],
        None,
    ],
)
def test_another_header_is_refused(header: object) -> None:
    with pytest.raises(ProtocolError):
        _decode(_with_header(header, bytes(16)))


def test_the_expected_header_is_accepted() -> None:
    assert _decode(_with_header(RIGHT, bytes(16)))["linear.weight"].shape == (1, 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\0" * 8,
        b"\xff" * 64,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 40) + b"[" * 40,
        PARAMETERS[:-1],
        PARAMETERS + b"\0",
        PARAMETERS.replace(b"}} ", b"} }"),
    ],
)
def test_bytes_that_are_no_parameters_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        _decode(data)


def test_the_error_names_the_array_that_differs_and_nothing_that_arrived() -> None:
    header = {**RIGHT, "linear.weight": _entry("marked-4711", [3, 1], 4, 16)}
    with pytest.raises(ProtocolError, match=r"expected: +linear\.weight: F32 \[1, 3\]") as caught:
        _decode(_with_header(header, bytes(16)))
    assert "4711" not in str(caught.value)


def test_more_bytes_than_allowed_are_refused_first() -> None:
    with pytest.raises(ProtocolError, match="at most 10 bytes"):
        decode_parameters(PARAMETERS, expected=SHAPES, bytes_max=10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_found(value: float) -> None:
    arrays = _decode(PARAMETERS)
    check_finite(arrays)
    assert is_finite(arrays)
    arrays["linear.weight"][0, 1] = value
    assert not is_finite(arrays)
    with pytest.raises(ProtocolError, match=r"linear\.weight"):
        check_finite(arrays)


def test_the_norm_is_over_all_arrays_in_float64() -> None:
    huge = np.full(2_000_000, 1e30, dtype=np.float32)
    assert l2_norm({"a": huge, "b": np.array([3e30], dtype=np.float32)}) == pytest.approx(
        np.sqrt(2_000_009) * 1e30, rel=1e-6
    )
    assert l2_norm({}) == 0.0


def test_one_changed_number_is_another_version() -> None:
    arrays = _decode(PARAMETERS)
    arrays["linear.bias"][0] = np.nextafter(arrays["linear.bias"][0], np.float32(1))
    assert parameters_digest(encode_parameters(arrays)) != parameters_digest(PARAMETERS)
