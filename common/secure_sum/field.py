"""The integers modulo 2^61 - 1, in which shares and check tags are added.

A prime field and not the ring modulo 2^32: a sum of 10,000 sites' 32-bit counts never wraps, and a
tag, which needs a field, is one more cell. Four more bytes a cell are the price.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.errors import ProtocolError

MODULUS: Final = 2**61 - 1
ELEMENT_BYTES: Final = 8

Elements = npt.NDArray[np.uint64]
"""Integers in [0, MODULUS)."""

_ELEMENT: Final = np.dtype("<u8")
_MODULUS: Final = np.uint64(MODULUS)


def to_field(values: npt.NDArray[np.int64]) -> Elements:
    """Return integers of any sign modulo 2^61 - 1."""
    return (values % MODULUS).astype(np.uint64)


def from_field(elements: Elements) -> npt.NDArray[np.int64]:
    """Return the integer nearest to zero of each residue class."""
    signed = elements.astype(np.int64)
    return np.where(signed > MODULUS // 2, signed - MODULUS, signed)


def add(first: Elements, second: Elements) -> Elements:
    """Return the sums; two elements have less than 2^62, so nothing overflows."""
    return (first + second) % _MODULUS


def subtract(first: Elements, second: Elements) -> Elements:
    """Return the differences."""
    return (first + (_MODULUS - second)) % _MODULUS


def encode_elements(elements: Elements) -> bytes:
    """Return eight bytes for each element, little-endian."""
    return elements.astype(_ELEMENT).tobytes()


def decode_elements(data: bytes, *, count: int) -> Elements:
    """Return `count` elements; raises `ProtocolError` for another length or a larger number."""
    if len(data) != ELEMENT_BYTES * count:
        raise _refuse(f"{ELEMENT_BYTES * count} bytes", f"{len(data)} bytes")
    elements = np.frombuffer(data, dtype=_ELEMENT).astype(np.uint64)
    if bool((elements >= _MODULUS).any()):
        raise _refuse("numbers below 2^61 - 1", "a larger one")
    return elements


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "a share of a secure sum is refused",
        expected=expected,
        arrived=arrived,
        todo="use the same software version at sites, aggregators and board",
    )
