"""Model parameters as safetensors bytes: float32, named, bounded, and nothing else inside.

One model has one byte form: names sorted, no metadata, little-endian, the header padded to eight
bytes. So the header that a plan's model must have is known before anything arrives, and reading is
a comparison of bytes: no parser meets what the other side wrote.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from common.canonical import digest_bytes
from common.errors import ProtocolError
from common.ids import Digest

Parameters: TypeAlias = dict[str, npt.NDArray[np.float32]]
"""Name to array, the names and shapes of `common.study.columns.parameter_shapes`."""

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_NAME: Final = re.compile(r"(?!__metadata__$)[A-Za-z0-9_.-]{1,200}")
_ITEM_BYTES: Final = 4
_NORM_CHUNK: Final = 1 << 20  # numbers squared at a time, so that the norm needs 8 MB at most


def encode_parameters(parameters: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """Return the one byte form of named float32 arrays (safetensors, names sorted).

    Raises:
        ProtocolError: an array is not float32, or a name could not travel.
    """
    for name, array in parameters.items():
        if array.dtype != np.float32:
            raise _refuse(f"{name}: float32", str(array.dtype))
    head = _head({name: array.shape for name, array in parameters.items()})
    views = (
        np.ascontiguousarray(parameters[name], dtype="<f4").reshape(-1).data.cast("B")
        for name in sorted(parameters)
        if parameters[name].size
    )
    return b"".join((head, *views))


def decode_parameters(data: bytes, *, expected: Shapes, bytes_max: int) -> Parameters:
    """Return the arrays in `data`; raises `ProtocolError` unless they are exactly those expected.

    Args:
        data: safetensors bytes from the other side.
        expected: every name with its shape.
        bytes_max: refused above it, before anything is read.
    """
    if len(data) > bytes_max:
        raise _refuse(f"at most {bytes_max} bytes", f"{len(data)} bytes")
    head = _head(expected)
    if not data.startswith(head):
        raise _explain(data, expected)
    length = len(head) + sum(_bytes_of(shape) for shape in expected.values())
    if len(data) != length:
        raise _refuse(f"{length} bytes", f"{len(data)} bytes")
    arrays: Parameters = {}
    offset = len(head)
    for name in sorted(expected):
        count = math.prod(expected[name])
        flat = np.frombuffer(data, dtype="<f4", count=count, offset=offset)
        arrays[name] = flat.reshape(expected[name]).astype(np.float32, copy=True)
        offset += count * _ITEM_BYTES
    return arrays


def parameters_digest(data: bytes) -> Digest:
    """Return the digest that names one model version: of its safetensors bytes."""
    return digest_bytes("parameters", data)


def is_finite(parameters: Mapping[str, npt.NDArray[np.float32]]) -> bool:
    """Return whether every number is finite."""
    return all(bool(np.isfinite(array).all()) for array in parameters.values())


def check_finite(parameters: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Refuse arrays with a number that is not finite; raises `ProtocolError`."""
    for name, array in parameters.items():
        if not np.isfinite(array).all():
            raise _refuse(f"{name}: finite numbers", "NaN or infinity")


def l2_norm(parameters: Mapping[str, npt.NDArray[np.float32]]) -> float:
    """Return the L2 norm over all arrays together, computed in float64."""
    total = 0.0
    for array in parameters.values():
        flat = array.reshape(-1)
        for start in range(0, flat.size, _NORM_CHUNK):
            chunk = flat[start : start + _NORM_CHUNK].astype(np.float64)
            total += float(chunk @ chunk)
    return math.sqrt(total)


def _bytes_of(shape: tuple[int, ...]) -> int:
    return math.prod(shape) * _ITEM_BYTES


def _head(shapes: Shapes) -> bytes:
    """Return everything before the numbers (safetensors format: u64 length, JSON, padding)."""
    layout: dict[str, object] = {}
    offset = 0
    for name in sorted(shapes):
        if not _NAME.fullmatch(name):
            raise _refuse("array names of letters, digits, '_', '.', '-'", "another name")
        stop = offset + _bytes_of(shapes[name])
        layout[name] = {
            "dtype": "F32",
            "shape": [int(size) for size in shapes[name]],
            "data_offsets": [offset, stop],
        }
        offset = stop
    text = json.dumps(layout, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _explain(data: bytes, expected: Shapes) -> ProtocolError:
    """Return the error that says in what way a header is not the expected one."""
    header = _parsed_header(data, length_max=2 * len(_head(expected)))
    if header is None:
        return _refuse("safetensors bytes of this plan's model", "other bytes")
    if set(header) != set(expected):
        return _refuse(
            f"the {len(expected)} arrays of the plan's model",
            f"{len(header)}, or other names",
        )
    for name, shape in expected.items():
        entry = header[name]
        found = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else None
        if found != ("F32", list(shape)):
            return _refuse(f"{name}: F32 {list(shape)}", "another type or shape")
    return _refuse("the one byte form of these arrays", "another form of the same arrays")


def _parsed_header(data: bytes, *, length_max: int) -> dict[str, object] | None:
    if len(data) < 8:
        return None
    (length,) = struct.unpack_from("<Q", data)
    if length > length_max:
        return None
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "model parameters are refused",
        expected=expected,
        arrived=arrived,
        todo="use the same plan and the same software version on both sides",
    )
