"""Fields: each with its type and bounds, and none that nobody asked for."""

from __future__ import annotations

import pytest

from common.canonical import Canonical
from common.errors import ProtocolError
from common.protocol.fields import Fields


@pytest.mark.parametrize("record", [None, 1, "x", [], [["a", 1]], True])
def test_only_an_object_has_fields(record: Canonical) -> None:
    with pytest.raises(ProtocolError):
        Fields(record, "thing")


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(ProtocolError):
        Fields({}, "thing").text("name")


def test_a_field_nobody_asked_for_is_refused_without_its_content() -> None:
    fields = Fields({"name": "x", "marked-4711": "y"}, "thing")
    fields.text("name")
    with pytest.raises(ProtocolError) as caught:
        fields.close()
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("value", [1, None, ["x"], "x" * 11])
def test_text_is_text_of_bounded_length(value: Canonical) -> None:
    with pytest.raises(ProtocolError):
        Fields({"f": value}, "thing").text("f", length_max=10)


@pytest.mark.parametrize("value", [True, "1", None, 0, 11])
def test_an_integer_is_no_boolean_and_within_bounds(value: Canonical) -> None:
    with pytest.raises(ProtocolError):
        Fields({"f": value}, "thing").integer("f", minimum=1, maximum=10)


@pytest.mark.parametrize("value", [[1], [1, 2, 3], [1, True], [1, 11], "12", None])
def test_a_list_of_integers_has_its_exact_length(value: Canonical) -> None:
    with pytest.raises(ProtocolError):
        Fields({"f": value}, "thing").integers("f", count=2, minimum=1, maximum=10)


@pytest.mark.parametrize(
    "value", [1, "1", "1.50", "+1.5", " 1.5", "1_0.5", "nan", "inf", "1e999", "-0.5", "11.0", ""]
)
def test_a_real_number_is_its_shortest_decimal_form_within_bounds(value: Canonical) -> None:
    with pytest.raises(ProtocolError):
        Fields({"f": value}, "thing").real("f", minimum=0.0, maximum=10.0)


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_a_boolean_is_a_boolean(value: Canonical) -> None:
    with pytest.raises(ProtocolError):
        Fields({"f": value}, "thing").boolean("f")


def test_fields_of_the_right_kind_are_returned() -> None:
    fields = Fields({"t": "x", "i": 3, "l": [1, 2], "r": "1.5", "b": False}, "thing")
    assert fields.text("t") == "x"
    assert fields.integer("i", minimum=1, maximum=3) == 3
    assert fields.integers("l", count=2, minimum=1, maximum=2) == (1, 2)
    assert fields.real("r", minimum=0.0, maximum=2.0) == 1.5
    assert fields.boolean("b") is False
    fields.close()
