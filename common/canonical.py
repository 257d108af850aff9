"""The one byte form of a record that is hashed or signed: RFC 8785 without floats.

Integers, booleans, null, strings, lists and objects with ASCII keys. A real number travels as
the decimal string of `canonical_float`, so that two implementations cannot disagree on its bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias

from common.errors import ProtocolError
from common.ids import Digest

Canonical: TypeAlias = "bool | int | str | Sequence[Canonical] | Mapping[str, Canonical] | None"

_INTEGER_MAX = 2**53 - 1  # RFC 7493 (I-JSON) section 2.2: larger integers do not interoperate.
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical_float(value: float) -> str:
    """Return the shortest decimal string that reads back as exactly `value` (finite)."""
    if not math.isfinite(value):
        raise _refuse("a number that is not finite")
    return repr(float(value))


def canonical_bytes(record: Canonical) -> bytes:
    """Return the canonical bytes of a record; raises `ProtocolError` for what has none."""
    _check_canonical(record)
    return _ENCODER.encode(record).encode()


def parse_canonical(data: bytes) -> Canonical:
    """Parse canonical bytes; raises `ProtocolError` unless they are exactly the canonical form."""
    try:
        record: Canonical = _DECODER.decode(data.decode())
        is_same = canonical_bytes(record) == data
    except (ValueError, UnicodeError, RecursionError):
        raise _refuse("bytes that are not JSON") from None
    if not is_same:
        raise _refuse("JSON in another form")
    return record


def digest_bytes(label: str, *parts: bytes) -> Digest:
    """Return the SHA-256 of length-framed parts under a label that names their one use."""
    hasher = hashlib.sha256(b"cohortium/1/" + label.encode("ascii") + b"\0")
    for part in parts:
        hasher.update(struct.pack(">Q", len(part)))
        hasher.update(part)
    return Digest(hasher.hexdigest())


def digest_record(label: str, record: Canonical) -> Digest:
    """Return the digest of a record's canonical bytes under a label."""
    return digest_bytes(label, canonical_bytes(record))


def _refuse(arrived: str) -> ProtocolError:
    return ProtocolError(
        "a record has no canonical form",
        expected="null, booleans, integers below 2^53, strings, lists, objects with ASCII keys",
        arrived=arrived,
        todo="write real numbers with canonical_float; send the record as it was signed",
    )


def _check_canonical(record: Canonical) -> None:
    # Most values are texts: they are not asked one by one by a call of their own.
    if record is None or isinstance(record, str | bool):
        return
    if isinstance(record, int):
        if abs(record) > _INTEGER_MAX:
            raise _refuse("an integer of 2^53 or more")
        return
    if isinstance(record, dict | Mapping):
        for key, value in record.items():
            if not isinstance(key, str) or not key.isascii():
                raise _refuse("an object key that is not ASCII text")
            if not isinstance(value, str):
                _check_canonical(value)
        return
    if isinstance(record, list | tuple):
        for value in record:
            if not isinstance(value, str):
                _check_canonical(value)
        return
    raise _refuse(f"a value of type {type(record).__name__}")


def without_duplicates(pairs: list[tuple[str, Canonical]]) -> dict[str, Canonical]:
    """Return a JSON object's pairs as a dict, for `object_pairs_hook`; raises `ProtocolError`."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise _refuse("an object with a repeated key")
    return record


def _no_float(_: str) -> NoReturn:
    raise _refuse("a JSON number with a fraction or exponent")


_DECODER = json.JSONDecoder(
    object_pairs_hook=without_duplicates, parse_float=_no_float, parse_constant=_no_float
)
