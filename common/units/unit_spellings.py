"""Units as laboratories write them, and the UCUM code that is meant.

Looked up as written, upper and lower case apart, after spaces at the ends were cut and runs of
spaces made one. Sources:

- [c/i] UCUM's own case-insensitive codes: MG/DL is mg/dL there, the megagram is MAG.
- [eICU] eICU Collaborative Research Database, table lab: `labmeasurenameinterface` is what the
  hospital wrote, `labmeasurenamesystem` what its curators read it as.
- [OMOP] unit concepts of the OHDSI vocabularies that are marked as not standard.
- [RI] Regenstrief Institute and NLM, table of example UCUM codes for electronic messaging.
- [JC] US Joint Commission and ISMP lists of abbreviations: mcg for ug, cc for mL.

A few spellings are UCUM codes of something else, and a test lists all of them. K/uL is kelvin per
microlitre, C coulomb, F farad: nothing can be mistaken, for what was meant otherwise is
commensurable with no plan's count or temperature. MU/L and Mmol/L are mega in UCUM: nothing in a
body is measured in a thousand million times the usual unit, so the M is milli, as in UCUM's
case-insensitive codes. What has two meanings in laboratories stays out: m/uL is a million here and
a thousand there, and "units" alone says nothing.
"""

from __future__ import annotations

from typing import Final

_SPELLINGS: Final[dict[str, str]] = {
    # Mass concentration [c/i] [eICU] [JC]
    "mg/dL": "MG/DL|Mg/dL|Mg/Dl|MG/dL|mG/dL|mgs/dL|mg%|MG%|mg/100mL|mg/100 mL|mg/100ml",
    "g/dL": "G/DL|gm/dL|gm/dl|GM/DL|Gm/dL|G/dL|gms/dL|gm%|g/100mL",
    "g/L": "G/L|gm/L|GM/L",
    "mg/L": "MG/L|mcg/mL|mcg/ml|MCG/ML|UG/ML|Ug/mL",
    "ug/L": "UG/L|mcg/L|MCG/L|mcg/l",
    "ug/dL": "UG/DL|mcg/dL|MCG/DL|mcg/dl|mcg/100mL",
    "ng/mL": "NG/ML|Ng/mL|ng/ ml",
    "ng/dL": "NG/DL",
    "ng/L": "NG/L",
    "pg/mL": "PG/ML|Pg/mL",
    "pg/dL": "PG/DL",
    "mg/g": "MG/G|mg/gm|mg/g Creat|mg/g creat|mg/g cr|mg/gCr",
    "ug/mg": "mcg/mg|UG/MG|mcg/mg creat|ug/mg creat",
    "mg/mmol": "MG/MMOL",
    "ng{FEU}/mL": "ng/mL FEU|ng/mL{FEU}|ng FEU/mL|NG/ML FEU|ng/mLFEU",
    "ug{FEU}/mL": "ug/mL FEU|ug/mL{FEU}|ug FEU/mL|UG/ML FEU|mcg/mL FEU|ug/mLFEU|MCG/ML FEU",
    "mg{FEU}/L": "mg/L FEU|mg/L{FEU}|mg FEU/L|MG/L FEU",
    "ng{DDU}/mL": "ng/mL DDU|ng/mL{DDU}|ng/mL D-DU|ng DDU/mL|NG/ML DDU",
    "ug{DDU}/mL": "ug/mL DDU|ug/mL{DDU}",
    # Amount concentration [c/i] [eICU]
    "mol/L": "MOL/L",
    "mmol/L": "MMOL/L|mMol/L|Mmol/L|mmoles/L|mM/L|mM",
    "umol/L": "UMOL/L|uMol/L|Umol/L|umoles/L|mcmol/L|MCMOL/L|uM/L",
    "nmol/L": "NMOL/L|nMol/L",
    "pmol/L": "PMOL/L|pMol/L",
    "mmol/mol": "MMOL/MOL",
    "meq/L": "mEq/L|mEq/l|MEQ/L|Meq/L|MEq/L|meq/l|mEQ/L|meQ/L",
    "meq/dL": "mEq/dL|MEQ/DL",
    "mosm/kg": "MOSM/KG|mOsm/kg|mOsm/Kg|mosmol/kg|mOsmol/kg|mOsm/kg H2O|MOSM/KG H2O|mOsm/kgH2O"
    "|mOsm/kg H20",
    "mosm/L": "MOSM/L|mOsm/L|mosmol/L",
    # Activity and arbitrary units [c/i] [eICU] [RI]
    "U/L": "u/L|u/l|Units/L|units/L|UNITS/L|unit/L|Unit/L|UNIT/L|U/Lit",
    "U/mL": "u/mL|u/ml|U/ML|units/mL|Units/mL|UNITS/ML|unit/mL",
    "kU/L": "KU/L|ku/L",
    "mU/L": "MU/L|mu/L",
    "mU/mL": "mu/mL|MU/ML|milliunits/mL",
    "uU/mL": "mcUnits/mL|uu/mL|mcU/mL|mcU/ml|UU/ML",
    "[iU]/L": "IU/L|iu/L|IU/l|iu/l|iU/L|Int_Units/L|IntUnit/L|intl units/L",
    "[iU]/mL": "IU/mL|IU/ml|IU/ML|iu/mL|Int_Units/mL|IntUnit/mL",
    "m[iU]/L": "MICRO IU/ML|mIU/L|MIU/L|miu/L|mIU/l|mcIU/mL|uIU/mL|uIU/ml|UIU/ML|uiu/mL|mcIU/ml",
    "m[iU]/mL": "mIU/mL|mIU/ml|MIU/ML|miu/mL",
    "k[iU]/L": "kIU/L|KIU/L",
    "k[iU]/mL": "K[iU]/mL|kIU/mL",
    "[iU]/dL": "IU/dL|IU/DL",
    "U/g": "U/gm|U/G",
    # Counts [eICU] [OMOP] [RI]
    "10*3/uL": "K/uL|k/uL|K/UL|k/ul|K/ul|K/mcL|k/mcL|K/MCL|K/mm3|k/mm3|K/MM3|K/cmm|K/CMM|k/cmm"
    "|K/cumm|K/cu mm|K/CU MM|k/mm cu|k/MM3|TH/cmm|th/cmm|K/mm cu|Kcells/uL|th/uL|TH/uL|TH/UL"
    "|Th/uL|th/mcL|TH/MCL"
    "|th/cumm|TH/CUMM|th/mm3|THOU/UL|THOU/uL|thou/uL|Thou/uL|thou/mcL|thou/cumm|THOU/CUMM"
    "|thou/cu mm|thou/mm3|thousand/uL|Thousand/uL|THOUS/UL|THS/uL|THS/UL|Thous/mcL|THOU/MCL"
    "|10E3/uL|10E3/UL|10e3/uL|10E3/mcL|10E3/MCL|10^3/mcL|10^3/UL|10*3/mcL|10*3/UL|10(3)/mcL"
    "|10(3)/uL|10(3)mcL|10 3/uL|10 3/mcL|x10 3/uL|X10 3/UL|x10 3/mcL|x10E3/uL|X10E3/UL|x10e3/uL"
    "|x10E3/mcL|X10E3/MCL|x10^3/uL|X10^3/UL|x10^3/mcL|x10(3)/mcL|x10(3)/uL|x10*3/uL|X10*3/UL"
    "|x1000/uL|x1000/mcL|1000/uL|1000/mcL|10x3/uL|10X3/UL|10x3/mcL|10^3/cmm|x10 3/mm3|10 3/mm3"
    "|bil/L|BIL/L|Bil/L|billion/L",
    "10*9/L": "10*9/l|10^9/l|10E9/L|10e9/L|10E9/l|x10^9/L|x10^9/l|X10^9/L|x10*9/L|x10*9/l|x10E9/L"
    "|x10e9/L|X10E9/L|x10(9)/L|10(9)/L|x10 9/L|10 9/L|x 10^9/L|10x9/L|10X9/L|10*9/ L|G/l",
    "10*6/uL": "M/uL|M/UL|M/mcL|M/MCL|M/mm3|M/MM3|M/cmm|M/CMM|M/cumm|M/cu mm|mil/uL|MIL/uL|MIL/UL"
    "|mil/mcL|MIL/MCL|MIL/CMM|mil/cmm|mil/cumm|mil/mm3|mill/uL|MILL/UL|Mill/uL|mill/mcL|Mill/mcL"
    "|mill/cumm|MILL/CUMM|mill/mm3|million/uL|Million/uL|MILLION/UL|10E6/uL|10E6/UL|10e6/uL"
    "|10E6/mcL|10E6/MCL|10^6/mcL|10^6/UL|10*6/mcL|10*6/UL|10(6)/mcL|10(6)/uL|10(6)mcL|10 6/uL"
    "|10 6/mcL|x10 6/uL|X10 6/UL|x10 6/mcL|x10E6/uL|X10E6/UL|x10e6/uL|x10E6/mcL|X10E6/MCL|x10^6/uL"
    "|X10^6/UL|x10^6/mcL|x10(6)/mcL|x10(6)/uL|x10*6/uL|X10*6/UL|10x6/uL|10X6/UL|10x6/mcL"
    "|x10 6/mm3|10 6/mm3|10^6/cmm|TRIL/L|tril/L",
    "10*12/L": "10*12/l|10^12/l|10E12/L|10e12/L|10E12/l|x10^12/L|x10^12/l|X10^12/L|x10*12/L"
    "|x10*12/l|x10E12/L|x10e12/L|X10E12/L|x10(12)/L|10(12)/L|x10 12/L|10 12/L|x 10^12/L",
    "10*6/L": "10^6/l|x10^6/L|x10*6/L|10E6/L",
    "/uL": "/mcL|/MCL|/UL|/cumm|/CUMM|/cu mm|/cmm|/CMM|/mm cu|#/uL|#/mcL|cells/uL|cells/mcL"
    "|CELLS/UL|Cells/uL|cells/mm3|cells/cumm|cells/ul",
    "/mL": "cells/mL|/ML|copies/mL|Copies/mL|COPIES/ML",
    "/[HPF]": "/(hpf)|/HPF|/hpf|#/HPF|#/hpf|/HPf|cells/HPF|per HPF",
    "/[LPF]": "/LPF|/lpf|#/LPF|#/lpf|cells/LPF|per LPF",
    # Cell volumes and masses [eICU]
    "fL": "FL|Fl|femtoliter|femtoliters|U3|u3|um3|cu micron|cubic microns",
    "pg": "PG|Pg|uug|UUG|picogram|picograms|pg/cell|pg/Cell",
    # Shares [eICU] [OMOP]
    "%": "% Sat.|percent|Percent|PERCENT|pct|PCT|per cent|%cv|% CV|%CV|% total Hgb|% THB|% of total"
    "|% OF TOTAL|% TOTAL|% Hgb|% of total Hgb|% sat|% SAT|%Sat",
    "mL/dL": "mls/dL|ml/dl|ML/DL|vol %|vol%|VOL %|Vol %|mL/100mL",
    "1": "ratio|Ratio|RATIO|index|Index|INDEX",
    "{INR}": "INR|inr",
    "{score}": "(score)|score|Score",
    "[pH]": "pH|PH|pH units|pH Units|ph units|pH unit",
    # Pressure, vital signs [eICU] [RI]
    "mm[Hg]": "mmHg|mmhg|mm Hg|mm hg|MMHG|MM HG|MmHg|mmHG|mm(hg)|mm(Hg)|torr|Torr|mm[hg]|mmHg.",
    "cm[H2O]": "CM/H2O|cmH2O|cm H2O|cm/H2O|CMH2O|CM H2O|cmh2o|cmH20|cm H20|cm of H2O",
    "kPa": "KPA|KPa|kpa",
    "/min": "bpm|BPM|beats/min|beats per minute|breaths/min|BREATHS/MIN|brpm|insp/min|/MIN|/Min"
    "|b/min"
    "|per minute|beats/minute|breaths/minute|1/min",
    "Cel": "C|C.|DegC|degree C|degC|[degC]|deg C|Deg C|DEG C|degrees C|Degrees C|°C|° C|&#176;C"
    "|\N{DEGREE CELSIUS}"
    "|Celsius|celsius|CEL|deg_c",
    "[degF]": "F|degF|deg F|Deg F|DEG F|degrees F|Degrees F|°F|° F|&#176;F"
    "|\N{DEGREE FAHRENHEIT}|Fahrenheit|fahrenheit|DEGF|deg_f",
    # Body measures, volumes, times [eICU] [RI] [JC]
    "kg": "KG|Kg|kgs|kilogram|kilograms|Kilograms|kilos",
    "g": "gm|GM|gms|gram|grams|Grams|G",
    "mg": "MG|milligram|milligrams",
    "ug": "mcg|MCG|UG|microgram|micrograms",
    "[lb_av]": "[lb_us]|lb|lbs|LB|LBS|pound|pounds|Pounds",
    "[oz_av]": "oz|OZ|ounce|ounces",
    "cm": "CM|cms|centimeter|centimeters|centimetre|centimetres",
    "mm": "MM|millimeter|millimeters",
    "m": "meter|meters|metre|metres",
    "[in_i]": "in|IN|inch|inches|Inches|Inch",
    "[ft_i]": "ft|FT|feet|foot",
    "kg/m2": "kg/m^2|kg/m²|KG/M2|Kg/m2|kg/sqm|kg/sq m",
    "m2": "m^2|m²|M2|sq m|sqm",
    "L": "liter|liters|litre|litres|Liters",
    "mL": "ML|mls|mLs|MLS|cc|CC|milliliter|milliliters",
    "mL/min": "ML/MIN|mls/min|cc/min|ml/minute",
    "L/min": "L/MIN|LPM|lpm|liters/min|l/minute",
    "mL/h": "mL/hr|ml/hr|ML/HR|cc/hr|cc/h|mls/hr",
    "mL/min/(173.10*-2.m2)": "mL/min/1.73m2|mL/min/1.73 m2|ml/min/1.73m2|ml/min/1.73 m2"
    "|mL/min/1.73m^2|mL/min/1.73 m^2|ml/min/1.73m^2|mL/min/1.73m²|ml/min/1.73m²|mL/min/1.73 m²"
    "|mL/min/1.73.m2|ML/MIN/1.73M2|ML/MIN/1.73 M2|mL/min/1.73sqm|mL/min/1.73 sq m"
    "|mL/min/1.73 sqm|mL/min/{1.73}m2|mL/min/1.73",
    "mg/(24.h)": "mg/24HR|MG/24HR|mg/24hr|mg/24 hr|mg/24h|mg/24 h|mg/day|MG/DAY",
    "mL/(24.h)": "mL/24hr|mL/24 hr|mL/24h|mL/day|ml/day",
    "/wk": "/w|per week",
    "/a": "/y|/yr|per year",
    "mm/h": "mm/hr|MM/HR|mm/Hr|MM/H|mm/hour|MM/hr.|mm/hr.",
    "s": "sec|SEC|Sec|secs|sec.|second|seconds|Seconds|SECONDS|second(s)|Second(s)|Secs",
    "min": "MIN|minute|minutes|Minutes|mins|minute(s)",
    "h": "hr|HR|hrs|hour|hours|Hours|hour(s)",
    "d": "day|days|Days|DAYS|day(s)",
    "wk": "week|weeks|Weeks|week(s)",
    "mo": "month|months|Months|month(s)",
    "a": "y|yr|YR|yrs|YRS|year|years|Years|year(s)",
}

SPELLINGS: Final[dict[str, str]] = {
    spelling: code for code, listed in _SPELLINGS.items() for spelling in listed.split("|")
}
"""UCUM code per spelling."""


def ucum_code(recorded: str) -> str:
    """Return the UCUM code that a recorded unit means, or the text itself, cut of spaces.

    Both characters for micro, U+00B5 and U+03BC, are read as UCUM's u.
    """
    text = " ".join(recorded.split())
    text = text.replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u")
    return SPELLINGS.get(text, text)
