"""Populations as sites of a simulation and as a command: hospitals, files, refusals."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from common.errors import ConfigError, StoreError
from common.study.plan_file import read_plan
from simulations import cli
from simulations.patient_source import PatientSource
from simulations.populations import (
    CaseMix,
    Coding,
    Disparity,
    Drift,
    Form,
    Hospital,
    Missing,
    Population,
    generate,
    read_hospitals,
)
from simulations.populations.site_files import read_source
from simulations.populations.variables import INTERCEPT, WEIGHTS
from site_client.config import SitePaths, read_site_config
from tests.lib.generated import PLAN, columns_of

EXAMPLE = Path(__file__).parents[3] / "docs/examples/populations/generated-hospitals.toml"
TWO = (Hospital(site_id="one", patients=80), Hospital(site_id="two", patients=120))


def test_a_population_is_the_sites_of_a_simulation_and_survives_pickling() -> None:
    population = Population(TWO, seed=3)
    plan = read_plan(PLAN)
    assert [site.site_id for site in population] == ["one", "two"]
    assert [site.declared_cohort_size for site in population[:2]] == [80, 120]
    site = population[1]
    again = pickle.loads(pickle.dumps(site))
    assert again.fingerprint(plan) == site.fingerprint(plan)
    assert site.matrix(plan).x.shape[0] == 120
    assert population[0].fingerprint(plan) != Population(TWO, seed=4)[0].fingerprint(plan)


def test_a_virtual_site_has_the_rows_that_its_written_folder_gives(tmp_path: Path) -> None:
    population = Population(TWO, seed=3)
    plan = read_plan(PLAN)
    population.write(tmp_path / "out", Form.CSV)
    folder = tmp_path / "out/two"
    read = PatientSource(read_source(folder), folder=folder).rows(plan)
    held = population.patients("two").rows(plan)
    assert columns_of(read).equals(columns_of(held))
    with pytest.raises(ConfigError, match="there is no hospital 'three'"):
        population.patients("three")


def test_drawn_hospitals_differ_and_have_the_mean_size_that_was_asked_for() -> None:
    population = generate(60, seed=2, patients=500)
    sizes = [hospital.patients for hospital in population.hospitals]
    assert np.mean(sizes) == pytest.approx(500, rel=0.25)
    assert max(sizes) > 4 * min(sizes)
    assert len({hospital.coding.diagnoses for hospital in population.hospitals}) == 4
    assert generate(60, seed=2, patients=500).hospitals == population.hospitals
    assert generate(60, seed=3, patients=500).hospitals != population.hospitals
    with pytest.raises(ConfigError, match="number of hospitals"):
        generate(0)


def test_two_hospitals_of_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match="the hospitals are refused"):
        Population((TWO[0], TWO[0]), seed=1)


def test_the_example_file_has_every_dial_away_from_rest() -> None:
    hospitals = read_hospitals(EXAMPLE)
    assert [hospital.site_id for hospital in hospitals] == [
        "plain",
        "molar",
        "own-codes",
        "changing",
    ]
    rest = Hospital(site_id="rest")
    for name in Hospital.model_fields:
        if name not in ("begins", "ends"):
            assert any(getattr(item, name) != getattr(rest, name) for item in hospitals), name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[hospitals]]\nsite_id = "a"\npatience = 3\n', "patience"),
        ('[[hospitals]]\nsite_id = "a"\nunits = { sodium = "g" }\n', "units.sodium"),
        ('[[hospitals]]\nsite_id = "a"\n[hospitals.case_mix]\nmale_fraction = 2\n', "case_mix"),
        ("", "hospitals: Field required"),
        ("[[", "Invalid"),
    ],
)
def test_a_file_of_hospitals_is_refused_with_the_place(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "hospitals.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_hospitals(tmp_path / "hospitals.toml")
    assert words in str(caught.value.arrived)


def test_the_command_writes_sites_and_keeps_the_truth_apart(tmp_path: Path) -> None:
    out = tmp_path / "population"
    words = ["generate", "--hospitals", "2", "--patients", "60", "--seed", "5"]
    answer = CliRunner().invoke(cli.app, [*words, "--as", "omop", "--out", str(out), "--json"])
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)["hospitals"]
    assert [item["site_id"] for item in said] == ["hospital-1", "hospital-2"]
    assert sorted(item.name for item in out.iterdir()) == ["hospital-1", "hospital-2", "truth"]
    assert sorted(item.name for item in (out / "truth").iterdir()) == [
        "hospital-1.parquet",
        "hospital-2.parquet",
        "model.json",
    ]
    model = json.loads((out / "truth/model.json").read_text())
    assert model["seed"] == 5
    assert model["hospitals"][1]["patients"] == said[1]["patients"]
    config = read_site_config(SitePaths(out / "hospital-1"))
    assert config.source == read_source(out / "hospital-1")
    again = CliRunner().invoke(cli.app, [*words, "--as", "omop", "--out", str(out)])
    assert isinstance(again.exception, StoreError)
    assert "not written over something else" in again.exception.refused


def test_an_unknown_form_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    answer = CliRunner().invoke(cli.app, ["generate", "--as", "hl7v2", "--out", str(tmp_path)])
    assert isinstance(answer.exception, ConfigError)
    assert "omop, fhir, meds, csv" in str(answer.exception.expected)


def test_the_page_names_every_dial_and_states_every_weight() -> None:
    page = (EXAMPLE.parents[2] / "synthetic-populations.md").read_text()
    table = page.partition("## The dials")[2].partition("## The truth")[0]
    for model in (Hospital, CaseMix, Coding, Missing, Drift, Disparity):
        for name in model.model_fields:
            if name not in ("case_mix", "coding", "missing", "drift", "disparities"):
                assert re.search(rf"[`.]{name}`", table), (model.__name__, name)
    for name, weight in WEIGHTS.items():
        assert f"| `{name}` | {weight} |" in page, name
    assert f"log-odds are \N{MINUS SIGN}{-INTERCEPT} plus" in page
