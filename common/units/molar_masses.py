"""What an analyte's amount weighs, by the component's name in LOINC.

Masses are sums of IUPAC's abridged standard atomic weights (Prohaska et al., Pure Appl. Chem. 94
(2022) 573, table 2) over the formula that PubChem gives; a test adds them up again. Conventions of
laboratory medicine that are not the molecule's own mass:

- Phosphate in mg/dL is counted as phosphorus, urea nitrogen as the two nitrogens of one urea.
- Triglyceride is counted as triolein, 25-hydroxyvitamin D as that of D3.
- Iron binding capacity is counted as iron.
- Hemoglobin in mmol/L is the monomer, Hb(Fe), of 16 114.5 g/mol (IFCC/ICSH).

Albumin, transferrin, ferritin, insulin and other proteins have no mass here: assays disagree on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final


@dataclass(frozen=True)
class Analyte:
    """What is known of one analyte.

    Args:
        molar_mass: g/mol.
        valence: equivalents per mole.
        formula: what `molar_mass` is the mass of; empty for hemoglobin and enzymes.
        units_are_international: its U and its IU are one unit, 1 µmol/min for an enzyme.
    """

    molar_mass: Fraction | None = None
    valence: int | None = None
    formula: str = ""
    units_are_international: bool = False


def _of(mass: str, formula: str, valence: int | None = None) -> Analyte:
    return Analyte(Fraction(mass), valence, formula)


_ENZYME: Final = Analyte(units_are_international=True)

ANALYTES: Final[dict[str, Analyte]] = {
    # Electrolytes; the charge at the pH of blood is the valence.
    "Sodium": _of("22.990", "Na", 1),
    "Potassium": _of("39.098", "K", 1),
    "Chloride": _of("35.45", "Cl", 1),
    "Bicarbonate": _of("61.016", "CHO3", 1),
    "Carbon dioxide": _of("44.009", "CO2", 1),
    "Lithium": _of("6.94", "Li", 1),
    "Calcium": _of("40.078", "Ca", 2),
    "Calcium.ionized": _of("40.078", "Ca", 2),
    "Magnesium": _of("24.305", "Mg", 2),
    "Anion gap": Analyte(valence=1),
    # pH decides the charge of phosphate, so milliequivalents of it say nothing.
    "Phosphate": _of("30.974", "P"),
    # Metabolites
    "Glucose": _of("180.156", "C6H12O6"),
    "Creatinine": _of("113.120", "C4H7N3O"),
    "Urea": _of("60.056", "CH4N2O"),
    "Urea nitrogen": _of("28.014", "N2"),
    "Urate": _of("168.112", "C5H4N4O3"),
    "Bilirubin": _of("584.673", "C33H36N4O6"),
    "Bilirubin.direct": _of("584.673", "C33H36N4O6"),
    "Bilirubin.glucuronidated+Bilirubin.albumin bound": _of("584.673", "C33H36N4O6"),
    "Bilirubin.non-glucuronidated": _of("584.673", "C33H36N4O6"),
    "Bilirubin.indirect": _of("584.673", "C33H36N4O6"),
    "Lactate": _of("90.078", "C3H6O3", 1),
    "Pyruvate": _of("88.062", "C3H4O3"),
    "Beta hydroxybutyrate": _of("104.105", "C4H8O3"),
    "Ammonia": _of("17.031", "NH3"),
    "Homocysteine": _of("135.181", "C4H9NO2S"),
    # Lipids
    "Cholesterol": _of("386.664", "C27H46O"),
    "Cholesterol.total": _of("386.664", "C27H46O"),
    "Cholesterol.in HDL": _of("386.664", "C27H46O"),
    "Cholesterol.in LDL": _of("386.664", "C27H46O"),
    "Cholesterol.in VLDL": _of("386.664", "C27H46O"),
    "Cholesterol in HDL": _of("386.664", "C27H46O"),
    "Cholesterol in LDL": _of("386.664", "C27H46O"),
    "Cholesterol in VLDL": _of("386.664", "C27H46O"),
    "Cholesterol non HDL": _of("386.664", "C27H46O"),
    "Triglyceride": _of("885.453", "C57H104O6"),
    # Blood, metals
    "Hemoglobin": Analyte(Fraction("16114.5")),
    "Iron": _of("55.845", "Fe"),
    "Iron binding capacity": _of("55.845", "Fe"),
    "Iron binding capacity.unsaturated": _of("55.845", "Fe"),
    "Copper": _of("63.546", "Cu"),
    "Zinc": _of("65.38", "Zn"),
    "Selenium": _of("78.971", "Se"),
    "Lead": _of("207.2", "Pb"),
    "Mercury": _of("200.59", "Hg"),
    "Aluminum": _of("26.982", "Al"),
    # Hormones, vitamins
    "Cortisol": _of("362.466", "C21H30O5"),
    "Thyroxine": _of("776.856", "C15H11I4NO4"),
    "Thyroxine.free": _of("776.856", "C15H11I4NO4"),
    "Triiodothyronine": _of("650.964", "C15H12I3NO4"),
    "Triiodothyronine.free": _of("650.964", "C15H12I3NO4"),
    "Testosterone": _of("288.431", "C19H28O2"),
    "Testosterone.free": _of("288.431", "C19H28O2"),
    "Estradiol": _of("272.388", "C18H24O2"),
    "Progesterone": _of("314.469", "C21H30O2"),
    "25-Hydroxyvitamin D": _of("400.647", "C27H44O2"),
    "25-Hydroxyvitamin D3": _of("400.647", "C27H44O2"),
    "25-Hydroxyvitamin D2+25-Hydroxyvitamin D3": _of("400.647", "C27H44O2"),
    "1,25-Dihydroxyvitamin D": _of("416.646", "C27H44O3"),
    "Cobalamin (Vitamin B12)": _of("1355.388", "C63H88CoN14O14P"),
    "Cobalamins": _of("1355.388", "C63H88CoN14O14P"),
    "Folate": _of("441.404", "C19H19N7O6"),
    # Drugs
    "Acetaminophen": _of("151.165", "C8H9NO2"),
    "Salicylates": _of("138.122", "C7H6O3"),
    "Ethanol": _of("46.069", "C2H6O"),
    "Digoxin": _of("780.949", "C41H64O14"),
    "Phenytoin": _of("252.273", "C15H12N2O2"),
    "Carbamazepine": _of("236.274", "C15H12N2O"),
    "Valproate": _of("144.214", "C8H16O2"),
    "Theophylline": _of("180.167", "C7H8N4O2"),
    "Vancomycin": _of("1449.265", "C66H75Cl2N9O24"),
    # Enzymes: IFCC defines the international unit as 1 µmol of substrate a minute, which is U.
    "Alanine aminotransferase": _ENZYME,
    "Aspartate aminotransferase": _ENZYME,
    "Alkaline phosphatase": _ENZYME,
    "Gamma glutamyl transferase": _ENZYME,
    "Lactate dehydrogenase": _ENZYME,
    "Creatine kinase": _ENZYME,
    "Amylase": _ENZYME,
    "Triacylglycerol lipase": _ENZYME,
    "Lipase": _ENZYME,
    "Cholinesterase": _ENZYME,
}

HEMOGLOBIN_A1C: Final = frozenset({"Hemoglobin A1c/Hemoglobin.total", "Hemoglobin A1c"})
HEMOGLOBIN_A1C_SLOPE: Final = Fraction("0.09148")
HEMOGLOBIN_A1C_INTERCEPT: Final = Fraction("2.152")
"""NGSP % = 0.09148 x IFCC mmol/mol + 2.152 (IFCC and NGSP; Weykamp et al., Clin. Chem. 54 (2008)).

The two scales are not one ratio in two units: taken for one, 48 mmol/mol would be 4.8 %, not 6.5 %.
"""
