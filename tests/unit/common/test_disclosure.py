from __future__ import annotations

import pytest

from common.errors import ReleaseRefused
from common.privacy.disclosure import count_text, round_count, size_band


@pytest.mark.parametrize("count", range(8))
def test_small_counts_are_suppressed_zero_too(count: int) -> None:
    assert round_count(count) is None
    assert count_text(count) == "under 8"


@pytest.mark.parametrize(
    ("count", "rounded"), [(8, 10), (12, 10), (13, 15), (17, 15), (18, 20), (1238, 1240)]
)
def test_other_counts_are_rounded_to_five(count: int, rounded: int) -> None:
    assert round_count(count) == rounded
    assert count_text(count) == f"{rounded:,}"


@pytest.mark.parametrize(
    ("count", "band"),
    [
        (0, "under 20"),
        (19, "under 20"),
        (20, "20 to 49"),
        (199, "100 to 199"),
        (1_000, "1,000 to 1,999"),
        (99_999, "50,000 to 99,999"),
        (100_000, "100,000 or more"),
    ],
)
def test_sizes_are_shown_as_bands(count: int, band: str) -> None:
    assert size_band(count) == band


def test_a_negative_count_is_refused_without_the_number() -> None:
    for show in (round_count, count_text, size_band):
        with pytest.raises(ReleaseRefused) as caught:
            show(-3)
        assert "3" not in str(caught.value)
