"""Byte frames: a length in eight bytes, then the content; nothing may follow the last."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from common.errors import ProtocolError


def join_frames(frames: Sequence[bytes], *, magic: bytes = b"") -> bytes:
    """Return `magic`, then the frames, each after its length (big-endian, 8 bytes)."""
    framed = (part for frame in frames for part in (struct.pack(">Q", len(frame)), frame))
    return b"".join((magic, *framed))


def split_frames(data: bytes | memoryview, *, count: int) -> list[memoryview]:
    """Return exactly `count` frames without copying; raises `ProtocolError` for anything else."""
    view = memoryview(data)
    frames: list[memoryview] = []
    offset = 0
    for _ in range(count):
        if offset + 8 > len(view):
            raise _refuse(count)
        (length,) = struct.unpack_from(">Q", view, offset)
        offset += 8
        if length > len(view) - offset:
            raise _refuse(count)
        frames.append(view[offset : offset + length])
        offset += length
    if offset != len(view):
        raise _refuse(count)
    return frames


def _refuse(count: int) -> ProtocolError:
    return ProtocolError(
        "framed bytes are refused",
        expected=f"exactly {count} frame(s)",
        arrived="bytes cut short or with something after the end",
        todo="send the message again",
    )
