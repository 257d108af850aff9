"""Units, against published tables that are typed here and against formulas added up anew."""

from __future__ import annotations

import math
import re
from itertools import combinations

import duckdb
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from common.errors import DataSourceError, PlanError
from common.units.conversions import Conversion, LeftOut, conversion, unit_table
from common.units.molar_masses import ANALYTES
from common.units.ucum import NotUcumError, parse_unit
from common.units.unit_spellings import _SPELLINGS, SPELLINGS

# AMA Manual of Style, 11th edition, table 17.5-1 (conventional to SI, multiply by), to the digits
# printed there; NIST SP 811 appendix B.8 and NGSP where named.
PUBLISHED = [
    ("mg/dL", "umol/L", "Creatinine", 88.4, 1e-3),
    ("mg/dL", "mmol/L", "Glucose", 0.0555, 1e-3),
    ("mmol/L", "mg/dL", "Glucose", 18.016, 1e-3),
    ("mg/dL", "mmol/L", "Cholesterol", 0.0259, 2e-3),
    ("mmol/L", "mg/dL", "Cholesterol in HDL", 38.67, 1e-3),
    ("mmol/L", "mg/dL", "Triglyceride", 88.57, 1e-3),
    ("mg/dL", "mmol/L", "Triglyceride", 0.0113, 2e-3),
    ("mg/dL", "mmol/L", "Urea nitrogen", 0.357, 1e-3),
    ("mmol/L", "mg/dL", "Urea nitrogen", 2.8, 1e-3),
    ("mg/dL", "umol/L", "Bilirubin", 17.104, 1e-3),
    ("mg/dL", "mmol/L", "Calcium", 0.25, 3e-3),
    ("meq/L", "mmol/L", "Calcium", 0.5, 1e-12),
    ("mg/dL", "mmol/L", "Magnesium", 0.4114, 1e-3),
    ("meq/L", "mmol/L", "Magnesium", 0.5, 1e-12),
    ("mg/dL", "mmol/L", "Phosphate", 0.323, 1e-3),
    ("mmol/L", "mg/dL", "Lactate", 9.008, 1e-4),
    ("g/dL", "mmol/L", "Hemoglobin", 0.6206, 1e-4),
    ("g/dL", "g/L", "Albumin", 10.0, 1e-12),
    ("mg/dL", "umol/L", "Urate", 59.48, 1e-3),
    ("ug/dL", "umol/L", "Iron", 0.179, 1e-3),
    ("ug/dL", "umol/L", "Iron binding capacity", 0.179, 1e-3),
    ("ug/dL", "nmol/L", "Cortisol", 27.588, 1e-3),
    ("ug/dL", "nmol/L", "Thyroxine", 12.871, 1e-3),
    ("ng/dL", "pmol/L", "Thyroxine.free", 12.871, 1e-3),
    ("ng/dL", "nmol/L", "Triiodothyronine", 0.0154, 3e-3),
    ("ng/mL", "nmol/L", "25-Hydroxyvitamin D", 2.496, 1e-3),
    ("pg/mL", "pmol/L", "Cobalamins", 0.7378, 1e-3),
    ("ng/mL", "nmol/L", "Folate", 2.266, 1e-3),
    ("ng/dL", "nmol/L", "Testosterone", 0.0347, 2e-3),
    ("pg/mL", "pmol/L", "Estradiol", 3.671, 1e-3),
    ("ng/mL", "nmol/L", "Progesterone", 3.180, 1e-3),
    ("mg/L", "umol/L", "Homocysteine", 7.397, 1e-3),
    ("ug/dL", "umol/L", "Ammonia", 0.587, 1e-3),
    ("ug/dL", "umol/L", "Copper", 0.1574, 1e-3),
    ("ug/dL", "umol/L", "Zinc", 0.153, 1e-3),
    ("ug/dL", "umol/L", "Lead", 0.0483, 1e-3),
    ("ug/mL", "umol/L", "Acetaminophen", 6.614, 1e-3),
    ("ng/mL", "nmol/L", "Digoxin", 1.281, 1e-3),
    ("ug/mL", "umol/L", "Phenytoin", 3.964, 1e-3),
    ("ug/mL", "umol/L", "Carbamazepine", 4.233, 1e-3),
    ("ug/mL", "umol/L", "Theophylline", 5.55, 1e-3),
    ("mg/dL", "mmol/L", "Ethanol", 0.2171, 1e-3),
    ("meq/L", "mmol/L", "Sodium", 1.0, 1e-12),
    ("meq/L", "mmol/L", "Potassium", 1.0, 1e-12),
    ("meq/L", "mmol/L", "Chloride", 1.0, 1e-12),
    ("mg/mmol", "mg/g", "Albumin/Creatinine", 8.84, 1e-3),
    ("U/L", "ukat/L", "Alanine aminotransferase", 0.0167, 3e-3),
    ("IU/L", "nkat/L", "Alanine aminotransferase", 16.67, 1e-3),
    ("mm[Hg]", "kPa", None, 0.1333224, 1e-5),  # NIST SP 811
    ("cm[H2O]", "Pa", None, 98.0665, 1e-9),
    ("[lb_av]", "kg", None, 0.45359237, 1e-12),
    ("[in_i]", "cm", None, 2.54, 1e-12),
    ("[ft_i]", "m", None, 0.3048, 1e-12),
    ("[oz_av]", "g", None, 28.34952, 1e-6),
    ("[psi]", "kPa", None, 6.894757, 1e-6),
    ("kcal", "kJ", None, 4.184, 1e-12),
    ("a", "d", None, 365.25, 1e-12),
]


@pytest.mark.parametrize(("old", "new", "analyte", "factor", "tolerance"), PUBLISHED)
def test_factors_are_those_of_published_tables(
    old: str, new: str, analyte: str | None, factor: float, tolerance: float
) -> None:
    found = conversion(old, new, analyte=analyte)
    assert found.factor == pytest.approx(factor, rel=tolerance)
    assert found.offset == 0


# IUPAC abridged standard atomic weights, 2021.
ATOMIC_WEIGHTS = {
    **{"H": 1.008, "Li": 6.94, "C": 12.011, "N": 14.007, "O": 15.999, "Na": 22.990, "Mg": 24.305},
    **{"Al": 26.982, "P": 30.974, "S": 32.06, "Cl": 35.45, "K": 39.098, "Ca": 40.078},
    **{"Fe": 55.845, "Co": 58.933, "Cu": 63.546, "Zn": 65.38, "Se": 78.971, "I": 126.90},
    **{"Hg": 200.59, "Pb": 207.2},
}


def test_every_molar_mass_is_the_sum_over_its_formula() -> None:
    with_formula = {name: analyte for name, analyte in ANALYTES.items() if analyte.formula}
    assert len({analyte.formula for analyte in with_formula.values()}) >= 30
    for name, analyte in with_formula.items():
        parts = re.findall(r"([A-Z][a-z]?)(\d*)", analyte.formula)
        assert "".join(a + n for a, n in parts) == analyte.formula
        total = sum(ATOMIC_WEIGHTS[atom] * int(number or 1) for atom, number in parts)
        assert analyte.molar_mass is not None
        assert float(analyte.molar_mass) == pytest.approx(total, abs=1e-9), name
    unnamed = {name for name, a in ANALYTES.items() if a.molar_mass is not None and not a.formula}
    assert unnamed == {"Hemoglobin"}


def test_temperatures_convert_with_an_offset() -> None:
    for fahrenheit, celsius in [("32", 0.0), ("98.6", 37.0), ("-40", -40.0), ("212", 100.0)]:
        found = conversion("degF", "Cel", analyte=None)
        assert float(fahrenheit) * found.factor + found.offset == pytest.approx(celsius, abs=1e-12)
    assert conversion("Cel", "K", analyte=None) == Conversion(1.0, 273.15)


def test_the_two_scales_of_hemoglobin_a1c_are_no_ratio() -> None:
    name = "Hemoglobin A1c/Hemoglobin.total"
    to_ngsp = conversion("mmol/mol", "%", analyte=name)
    to_ifcc = conversion("%", "mmol/mol", analyte=name)
    for ifcc, ngsp in [(20, 4.0), (42, 6.0), (53, 7.0), (64, 8.0), (108, 12.0)]:  # NGSP's own table
        assert round(ifcc * to_ngsp.factor + to_ngsp.offset, 1) == ngsp
        assert round(ngsp * to_ifcc.factor + to_ifcc.offset) == ifcc
    assert conversion("%", "%", analyte=name) == Conversion(1.0, 0.0)
    with pytest.raises(DataSourceError, match="cannot be brought"):
        conversion("mmol/mol", "%", analyte=None)


@pytest.mark.parametrize(
    ("old", "new", "analyte", "reason"),
    [
        ("mg/dL", "mmol/L", None, LeftOut.ANALYTE),
        ("mg/dL", "mmol/L", "Haptoglobin", LeftOut.ANALYTE),
        ("meq/L", "mmol/L", "Phosphate", LeftOut.ANALYTE),
        ("IU/L", "U/L", "Thyrotropin", LeftOut.ANALYTE),
        ("mg/mmol", "mg/g", "Albumin", LeftOut.ANALYTE),
        ("mg/dL", "kg", "Glucose", LeftOut.INCOMMENSURABLE),
        ("%", "g/dL", "Hemoglobin", LeftOut.INCOMMENSURABLE),
        ("[arb'U]/L", "[iU]/L", None, LeftOut.INCOMMENSURABLE),
        ("[iU]/L", "/L", None, LeftOut.INCOMMENSURABLE),
        ("mg/dL", "[iU]/L", "Glucose", LeftOut.INCOMMENSURABLE),
        ("mosm/kg", "mmol/kg", "Sodium", LeftOut.INCOMMENSURABLE),
        ("/[HPF]", "/uL", None, LeftOut.INCOMMENSURABLE),
        ("{score}", "%", None, LeftOut.INCOMMENSURABLE),
        ("{ratio}", "mmol/mol", "Hemoglobin A1c", LeftOut.INCOMMENSURABLE),
        ("ng{DDU}/mL", "ng{FEU}/mL", None, LeftOut.INCOMMENSURABLE),
        ("ng/mL", "ng{FEU}/mL", None, LeftOut.INCOMMENSURABLE),
        ("mL/min", "mL/min/{1.73_m2}", None, LeftOut.INCOMMENSURABLE),
        ("m/uL", "10*6/uL", None, LeftOut.INCOMMENSURABLE),
        ("Cel/min", "K/min", None, LeftOut.UNKNOWN),
        ("units", "U/L", "Amylase", LeftOut.UNKNOWN),
        ("x10(3)", "10*3/uL", None, LeftOut.UNKNOWN),
        ("", "mg/dL", None, LeftOut.UNKNOWN),
    ],
)
def test_what_cannot_be_known_is_left_out_with_its_reason(
    old: str, new: str, analyte: str | None, reason: LeftOut
) -> None:
    with pytest.raises(DataSourceError) as caught:
        conversion(old, new, analyte=analyte)
    assert caught.value.arrived == reason


def test_an_error_never_repeats_a_recorded_unit() -> None:
    with pytest.raises(DataSourceError) as caught:
        conversion("Erika Mustermann", "mg/dL", analyte=None)
    assert "Mustermann" not in str(caught.value)


@pytest.mark.parametrize("unit", ["MG/DL", "K/uL", "mmHg", "mcg/mL", "foo", "", "mg/dL ", "m" * 99])
def test_a_plans_unit_is_ucum_and_nothing_else(unit: str) -> None:
    with pytest.raises(PlanError):
        conversion("mg/dL", unit, analyte=None)


@pytest.mark.parametrize(
    ("recorded", "code"),
    [
        *[("MG/DL", "mg/dL"), ("mmHg", "mm[Hg]"), ("10*9/L", "10*3/uL"), ("K/uL", "10*3/uL")],
        *[("x10^9/l", "10*9/L"), ("degF", "[degF]"), ("mEq/L", "meq/L"), ("IU/L", "[iU]/L")],
        *[("mcg/mL", "mg/L"), ("µmol/L", "umol/L"), ("\u03bcg/L", "ug/L"), ("  mg/dL ", "mg/dL")],
        *[("mm  Hg", "mm[Hg]"), ("uIU/mL", "m[iU]/L"), ("mL/min/1.73m2", "mL/min/{1.73_m2}")],
    ],
)
def test_spellings_mean_their_ucum_code(recorded: str, code: str) -> None:
    assert conversion(recorded, code, analyte=None) == Conversion(1.0, 0.0)


def test_every_spelling_stands_for_one_code_and_each_code_is_ucum() -> None:
    listed = [spelling for line in _SPELLINGS.values() for spelling in line.split("|")]
    assert len(listed) == len(set(listed)) == len(SPELLINGS)
    for code in _SPELLINGS:
        parse_unit(code)
        assert code not in SPELLINGS


def test_the_spellings_that_are_another_ucum_code_are_these_and_no_more() -> None:
    changed = set()
    for spelling, code in SPELLINGS.items():
        try:
            if parse_unit(spelling) != parse_unit(code):
                changed.add(spelling)
        except NotUcumError:
            continue
    mega_for_milli = {"Mg/dL", "Mmol/L", "Meq/L", "U/ML", "MU/L", "/ML", "ML"}
    giga_metre_for_gram = {"Gm/dL"}
    kelvin_for_thousand = {"K/uL", "K/ul", "K/mm3"}
    cubed_enzyme_unit_for_cubic_micron = {"U3"}
    without_the_surfaces_unit = {"mL/min/1.73", "mL/min/1.73.m2"}
    annotated_denominator = {f"{m}g/mL{{{u}}}" for m in "nu" for u in ("FEU", "DDU")}
    assert changed == {
        *mega_for_milli,
        *giga_metre_for_gram,
        *kelvin_for_thousand,
        *cubed_enzyme_unit_for_cubic_micron,
        *without_the_surfaces_unit,
        *annotated_denominator,
        "mg/L{FEU}",
    }


def test_a_table_decides_each_distinct_unit_once() -> None:
    found = ["mg/dL", None, "umol/L", "mg/dL", "", "junk", "kg"]
    rows = unit_table(found, "umol/L", "Creatinine", None)
    assert [row.unit for row in rows] == ["mg/dL", None, "umol/L", "", "junk", "kg"]
    assert [row.reason for row in rows] == [
        *[None, LeftOut.MISSING, None, LeftOut.MISSING, LeftOut.UNKNOWN, LeftOut.INCOMMENSURABLE]
    ]
    assert all((row.conversion is None) == (row.reason is not None) for row in rows)


def test_a_missing_unit_converts_only_as_the_plan_declares() -> None:
    (row,) = unit_table([None], "umol/L", "Creatinine", "mg/dL")
    assert row.conversion == conversion("mg/dL", "umol/L", analyte="Creatinine")
    with pytest.raises(PlanError, match="unit_if_missing"):
        unit_table([], "umol/L", "Creatinine", "kg")
    with pytest.raises(PlanError):
        unit_table([], "umol/L", "Creatinine", "MG/DL")


def test_decisions_join_in_sql_and_those_left_out_are_counted() -> None:
    recorded = [(1.0, "MG/DL"), (2.0, "umol/L"), (3.0, None), (4.0, "junk"), (5.0, "mg/dL")]
    rows = unit_table([unit for _, unit in recorded], "umol/L", "Creatinine", None)
    database = duckdb.connect()
    database.execute("create table events (value double, unit varchar)")
    database.executemany("insert into events values (?, ?)", recorded)
    database.execute("create table units (unit varchar, factor double, plus double, why varchar)")
    for row in rows:
        to = row.conversion
        database.execute(
            "insert into units values (?, ?, ?, ?)",
            [row.unit, to and to.factor, to and to.offset, row.reason],
        )
    joined = "events join units on events.unit is not distinct from units.unit"
    found = database.execute(
        f"select value * factor + plus from {joined} where why is null order by value"
    ).fetchall()
    assert [value for (value,) in found] == pytest.approx([88.4017, 2.0, 442.0085], rel=1e-6)
    counted = database.execute(f"select why, count(*) from {joined} group by why").fetchall()
    assert dict(counted) == {None: 3, LeftOut.MISSING: 1, LeftOut.UNKNOWN: 1}


CONCENTRATIONS = [
    f"{prefix}{amount}/{volume}"
    for prefix in ("", "m", "u", "n", "p")
    for amount in ("g", "mol", "eq")
    for volume in ("L", "dL", "mL", "uL", "m3")
]
FAMILIES = [
    *[CONCENTRATIONS, ["Cel", "[degF]", "K"], ["10*3/uL", "/L", "10*9/L", "{cells}/uL", "/mm3"]],
    *[["mm[Hg]", "kPa", "cm[H2O]", "bar", "[psi]"], ["kg", "g", "[lb_av]", "[oz_av]"]],
    *[["U/L", "nkat/L", "kU/L", "[iU]/mL"], ["%", "1", "mg/g", "mL/dL"], ["a", "mo", "d", "h"]],
]


def _analyte(family: list[str]) -> str:
    return "Amylase" if "U/L" in family else "Calcium"


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_there_and_back_is_the_identity_and_two_steps_are_one(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(FAMILIES))
    one, two, three = (data.draw(st.sampled_from(family)) for _ in range(3))
    value = data.draw(st.floats(1e-3, 1e6))
    name = _analyte(family)

    def apply(number: float, old: str, new: str) -> float:
        found = conversion(old, new, analyte=name)
        return number * found.factor + found.offset

    # A temperature far below its offset keeps no more digits than the offset leaves it.
    floor = 1e-9 if "K" in family else 0.0
    assert apply(apply(value, one, two), two, one) == pytest.approx(value, rel=1e-12, abs=floor)
    by_steps = apply(apply(value, one, two), two, three)
    assert by_steps == pytest.approx(apply(value, one, three), rel=1e-12, abs=floor)


def test_commensurable_is_symmetric_over_every_pair_of_codes() -> None:
    codes = sorted(_SPELLINGS)
    for one, two in combinations(codes, 2):
        (there,) = unit_table([one], two, "Glucose", None)
        (back,) = unit_table([two], one, "Glucose", None)
        assert (there.reason, there.conversion is None) == (back.reason, back.conversion is None)


ALPHABET = "mgdLulokatUeqhsPbr[]{}()./*^%0123456789+-'_ HgiOFC\u00b5\u00b0\u0663\x00é\U0001f9ea"


def _never_crashes(text: str) -> None:
    (row,) = unit_table([text], "mg/dL", "Glucose", None)
    assert row.unit == text
    if row.conversion is not None:
        assert math.isfinite(row.conversion.factor) and row.conversion.factor > 0
        assert math.isfinite(row.conversion.offset)


@given(st.text(ALPHABET, max_size=90) | st.text(max_size=40))
@example("(" * 79 + "m")
@example("10*999" + ".10*999" * 10)
@example("m999.m-999")
@example("9" * 80)
@example("m\n")
@example("\u0661")
@settings(max_examples=2_000, deadline=None)
def test_no_text_makes_it_crash(text: str) -> None:
    _never_crashes(text)


@pytest.mark.slow
@given(st.text(ALPHABET, max_size=90) | st.text(max_size=40))
@settings(max_examples=10_000, deadline=None)
def test_no_text_of_many_makes_it_crash(text: str) -> None:
    _never_crashes(text)


@given(st.lists(st.sampled_from([*"gmLsU", "mol", "10*3", "{x}", "4"]), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_a_unit_divided_by_itself_has_no_powers(parts: list[str]) -> None:
    unit = ".".join(parts)
    assume(len(unit) < 35)
    assert parse_unit(f"({unit})/({unit})").powers == {}
    assert parse_unit(f"({unit})/({unit})").factor == 1
