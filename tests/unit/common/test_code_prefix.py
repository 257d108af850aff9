"""Codes that end in a star: what they stand for, and when two codes can be one event's."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.study.code_prefix import CodeSet, is_misused_star, is_prefix, without_dots


@pytest.mark.parametrize(
    "code", ["ICD10CM/I50*", "ICD10/C0*", "ICD10GM/E11.2*", "ICD9CM/428*", "ICD9CM/V4*", "ATC/J01*"]
)
def test_a_star_after_the_beginning_of_a_classifications_code_is_a_prefix(code: str) -> None:
    assert is_prefix(code)
    assert not is_misused_star(code)


@pytest.mark.parametrize(
    "code",
    [
        *("ICD10CM/I*", "ICD10CM/*", "ICD10CM/I5*0", "ICD10CM/50*", "ICD10CM/I50**"),
        *("ATC/J0*", "ATC/J*", "ICD9CM/4*", "ICD10CM/i50*"),
        *("SNOMED/84114*", "LOINC/2160*", "RxNorm/8*", "LAB/creat*"),
    ],
)
def test_any_other_star_is_refused(code: str) -> None:
    assert is_misused_star(code)
    assert not is_prefix(code)


def test_a_star_inside_a_local_code_is_part_of_its_name() -> None:
    assert not is_misused_star("HLA/A*02:01")


_LOCAL = st.text("I5.0", min_size=1, max_size=4).map(lambda tail: "I5" + tail)
_CODE = st.builds(
    lambda system, local, star: f"{system}/{local}{star}",
    st.sampled_from(["ICD10", "ICD10CM"]),
    _LOCAL,
    st.sampled_from(["", "*"]),
)


def _all_events(code: str) -> set[str]:
    """Every event code of a small world that a plan's code stands for."""
    world = {
        f"{system}/I5" + "".join(tail)
        for system in ("ICD10", "ICD10CM")
        for length in range(6)
        for tail in itertools.product("I50", repeat=length)
    }
    plain = without_dots(code)
    if is_prefix(code):
        return {event for event in world if event.startswith(plain)}
    return {event for event in world if event == plain}


@given(st.lists(_CODE, max_size=4), _CODE)
def test_codes_meet_when_one_event_could_have_both(codes: list[str], code: str) -> None:
    expected = any(_all_events(code) & _all_events(other) for other in codes)
    assert CodeSet(codes).meets(code) == expected


def test_outside_the_classifications_only_equal_codes_meet() -> None:
    codes = CodeSet(["SNOMED/84114007", "HLA/A.1"])
    assert codes.meets("SNOMED/84114007")
    assert not codes.meets("HLA/A1")
