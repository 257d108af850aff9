"""Overlapping studies: each patient is charged with exactly the records that cover the patient."""

from __future__ import annotations

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from common.privacy.accountant import epsilon_by_part, epsilon_of, epsilon_of_counted
from common.privacy.mechanism import (
    PATIENT_HASH_PARTS,
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)

DELTA = 1e-5
ends = st.sampled_from([0, 1, 100_000, 250_000, 499_999, 500_000, 750_000, 999_999, 1_000_000])
parts = st.lists(ends, min_size=2, max_size=2, unique=True).map(
    lambda pair: PatientPart(min(pair), max(pair))
)
records = st.one_of(
    st.builds(DpSgdSteps, st.sampled_from([3.0, 9.0]), st.just(0.5), st.just(4), parts),
    st.builds(GaussianVector, st.sampled_from([4.0, 11.0]), parts),
    st.builds(DiscreteGaussianCounts, st.sampled_from([5.0]), st.sampled_from([1, 3]), parts),
)


def slow_epsilon(listed: list[MechanismRecord]) -> float:
    """The greatest epsilon over every hash value at which anything begins or ends."""
    points = {0, PATIENT_HASH_PARTS - 1}
    for record in listed:
        for end in (record.part.first, record.part.stop):
            points |= {max(end - 1, 0), min(end, PATIENT_HASH_PARTS - 1)}
    return max(
        epsilon_of(
            [
                _on_everybody(record)
                for record in listed
                if record.part.first <= point < record.part.stop
            ],
            delta=DELTA,
        )
        for point in points
    )


def _on_everybody(record: MechanismRecord) -> MechanismRecord:
    return type(record)(**{**vars(record), "part": PatientPart()})


@settings(deadline=None, max_examples=60)
@given(st.lists(records, max_size=7))
def test_the_total_is_the_greatest_epsilon_of_any_hash_point(
    listed: list[MechanismRecord],
) -> None:
    assert epsilon_of(listed, delta=DELTA) == slow_epsilon(listed)


@settings(deadline=None, max_examples=40)
@given(st.lists(records, max_size=7), st.randoms(use_true_random=False))
def test_neither_the_order_of_studies_nor_their_grouping_matters(
    listed: list[MechanismRecord], source: object
) -> None:
    shuffled = list(listed)
    source.shuffle(shuffled)  # type: ignore[attr-defined]
    assert epsilon_of(shuffled, delta=DELTA) == epsilon_of(listed, delta=DELTA)
    assert epsilon_of_counted(Counter(listed), delta=DELTA) == epsilon_of(listed, delta=DELTA)


@settings(deadline=None, max_examples=40)
@given(st.lists(records, max_size=6), records)
def test_one_more_release_never_lowers_anybodys_epsilon(
    listed: list[MechanismRecord], more: MechanismRecord
) -> None:
    before = epsilon_by_part(Counter(listed), delta=DELTA)
    after = epsilon_by_part(Counter([*listed, more]), delta=DELTA)
    for part, epsilon in after.items():
        known = [e for p, e in before.items() if p.first <= part.first and part.stop <= p.stop]
        assert epsilon >= max(known, default=0.0) - 1e-9


@settings(deadline=None, max_examples=40)
@given(st.lists(records, min_size=1, max_size=7))
def test_the_stated_parts_are_disjoint_and_cover_exactly_who_was_touched(
    listed: list[MechanismRecord],
) -> None:
    stated = sorted(epsilon_by_part(Counter(listed), delta=DELTA), key=lambda part: part.first)
    for left, right in itertools.pairwise(stated):
        assert left.stop <= right.first
    for point in (0, 1, 99_999, 100_000, 250_000, 499_999, 500_000, 749_999, 999_998, 999_999):
        is_touched = any(r.part.first <= point < r.part.stop for r in listed)
        assert is_touched == any(p.first <= point < p.stop for p in stated)
