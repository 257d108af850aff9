"""Our reading of UCUM against ucumvert and pint, and against the units of public data sets."""

from __future__ import annotations

import csv
import gzip
import html
import io
import os
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest

from common.units.ucum import NotUcumError, parse_unit
from common.units.unit_spellings import _SPELLINGS, ucum_code

DATA = Path(os.environ.get("COHORTIUM_DATA", "../shared/data")).resolve()


@pytest.fixture(scope="module")
def ucumvert_registry() -> Any:
    pytest.importorskip("ucumvert", reason="ucumvert is not installed")
    import ucumvert

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ucumvert.PintUcumRegistry()


def _official_examples() -> list[str]:
    import ucumvert

    table = Path(ucumvert.__file__).parent / "vendor/ucum_examples.tsv"
    rows = csv.reader(table.read_text(encoding="utf8").splitlines()[1:], delimiter="\t")
    return [row[1] for row in rows if len(row) > 1]


# Where ucumvert says something else than UCUM, or than what can be converted without a guess.
OURS_ON_PURPOSE = re.compile(
    r"\[.*U\]|\[(CFU|PFU|FFU|EU|ELU|FEU|BAU|AU|PNU|HPF|LPF|pH|S|NTU|FNU|IR|Lf|Ch|diop|MET)\]"
    r"|CID_50|EID_50|osm|eq|deg|Cel|\{(FEU|DDU|D-DU)\}|\{1\.73"
)
PINTS_BASES = {"gram": 1000, "meter": 1, "second": 1, "kelvin": 1, "mole": 1, "ampere": 1}


def test_codes_that_both_read_have_one_value_and_one_dimension(ucumvert_registry: Any) -> None:
    compared = 0
    for code in dict.fromkeys([*_official_examples(), *_SPELLINGS]):
        if OURS_ON_PURPOSE.search(code):
            continue
        try:
            ours = parse_unit(code)
        except NotUcumError:
            continue
        read = ucumvert_registry.from_ucum(code)
        if isinstance(read, str):  # an annotation alone comes back as it is
            continue
        if isinstance(read, (int, float)):  # and so does a number over one
            assert (ours.powers, float(ours.factor)) == ({}, read), code
            continue
        theirs = (1 * read).to_base_units()
        powers = {name: int(power) for name, power in theirs.unit_items()}
        expected = {
            "kilogram": ours.powers.get("g", 0),
            "meter": ours.powers.get("m", 0),
            "second": ours.powers.get("s", 0) - ours.powers.get("kat", 0),
            "kelvin": ours.powers.get("K", 0),
            "mole": ours.powers.get("mol", 0) + ours.powers.get("kat", 0),
            "ampere": ours.powers.get("C", 0),
        }
        if "C" in ours.powers:  # coulomb is ampere second
            expected["second"] += ours.powers["C"]
        powers.pop("radian", None)
        assert powers == {name: power for name, power in expected.items() if power}, code
        in_grams = Fraction(1000) ** ours.powers.get("g", 0)
        # UCUM's millimetre of mercury and its inch of it have five digits, pint's have nine.
        near = 5e-3 if "[in_i'H" in code else 4e-6 if "Hg" in code or "U'" in code else 1e-12
        near = 4e-6 if re.search(r"PRU|wood", code) else near
        assert float(theirs.magnitude) == pytest.approx(float(ours.factor / in_grams), rel=near), (
            code
        )
        compared += 1
    assert compared > 400


# Why a standard unit of OHDSI's vocabulary is not read.
NOT_READ = {
    "lengths, areas, volumes, weights and typography of other trades": re.compile(
        r"_(br|us|tr|ap|i|pr|wi|av)\]|\[(lne|pied|pouce|ligne|didot|cicero|pnt|pca|gr|car_m|car_Au"
        r"|smoot|twp|sct)\]"
    ),
    "physics, chemistry, radiation, light and data": re.compile(
        r"cal_|Btu|\[(Cal|c|h|k|e|m_e|m_p|G|g|ly|eps_0|mu_0|pi|HP|pptr)\]|rad2|C-[12]|-1\.C"
        r"|\b([kMGc]?Bq|m?Ci|c?Gy|Sv|RAD|REM|R|A|AU|Ang|B|Bd|Bi|By|k?Da|F|Gb|H|Ky|Lmb|Mx|Np|Oe|Ohm"
        r"|c?P|S|St|T|Wb|ar|atm|att|b|bit|bit_s|bu|cd|circ|eV|erg|gf|gon|lm|lx|mgu|mho|pc|ph|rad|sb"
        r"|sph|sr|st|t|u)\b"
    ),
    "logarithmic": re.compile(r"\bB\[|\bdB|\blg\(|log10"),
    "other kinds of year and month, angles and slopes": re.compile(
        r"^''?$|a_[gjt]|mo_[gjs]|slope|diop"
    ),
    "homeopathy": re.compile(r"\[hp_"),
    "an arbitrary unit that UCUM does not define": re.compile(
        r"\[(U'?A|\w+'(unit|U|count|ratio|normal)|FiU|KIU|LIV|SQU|App|dose|drop|score|tcid_50|GPI'.*"
        r"|STZ'unit|mclg'U)\]|CO'ratio"
    ),
    "not UCUM: a space, a parenthesis that does not close, or two units in a row": re.compile(
        r" |\(enzyme|^\.$|\(rbc\)|mPas|/hr|\.sec|\}eq|\}%|^p/g$|\]\]|^10\*3\[arb|%\{wt|%\{vol"
    ),
}


def _fhir_units() -> Iterator[str]:
    of_ucum = rb'"system"\s*:\s*"http://unitsofmeasure.org"\s*,\s*"code"\s*:\s*"([^"]*)"'
    pattern = re.compile(of_ucum)
    with tarfile.open(DATA / "fhir_synthea/bundles.tar.gz") as bundles:
        for member in bundles:
            content = bundles.extractfile(member) if member.isfile() else None
            if content is not None:
                yield from {code.decode() for code in pattern.findall(content.read())}


def _eicu_units() -> Iterator[str]:
    with gzip.open(DATA / "eicu_demo_labs/lab.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            yield html.unescape(row["labmeasurenamesystem"])


def _omop(table: str, query: str) -> list[str]:
    with zipfile.ZipFile(DATA / "omop_synthea27nj/Synthea27NjParquet_5.4.zip") as archive:
        rows = pyarrow.parquet.read_table(  # noqa: F841  # named in the query
            io.BytesIO(archive.read(f"Synthea27NjParquet/{table}.parquet"))
        )
    return [code for (code,) in duckdb.connect().execute(query).fetchall()]


def _unread(codes: Iterable[str]) -> list[str]:
    missing = []
    for code in sorted({code for code in codes if code.strip()}):
        try:
            parse_unit(ucum_code(code))
        except NotUcumError:
            missing.append(code)
    return missing


@pytest.mark.skipif(not (DATA / "fhir_synthea").is_dir(), reason="Synthea's bundles are absent")
def test_every_unit_of_synthea_is_read_but_those_without_one() -> None:
    codes = set(_fhir_units())
    assert len(codes) >= 30
    assert _unread(codes) == ["units"]  # whose, is not said


@pytest.mark.skipif(
    not (DATA / "eicu_demo_labs").is_dir(), reason="eICU's laboratory table is absent"
)
def test_every_unit_of_eicus_curators_is_read() -> None:
    codes = set(_eicu_units())
    assert len(codes) >= 20
    assert _unread(codes) == []


@pytest.mark.skipif(not (DATA / "omop_synthea27nj").is_dir(), reason="the OMOP sample is absent")
def test_every_unit_of_the_omop_sample_is_read_but_those_without_one() -> None:
    used = _omop("measurement", "select distinct unit_source_value from rows")
    assert _unread(code for code in used if code is not None) == ["n/a"]


@pytest.mark.skipif(not (DATA / "omop_synthea27nj").is_dir(), reason="the OMOP sample is absent")
def test_every_standard_unit_of_ohdsi_is_read_or_has_a_reason_why_not() -> None:
    standard = _omop(
        "concept",
        "select concept_code from rows where domain_id = 'Unit' and standard_concept = 'S'",
    )
    unread = _unread(standard)
    assert len(unread) < 0.35 * len(standard)
    assert [code for code in unread if not any(r.search(code) for r in NOT_READ.values())] == []
