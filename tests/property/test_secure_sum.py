"""A secure sum: the shares of all sites add to the sum of their vectors, one alone is noise."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from common.errors import InternalError, ProtocolError
from common.secure_sum import field
from common.secure_sum.check_tag import SumKey
from common.secure_sum.field import MODULUS
from common.secure_sum.shares import CELL_MAX, SEED_BYTES, add_shares, expand, join, split
from common.secure_sum.stream import elements_of

CONTEXT = b"study, site, period and kind"
KEY = SumKey.derive(bytes(range(32)), context=CONTEXT)

vectors = arrays.arrays(
    np.int64,
    st.tuples(st.integers(1, 6), st.integers(0, 40)),
    elements=st.integers(-CELL_MAX, CELL_MAX) | st.sampled_from([0, 1, -1, CELL_MAX, -CELL_MAX]),
)


def sums_of(vectors: np.ndarray) -> tuple[field.Elements, field.Elements]:
    shares = [split(vector, key=KEY, context=CONTEXT) for vector in vectors]
    first = add_shares(
        [expand(share.seed, context=CONTEXT, cells=vectors.shape[1]) for share in shares]
    )
    return first, add_shares([share.masked for share in shares])


@given(vectors)
def test_the_joined_sums_of_shares_are_exactly_the_sum_of_the_vectors(vectors: np.ndarray) -> None:
    first, second = sums_of(vectors)
    assert np.array_equal(join(first, second, key=KEY), vectors.sum(axis=0))


def test_ten_thousand_of_the_largest_counts_do_not_wrap_around() -> None:
    largest = field.to_field(np.array([CELL_MAX, -CELL_MAX], dtype=np.int64))
    total = add_shares([largest] * 10_000)
    assert field.from_field(total).tolist() == [10_000 * CELL_MAX, -10_000 * CELL_MAX]


@given(st.lists(st.integers(-(2**62), 2**62), max_size=20), st.data())
def test_field_arithmetic_is_that_of_python_integers(
    numbers: list[int], data: st.DataObject
) -> None:
    others = data.draw(
        st.lists(st.integers(-(2**62), 2**62), min_size=len(numbers), max_size=len(numbers))
    )
    first, second = (field.to_field(np.array(n, dtype=np.int64)) for n in (numbers, others))
    assert field.add(first, second).tolist() == [
        (a + b) % MODULUS for a, b in zip(numbers, others, strict=True)
    ]
    assert field.subtract(first, second).tolist() == [
        (a - b) % MODULUS for a, b in zip(numbers, others, strict=True)
    ]


@given(vectors, st.data())
@settings(max_examples=50)
def test_any_change_of_a_sum_is_found_by_its_tag(vectors: np.ndarray, data: st.DataObject) -> None:
    first, second = sums_of(vectors)
    place = data.draw(st.integers(0, len(second) - 1))
    changed = second.copy()
    changed[place] = (int(changed[place]) + data.draw(st.integers(1, MODULUS - 1))) % MODULUS
    with pytest.raises(ProtocolError) as raised:
        join(first, changed, key=KEY)
    assert raised.value.number == "V22"


def test_a_share_that_one_aggregator_left_out_is_found_by_the_tag() -> None:
    vectors = np.arange(60, dtype=np.int64).reshape(6, 10)
    shares = [split(vector, key=KEY, context=CONTEXT) for vector in vectors]
    first = add_shares([expand(share.seed, context=CONTEXT, cells=10) for share in shares])
    with pytest.raises(ProtocolError):
        join(first, add_shares([share.masked for share in shares[1:]]), key=KEY)


def test_another_key_or_another_sum_of_the_same_key_does_not_fit() -> None:
    first, second = sums_of(np.ones((3, 4), dtype=np.int64))
    for other in (
        SumKey.derive(bytes(range(32)), context=b"the next period"),
        SumKey.derive(bytes(32), context=CONTEXT),
    ):
        with pytest.raises(ProtocolError):
            join(first, second, key=other)


def test_each_share_alone_is_uniform_whatever_the_counts_are() -> None:
    """Argument: G(s) is AES-256 in counter mode under a fresh key, so B's x - G(s) is as uniform
    for one x as for another; A's seed does not depend on x. The test looks for what the argument
    would miss in the code: bits that are constant, or depend on the counts."""
    for fill in (0, 1, CELL_MAX):
        vector = np.full(400, fill, dtype=np.int64)
        drawn = np.concatenate([split(vector, key=KEY, context=CONTEXT).masked for _ in range(50)])
        assert stats.kstest(drawn / MODULUS, "uniform").pvalue > 1e-6
        for bit in range(61):
            ones = int((drawn >> np.uint64(bit) & np.uint64(1)).sum())
            assert stats.binomtest(ones, len(drawn)).pvalue > 1e-8, bit


def test_the_same_vector_split_twice_has_two_unrelated_seeds() -> None:
    vector = np.zeros(5, dtype=np.int64)
    one, two = (split(vector, key=KEY, context=CONTEXT) for _ in range(2))
    assert one.seed != two.seed
    assert not np.array_equal(one.masked, two.masked)


def test_one_seed_in_two_contexts_or_uses_gives_unrelated_streams() -> None:
    seed = os.urandom(SEED_BYTES)
    streams = {
        tuple(elements_of(seed, label=label, context=context, count=4).tolist())
        for label in ("share", "tag")
        for context in (b"a", b"b")
    }
    assert len(streams) == 4


def test_the_streams_first_elements_are_these() -> None:
    """Frozen: aggregator A must expand a seed as the site did, in every version."""
    assert elements_of(bytes(32), label="share", context=b"x", count=3).tolist() == [
        1028700051520000269,
        782505400572229557,
        1849682210589240383,
    ]


def test_counts_that_no_cohort_can_make_and_seeds_of_another_length_are_refused() -> None:
    with pytest.raises(ProtocolError):
        split(np.array([CELL_MAX + 1]), key=KEY, context=CONTEXT)
    with pytest.raises(InternalError):
        expand(b"short", context=CONTEXT, cells=1)
    with pytest.raises(ProtocolError):
        add_shares([])
    with pytest.raises(ProtocolError):
        field.decode_elements(b"\xff" * 8, count=1)
    with pytest.raises(ProtocolError):
        field.decode_elements(b"", count=1)


def test_no_secret_is_in_a_representation() -> None:
    assert KEY.raw.hex() not in repr(KEY)
    shares = split(np.zeros(2, dtype=np.int64), key=KEY, context=CONTEXT)
    assert shares.seed.hex() not in repr(shares)
