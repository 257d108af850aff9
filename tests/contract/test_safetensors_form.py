"""Our byte form of parameters is the form of the safetensors library."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy

from common.errors import ProtocolError
from common.protocol.arrays import decode_parameters, encode_parameters

BYTES_MAX = 1 << 20
_RNG = np.random.default_rng(20261121)


def _normal(*shape: int) -> npt.NDArray[np.float32]:
    return _RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"linear.weight": _normal(1, 7), "linear.bias": _normal(1)},
        {f"layers.{i}.weight": _normal(3, i + 1) for i in range(12)},
        {"scalar": np.array(3, dtype=np.float32), "empty": _normal(0, 5), "Z": _normal(1)},
        {"special": np.array([np.nan, np.inf, -0.0, 1e-45], dtype=np.float32)},
    ],
)
def test_we_write_what_the_library_writes_and_read_what_it_wrote(
    arrays: dict[str, npt.NDArray[np.float32]],
) -> None:
    theirs = safetensors.numpy.save(arrays)
    assert encode_parameters(arrays) == theirs
    shapes = {name: array.shape for name, array in arrays.items()}
    ours = decode_parameters(theirs, expected=shapes, bytes_max=BYTES_MAX)
    loaded = safetensors.numpy.load(encode_parameters(arrays))
    for name, array in arrays.items():
        assert ours[name].tobytes() == loaded[name].tobytes() == array.tobytes()


def test_a_file_with_metadata_is_not_our_form() -> None:
    data = safetensors.numpy.save({"a": np.zeros(1, dtype=np.float32)}, metadata={"note": "x"})
    with pytest.raises(ProtocolError):
        decode_parameters(data, expected={"a": (1,)}, bytes_max=BYTES_MAX)
