"""`site.toml`: every problem at once, unknown keys refused, no default that a plan could pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from site_client.config import SitePaths, read_site_config

GOOD = """
[site]
id = "north"
declared_cohort_size = 300

[limits]
epsilon_per_study = 4.0
epsilon_total = 8.0
delta_total = 1e-3
cohort_size_min = 50

[source]
kind = "table"
path = "patients.csv"
subject_id = "patient_id"

[source.features.age]
column = "age"
unit = "a"

[source.label]
column = "outcome"
positive = ["1"]
negative = ["0"]
"""


def _read(folder: Path, text: str) -> object:
    (folder / "site.toml").write_text(text, encoding="utf-8")
    return read_site_config(SitePaths(folder))


def _refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _read(folder, text)
    return caught.value.arrived


def test_a_complete_file_is_read(tmp_path: Path) -> None:
    config = _read(tmp_path, GOOD)
    assert config.limits.epsilon_total == 8.0  # type: ignore[attr-defined]
    assert config.limits.threads == 1  # type: ignore[attr-defined]


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no site here") as caught:
        read_site_config(SitePaths(tmp_path))
    assert "cohortium-site enroll" in caught.value.todo


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    wrong = GOOD.replace('"north"', '"North!"').replace("epsilon_total = 8.0", "epsilon_total = 0")
    arrived = _refused(tmp_path, wrong)
    assert "site.id" in arrived
    assert "limits.epsilon_total" in arrived


@pytest.mark.parametrize(
    ("find", "put", "where"),
    [
        ("epsilon_per_study = 4.0\n", "", "limits.epsilon_per_study"),
        ("delta_total = 1e-3\n", "", "limits.delta_total"),
        ("cohort_size_min = 50", "cohort_size_min = 1", "limits.cohort_size_min"),
        ("epsilon_per_study = 4.0", "epsilon_per_study = inf", "limits.epsilon_per_study"),
        ("epsilon_per_study = 4.0", "epsilon_per_study = nan", "limits.epsilon_per_study"),
        ("epsilon_per_study = 4.0", "epsilon_per_study = -1.0", "limits.epsilon_per_study"),
        ("delta_total = 1e-3", "delta_total = 0.5", "limits.delta_total"),
        ("cohort_size_min = 50", 'cohort_size_min = "50"', "limits.cohort_size_min"),
        ("[limits]", '[limits]\ncomposition = "natural"', "limits.composition"),
        ("[limits]", "[limits]\nepsilon_perstudy = 1.0", "limits.epsilon_perstudy"),
        ('kind = "table"', 'kind = "oracle"', "source.kind"),
        ('positive = ["1"]', "positive = []", "source.label.positive"),
        ("declared_cohort_size = 300", "declared_cohort_size = 0", "site.declared_cohort_size"),
    ],
)
def test_a_missing_misspelt_or_senseless_key_is_named(
    tmp_path: Path, find: str, put: str, where: str
) -> None:
    assert find in GOOD
    assert where in _refused(tmp_path, GOOD.replace(find, put))


@pytest.mark.parametrize("text", ["[site", "", "\x00", "site = 1"])
def test_a_file_that_is_no_configuration_is_one_clear_error(tmp_path: Path, text: str) -> None:
    assert _refused(tmp_path, text)


def test_a_file_in_another_encoding_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_bytes(b'[site]\nid = "\xff"')
    with pytest.raises(ConfigError, match=r"site\.toml is refused"):
        read_site_config(SitePaths(tmp_path))
