"""Model parameters as safetensors bytes: float32, named, bounded, and nothing else inside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from common.canonical import digest_bytes
from common.errors import ProtocolError
from common.ids import Digest

Parameters = dict[str, npt.NDArray[np.float32]]
"""Name to array, the names and shapes of `common.study.columns.parameter_shapes`."""

Shapes = Mapping[str, tuple[int, ...]]


def encode_parameters(parameters: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """Return the one byte form of named float32 arrays (safetensors, names sorted)."""
    return safetensors.numpy.save(
        {
            name: np.ascontiguousarray(parameters[name], dtype=np.float32)
            for name in sorted(parameters)
        }
    )


def decode_parameters(data: bytes, *, expected: Shapes, bytes_max: int) -> Parameters:
    """Return the arrays in `data`; raises `ProtocolError` unless they are exactly those expected.

    Args:
        data: safetensors bytes from the other side.
        expected: every name with its shape.
        bytes_max: refused above it, before anything is parsed.
    """
    if len(data) > bytes_max:
        raise _refuse(f"at most {bytes_max} bytes", f"{len(data)} bytes")
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        raise _refuse("safetensors bytes of float32 arrays", "something else") from None
    if set(arrays) != set(expected):
        raise _refuse(f"the {len(expected)} arrays of the plan's model", "other names")
    for name, shape in expected.items():
        if arrays[name].dtype != np.float32 or arrays[name].shape != tuple(shape):
            raise _refuse(
                f"{name}: float32 {list(shape)}",
                f"{arrays[name].dtype} {list(arrays[name].shape)}",
            )
    # Metadata, padding or another order would give two byte forms to one model.
    if encode_parameters(arrays) != data:
        raise _refuse("the one byte form of these arrays", "another form of the same arrays")
    return arrays


def parameters_digest(data: bytes) -> Digest:
    """Return the digest that names one model version: of its safetensors bytes."""
    return digest_bytes("parameters", data)


def is_finite(parameters: Mapping[str, npt.NDArray[np.float32]]) -> bool:
    """Return whether every number is finite."""
    return all(bool(np.isfinite(array).all()) for array in parameters.values())


def l2_norm(parameters: Mapping[str, npt.NDArray[np.float32]]) -> float:
    """Return the L2 norm over all arrays together, computed in float64."""
    return float(
        np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in parameters.values()))
    )


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "model parameters are refused",
        expected=expected,
        arrived=arrived,
        todo="use the same plan and the same software version on both sides",
    )
