"""Frames: exactly as many as expected, and nothing after them."""

from __future__ import annotations

import pytest

from common.errors import ProtocolError
from common.protocol.frames import join_frames, split_frames


def test_frames_survive() -> None:
    data = join_frames([b"", b"abc", b"\0"])
    assert [bytes(frame) for frame in split_frames(data, count=3)] == [b"", b"abc", b"\0"]


def test_the_magic_stands_first() -> None:
    assert join_frames([b"a"], magic=b"XYZ1") == b"XYZ1" + join_frames([b"a"])


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_another_number_of_frames_is_refused(count: int) -> None:
    with pytest.raises(ProtocolError):
        split_frames(join_frames([b"a", b"b", b"c"]), count=count)


@pytest.mark.parametrize("length", range(19))
def test_frames_cut_short_are_refused(length: int) -> None:
    data = join_frames([b"abc"]) + join_frames([b""])
    assert len(data) == 19
    with pytest.raises(ProtocolError):
        split_frames(data[:length], count=2)


def test_a_length_beyond_the_data_is_refused_without_memory_for_it() -> None:
    with pytest.raises(ProtocolError):
        split_frames(b"\xff" * 8 + b"x", count=1)


def test_a_byte_after_the_last_frame_is_refused() -> None:
    with pytest.raises(ProtocolError):
        split_frames(join_frames([b"a"]) + b"\0", count=1)
