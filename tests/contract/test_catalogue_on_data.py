"""The feature catalogue against public vocabularies, a second reader of UCUM, and real tables."""

from __future__ import annotations

import zipfile
from pathlib import Path

import duckdb
import pytest

from common.study.catalogue.entries import Entry, read_catalogue
from common.study.plan import NumericFeature
from common.units.conversions import conversion, plan_unit
from common.units.molar_masses import ANALYTES, HEMOGLOBIN_A1C
from site_client.features.event_patients import read_event_patients
from site_client.sources.omop import OmopFolder
from tests.lib.data_sets import data_set
from tests.lib.event_plans import plan_for_events

CATALOGUE = read_catalogue()
MEASURED = [entry for entry in CATALOGUE.entries.values() if entry.kind == "measurement"]
DOMAINS = {
    "measurement": {"Measurement", "Observation"},
    "category": {"Observation"},
    "condition": {"Condition", "Observation"},
    "drug": {"Drug"},
}
# What laboratories record, by the unit that the catalogue asks for. With an analyte, amounts too.
RECORDED = {
    "mg/dL": ["mg/dl", "MG/DL", "g/L", "ug/mL"],
    "g/dL": ["g/L", "gm/dL"],
    "10*9/L": ["10*3/uL", "K/uL", "x10E3/uL", "/uL"],
    "10*12/L": ["10*6/uL", "M/uL"],
    "mmol/L": ["mmol/l", "umol/L"],
    "U/L": ["u/L", "IU/L", "[iU]/L", "U/mL"],
    "ng/mL": ["ug/L", "ng/ml", "pg/mL"],
    "ng/L": ["pg/mL", "ng/mL"],
    "pg/mL": ["ng/L", "ng/mL"],
    "ug/dL": ["ug/L", "mcg/dL"],
    "ng/dL": ["ng/L", "ng/mL"],
    "m[iU]/L": ["uIU/mL", "mIU/L"],
    "mg/L": ["mg/dL", "ug/mL"],
    "mm[Hg]": ["mmHg", "kPa", "torr"],
    "cm[H2O]": ["cmH2O", "mm[Hg]"],
    "Cel": ["C", "degF", "[degF]"],
    "kg": ["g", "lb", "[lb_av]", "oz"],
    "cm": ["m", "in", "[in_i]"],
    "/min": ["bpm", "{beats}/min", "breaths/min"],
    "%": ["percent", "1"],
    "fL": ["um3", "fl"],
    "mg/g": ["ug/mg", "g/g"],
    "ng{FEU}/mL": ["ug{FEU}/mL", "mg/L FEU"],
    "mL/min/{1.73_m2}": ["mL/min/1.73m2", "ml/min/1.73 m2"],
}
AMOUNTS = {"mg/dL": "mmol/L", "ug/dL": "umol/L", "pg/mL": "pmol/L", "ng/dL": "pmol/L"}
# No standard code any more; sites with codes as recorded have it in their older records.
RETIRED = {"LOINC/33914-3"}
# Synthea writes grams a litre (70) as grams a decilitre: the plausible range finds it.
WRONG_IN_SYNTHEA = {"total_protein", "globulin"}


@pytest.fixture(scope="module")
def synthea(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthea")
    archive = data_set("omop_synthea27nj") / "Synthea27NjParquet_5.4.zip"
    with zipfile.ZipFile(archive) as tables:
        for name in tables.namelist():
            if name.startswith("Synthea27NjParquet/") and name.endswith(".parquet"):
                tables.extract(name, folder)
    return folder / "Synthea27NjParquet"


def test_every_code_that_the_public_vocabulary_has_is_there_with_its_name(synthea: Path) -> None:
    rows = duckdb.execute(
        "SELECT vocabulary_id || '/' || concept_code, concept_name, domain_id, standard_concept "
        "FROM read_parquet(?)",
        [str(synthea / "concept.parquet")],
    ).fetchall()
    concepts = {code: (name, domain, standard) for code, name, domain, standard in rows}
    compared = 0
    for entry in CATALOGUE.entries.values():
        for code, name in entry.codes.items():
            if code in concepts:
                assert name == concepts[code][0], code
                assert concepts[code][2] == "S" or code in RETIRED, code
                assert concepts[code][1] in DOMAINS[entry.kind], code
                compared += 1
    assert compared >= 130


def test_an_entry_says_it_was_seen_in_the_public_vocabulary_when_it_was(synthea: Path) -> None:
    rows = duckdb.execute(
        "SELECT vocabulary_id || '/' || concept_code FROM read_parquet(?)",
        [str(synthea / "concept.parquet")],
    ).fetchall()
    known = {code for (code,) in rows}
    for entry in CATALOGUE.entries.values():
        assert ("omop-synthea" in entry.verified) == bool(known & entry.codes.keys()), entry.name


@pytest.mark.parametrize("entry", MEASURED, ids=lambda entry: entry.name)
def test_units_are_ucum_and_what_laboratories_record_converts(entry: Entry) -> None:
    assert entry.unit is not None
    plan_unit(entry.unit)
    if entry.unit_if_missing is not None:
        assert entry.unit_if_missing == entry.unit
    assert entry.analyte is None or entry.analyte in ANALYTES or entry.analyte in HEMOGLOBIN_A1C
    units = [entry.unit, *RECORDED.get(entry.unit, [])]
    if entry.unit == "U/L" and entry.analyte is None:
        units = ["U/mL"]
    if entry.analyte in ANALYTES and ANALYTES[str(entry.analyte)].molar_mass is not None:
        units += [AMOUNTS[entry.unit]] if entry.unit in AMOUNTS else []
    if entry.analyte in HEMOGLOBIN_A1C:
        units = ["%", "mmol/mol"]
    for unit in units:
        assert conversion(unit, entry.unit, analyte=entry.analyte).factor > 0, unit


def test_units_are_read_by_ucumverts_grammar_too() -> None:
    ucumvert = pytest.importorskip("ucumvert", reason="ucumvert is not installed")
    parser = ucumvert.get_ucum_parser()
    for unit in {entry.unit for entry in MEASURED}:
        parser.parse(unit)


def test_codes_of_one_entry_in_other_units_are_the_same_quantity() -> None:
    """A mass and an amount of one analyte stand side by side only where the analyte is declared."""
    for entry in MEASURED:
        kinds = {
            kind for name in entry.codes.values() for kind in ("[Mass/", "[Moles/") if kind in name
        }
        assert len(kinds) < 2 or entry.analyte is not None, entry.name


def test_on_public_omop_tables_every_measurement_is_in_its_range_and_its_unit(
    synthea: Path, tmp_path: Path
) -> None:
    aggregates = {"measurement": ".last", "condition": ".any", "drug": ".any"}
    features = [
        {"from_catalogue": entry.name + aggregates[entry.kind], "window_days": 36_500}
        for entry in CATALOGUE.entries.values()
        if entry.kind in aggregates
    ]
    plan = plan_for_events(
        features=features,
        fairness_groups=[],
        monitoring=...,
        cohort={
            "description": "Everybody, at the last visit",
            "index_date": {
                "description": "The last visit",
                "codes": ["Visit/IP", "Visit/ER", "Visit/OP"],
                "occurrence": "last",
            },
        },
    )
    found = read_event_patients(plan, OmopFolder(synthea), scratch=tmp_path)
    met = {name: counts for name, counts in found.variables.items() if counts.used}
    assert len(met) >= 55
    for feature in plan.features:
        counts = met.get(feature.name)
        if counts is not None and isinstance(feature, NumericFeature):
            assert counts.other_unit == 0, feature.name
            if feature.name.removesuffix("_last") not in WRONG_IN_SYNTHEA:
                assert counts.implausible == 0, feature.name
