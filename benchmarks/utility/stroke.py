"""The International Stroke Trial as sites: its hospitals, or its countries."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from benchmarks.utility.questions import (
    INFINITY,
    Choice,
    Question,
    auroc,
    auroc_of_all,
    make_plan,
    mean_of_sites,
    split_stratified,
)
from common.study.plan import NumericFeature, StudyPlan
from simulations.virtual_site import VirtualSite, site_salt
from site_client.features.matrix import build_matrix
from site_client.sources.table import PatientTable, read_table
from site_client.sources.table_mapping import FeatureMapping, LabelMapping, TableMapping

HOSPITAL_MIN: Final = 100
COUNTRY_MIN: Final = 50
_DEFICITS: Final = (
    "face",
    "arm",
    "leg",
    "speech",
    "visual_field",
    "visuospatial",
    "brainstem",
    "other",
)
_STRONG: Final = frozenset(
    [
        "age",
        "impaired_consciousness",
        "unconscious",
        "atrial_fibrillation",
        "tacs",
        *(f"deficit_{name}" for name in _DEFICITS[1:6]),
        "unassessable_visual_field",
        "unassessable_visuospatial",
    ]
)
"""What textbooks name first for the outcome of a stroke; the other features are minor."""

REGIONS: Final = {
    "british_isles": ("uk", "eire"),
    "italy": ("ital",),
    "alpine_countries": ("swit", "aust"),
    "nordic_countries": ("swed", "norw", "finl", "denm"),
    "low_countries_and_france": ("neth", "belg", "fran"),
    "other_mediterranean": ("spai", "port", "gree", "turk", "isra"),
    "eastern_europe": ("pola", "czec", "hung", "slok", "slov", "roma"),
    "australasia_and_north_america": ("ausl", "new", "usa", "cana"),
    "latin_america": ("arge", "bras", "chil"),
}
"""Parts of the world by the trial's names of countries; Asia and Africa are in none of them."""

Row = dict[str, str]


@lru_cache(maxsize=1)
def read_trial(folder: Path) -> tuple[Row, ...]:
    """Return the trial's patients with known outcome, baseline columns only, as texts."""
    with gzip.open(folder / "stroke_ist" / "IST.csv.gz") as stream:
        text = io.TextIOWrapper(stream, encoding="latin-1", newline="")
        rows = [
            (number, row)
            for number, row in enumerate(csv.DictReader(text))
            if row["OCCODE"] in ("1", "2", "3", "4")
        ]
    return tuple(_features(number, row) for number, row in rows)


def _features(number: int, row: Row) -> Row:
    found = {
        "patient": str(number),
        "hospital": f"hospital-{int(float(row['HOSPNUM']))}",
        "country": row["COUNTRY"].strip().lower(),
        "outcome": row["OCCODE"],
        "age": row["AGE"],
        "delay": row["RDELAY"],
        "systolic_bp": row["RSBP"],
        "male": _is(row["SEX"], "M"),
        "impaired_consciousness": _is(row["RCONSC"], "D", "U"),
        "unconscious": _is(row["RCONSC"], "U"),
        "noticed_on_waking": _is(row["RSLEEP"], "Y"),
        "atrial_fibrillation": _is(row["RATRIAL"], "Y"),
        "ct_done": _is(row["RCT"], "Y"),
        "infarct_visible": _is(row["RVISINF"], "Y"),
        "tacs": _is(row["STYPE"], "TACS"),
        "lacs": _is(row["STYPE"], "LACS"),
        "pocs": _is(row["STYPE"], "POCS"),
    }
    for region, countries in REGIONS.items():
        found[region] = _is(found["country"], *countries)
    for index, name in enumerate(_DEFICITS, start=1):
        found[f"deficit_{name}"] = _is(row[f"RDEF{index}"], "Y")
        found[f"unassessable_{name}"] = _is(row[f"RDEF{index}"], "C")
    return found


def _is(cell: str, *texts: str) -> str:
    return "1" if cell.strip() in texts else "0"


def stroke_plan(choice: Choice, epsilon: float, *, is_death: bool) -> StudyPlan:
    """Return the plan for death, or for dead or dependent, at six months."""
    names = {item.name for item in make_plan("stroke.toml", choice, epsilon).features}
    changes: dict[str, dict[str, object]] = (
        {"evaluation": {"held_out_fraction": 0.3}}
        if is_death
        else {
            "label": {
                "name": "dead_or_dependent",
                "description": "Dead, or dependent on others in daily life, at six months",
            },
            "evaluation": {"held_out_fraction": 0.25},
        }
    )
    return make_plan(
        "stroke.toml",
        choice,
        epsilon,
        minor=frozenset(names - _STRONG),
        changes=changes,
        more_features=() if is_death else [_region_feature(name) for name in REGIONS],
    )


def _region_feature(name: str) -> dict[str, object]:
    """Return where a patient is treated as a feature: where people live differs in outcome."""
    return {
        "kind": "numeric",
        "name": name,
        "description": "Treated in this part of the world; 1 yes, 0 no",
        "codes": ["IST/COUNTRY"],
        "unit": "1",
        "plausible_range": [-1, 1],
        "clip": [-1, 1],
        "missing": "none_allowed",
    }


def hospital_rows(rows: tuple[Row, ...], *, large: bool) -> dict[str, list[Row]]:
    """Return the rows of each hospital with at least `HOSPITAL_MIN` patients, or of the others."""
    sizes = Counter(row["hospital"] for row in rows)
    return _by(
        "hospital", [row for row in rows if (sizes[row["hospital"]] >= HOSPITAL_MIN) == large]
    )


def country_rows(rows: tuple[Row, ...]) -> dict[str, list[Row]]:
    """Return the rows of each country; those of few patients together as one."""
    sizes = Counter(row["country"] for row in rows)
    return _by(
        "country",
        [
            row if sizes[row["country"]] >= COUNTRY_MIN else {**row, "country": "small-countries"}
            for row in rows
        ],
    )


def _by(column: str, rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return dict(sorted(groups.items()))


def read_sites(groups: dict[str, list[Row]], plan: StudyPlan) -> dict[str, PatientTable]:
    """Write each site's table and read it back as a site does."""
    names = [item.name for item in plan.features]
    positive = ("1",) if plan.label.name == "death" else ("1", "2")
    tables: dict[str, PatientTable] = {}
    with tempfile.TemporaryDirectory(prefix="cohortium-stroke-") as folder:
        for site_id, rows in groups.items():
            path = Path(folder) / f"{site_id}.csv"
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(
                    stream, ["patient", "outcome", *names], extrasaction="ignore"
                )
                writer.writeheader()
                writer.writerows(rows)
            mapping = TableMapping(
                kind="table",
                path=str(path),
                subject_id="patient",
                label=LabelMapping(
                    column="outcome",
                    positive=positive,
                    negative=tuple(code for code in ("1", "2", "3", "4") if code not in positive),
                ),
                features={
                    item.name: FeatureMapping(column=item.name, unit=item.unit)
                    for item in plan.features
                    if isinstance(item, NumericFeature)
                },
            )
            tables[site_id] = read_table(plan, mapping, folder=Path(folder))
    return tables


def make_sites(
    tables: dict[str, PatientTable], plan: StudyPlan, seed: int, *, is_stratified: bool = False
) -> list[VirtualSite]:
    """Return the sites of one seed.

    Args:
        is_stratified: split within each site by outcome; else by the plan's salted hash, with a
            salt of that seed.
    """
    sites: list[VirtualSite] = []
    for site_id, table in tables.items():
        salt = site_salt(site_id, f"seed {seed}".encode())
        matrix = build_matrix(table, plan, salt=salt)
        if is_stratified:
            held_out = plan.evaluation.held_out_fraction
            matrix = split_stratified(
                matrix, plan, train_size=1 - held_out, test_size=held_out, seed=seed
            )
        # Declared sizes are public and round: to the nearest ten.
        sites.append(VirtualSite(site_id, round(len(table.label), -1), matrix))
    return sites


# Chosen by `python -m benchmarks.utility.choose`, which sees no patient held out here.
_HOSPITAL_CHOICES: Final = {
    INFINITY: Choice(rounds=40, clipping_norm=1.0, step=16.0, weight_decay=0.003, minor_scale=0.5),
    3.0: Choice(rounds=20, clipping_norm=0.6, step=8.0, minor_scale=1.0),
    1.0: Choice(rounds=20, clipping_norm=0.6, step=4.0, minor_scale=0.25),
}
_COUNTRY_CHOICES: Final = {
    INFINITY: Choice(rounds=10, clipping_norm=1.0, step=8.0),
    3.0: Choice(rounds=10, clipping_norm=1.0, step=8.0),
    1.0: Choice(rounds=10, clipping_norm=1.0, step=8.0),
    0.5: Choice(rounds=10, clipping_norm=1.0, step=4.0),
}


def stroke_questions(folder: Path) -> tuple[Question, Question, Question]:
    """Return the benchmark of the countries and the two of the hospitals."""

    def plan(is_death: bool) -> Callable[[Choice, float], StudyPlan]:
        return lambda choice, epsilon: stroke_plan(choice, epsilon, is_death=is_death)

    def sites(
        groups: dict[str, list[Row]], *, is_stratified: bool = False
    ) -> Callable[[StudyPlan, int], list[VirtualSite]]:
        tables: dict[str, PatientTable] = {}

        def of_seed(of_plan: StudyPlan, seed: int) -> list[VirtualSite]:
            if not tables:
                tables.update(read_sites(groups, of_plan))
            return make_sites(tables, of_plan, seed, is_stratified=is_stratified)

        return of_seed

    rows = read_trial(folder)
    hospitals = Question(
        name="stroke-hospitals",
        title="Stroke trial, 49 hospitals: death within six months",
        protocol="International Stroke Trial, the 49 hospitals with at least 100 patients of "
        "known outcome (8,149 patients), baseline columns only; 30 % of the patients of each held "
        "out, as many of each outcome as the hospital's share; mean of the hospitals' AUROCs.",
        figure=mean_of_sites(auroc),
        site_figure=auroc,
        choices=_HOSPITAL_CHOICES,
        targets={INFINITY: 0.80, 3.0: 0.785, 1.0: 0.775},
        plan=plan(True),
        sites=sites(hospital_rows(rows, large=True), is_stratified=True),
    )
    return (
        Question(
            name="stroke-countries",
            title="Stroke trial, 32 countries: dead or dependent at six months",
            protocol="International Stroke Trial, 19,285 patients with known outcome, baseline "
            "columns only, the part of the world among them; countries are sites, those under 50 "
            "patients together as one; 25 % of the patients of each held out by the plan's salted "
            "hash; AUROC of all held-out patients together.",
            figure=auroc_of_all,
            site_figure=auroc,
            choices=_COUNTRY_CHOICES,
            targets={INFINITY: 0.804, 3.0: 0.802, 1.0: 0.799, 0.5: 0.796},
            plan=plan(False),
            sites=sites(country_rows(rows)),
        ),
        hospitals,
        replace(
            hospitals,
            name="stroke-hospitals-own-split",
            title="Stroke trial, 49 hospitals: death within six months, the plan's own split",
            protocol="As stroke-hospitals, but held out by the plan's salted hash, which knows no "
            "outcome: some hospitals hold out one or two deaths, so the mean varies more.",
            sites=sites(hospital_rows(rows, large=True)),
        ),
    )
