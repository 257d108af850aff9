"""The bodies of a count have one byte form, and anything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import limits
from common.errors import CohortiumError, ProtocolError
from common.protocol.counts import (
    COUNT_MAX,
    decode_candidates,
    decode_counts,
    encode_candidates,
    encode_counts,
)

places = st.sets(st.integers(0, limits.FEATURES_MAX - 1), max_size=limits.JOINT_CANDIDATES_MAX)


@given(places)
def test_candidates_that_are_written_are_read(chosen: set[int]) -> None:
    candidates = tuple(sorted(chosen))
    assert decode_candidates(encode_candidates(candidates)) == candidates


@given(st.lists(st.integers(-COUNT_MAX, COUNT_MAX), max_size=50))
def test_counts_that_are_written_are_read(counts: list[int]) -> None:
    assert decode_counts(encode_counts(counts), cells=len(counts)).tolist() == counts


@given(st.binary(max_size=100))
def test_any_bytes_are_candidates_or_our_error(body: bytes) -> None:
    try:
        candidates = decode_candidates(body)
    except CohortiumError:
        return
    assert encode_candidates(candidates) == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"candidates":[2,1],"version":1}',
        b'{"candidates":[1,1],"version":1}',
        b'{"candidates":[-1],"version":1}',
        b'{"candidates":[10000],"version":1}',
        b'{"candidates":[true],"version":1}',
        b'{"candidates":["1"],"version":1}',
        b'{"candidates":null,"version":1}',
        b'{"candidates":[],"version":2}',
        b'{"candidates":[],"more":1,"version":1}',
        b'{"candidates": [], "version": 1}',
        b'{"candidates":[' + b",".join(b"%d" % place for place in range(101)) + b'],"version":1}',
        b"",
    ],
)
def test_other_candidates_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_candidates(body)


def test_counts_of_another_length_or_beyond_32_bits_are_refused() -> None:
    for body in (b"", b"\0" * 7, b"\0" * 12):
        with pytest.raises(ProtocolError):
            decode_counts(body, cells=2)
    with pytest.raises(ProtocolError):
        encode_counts([COUNT_MAX + 1])
