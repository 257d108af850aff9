from __future__ import annotations

import pytest

from common.study.code_digits import is_mistyped

RIGHT = [
    "LOINC/8480-6",
    "LOINC/2093-3",
    "LOINC/30525-0",
    "SNOMED/22298006",
    "SNOMED/73211009",
    "SNOMED/900000000000207008",
]


@pytest.mark.parametrize("code", RIGHT)
def test_published_codes_are_right(code: str) -> None:
    assert not is_mistyped(code)


@pytest.mark.parametrize("code", RIGHT)
def test_one_wrong_digit_is_always_noticed(code: str) -> None:
    system, _, local = code.partition("/")
    for place, digit in enumerate(local):
        for other in "0123456789":
            if digit.isdigit() and other != digit:
                assert is_mistyped(f"{system}/{local[:place]}{other}{local[place + 1 :]}")


@pytest.mark.parametrize(
    "code", ["LOINC/8480", "LOINC/8480-", "LOINC/84x0-6", "LOINC/8480-66", "SNOMED/12", "SNOMED/x"]
)
def test_what_is_no_code_of_the_system_is_mistyped(code: str) -> None:
    assert is_mistyped(code)


def test_systems_without_check_digits_are_let_through() -> None:
    assert not is_mistyped("ICD10CM/I63.9")
    assert not is_mistyped("LOCAL/anything at all")
