"""The report that may leave a site: built from a list of what may be shown, never by deletion.

Steps: (1) each patient counts once; (2) counts become parts of totals, and each total's parts pass
through `suppression`; (3) the document is made from these parts and from the plan alone. What is
not known to count patients (records, events, units' frequencies) has no place in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from common.study.plan import NumericFeature, StudyPlan
from site_client.features.index_dates import Attrition
from site_client.quality.document import Bars, Document, Section, TableOfFigures, plain_text
from site_client.quality.figures import FeatureFigures, QualityFigures
from site_client.quality.leakage import AUROC_SUSPICIOUS
from site_client.quality.local_report import EVENT_TIME, TABLE_TIME
from site_client.quality.suppression import (
    SHOWN_MIN,
    Hidden,
    Shared,
    Shown,
    count_text,
    shown_alone,
    shown_parts,
)

NOTICE: Final = (
    "Counts below 10 are not shown, others are rounded to 5, and further ones are held back where "
    "a small one could be worked out. This is disclosure control, not differential privacy, and "
    "it holds for one report: two reports a few patients apart can be compared. Cohortium sends "
    "this page nowhere; whether to send it is the hospital's decision."
)
NO_VALUE: Final = "no usable value"
NOT_SHOWN: Final = Hidden.NOT_SHOWN.value
OTHER_YEARS: Final = "other years"
_AUROC_STEP: Final = 20


@dataclass(frozen=True)
class SharedFeature:
    """One feature as it may leave.

    Args:
        name: the plan's.
        parts: levels or ranges of the plan and `NO_VALUE`; of all patients.
        lacking: patients without a usable value, in words.
        auroc: of the feature alone in words, to the nearest 0.05.
        units: recorded units of ten patients or more, and what is done with them.
    """

    name: str
    parts: tuple[Shared, ...]
    lacking: str
    auroc: str
    units: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class SharedFigures:
    """All that may leave; of everything else the report does not know.

    Args:
        patients: all.
        outcome: with and without; of all patients.
        features: in the plan's order.
        years: of index dates; of all patients. Empty where nobody can tell.
        left_out: patients whom each step of the cohort left out; parts of no total shown.
    """

    patients: Shown
    outcome: tuple[Shared, ...]
    features: tuple[SharedFeature, ...]
    years: tuple[Shared, ...]
    left_out: tuple[Shared, ...]


def shared_figures(plan: StudyPlan, figures: QualityFigures) -> SharedFigures:
    """Return what may leave of figures that count each patient once.

    Args:
        plan: a feature that it allows nobody to lack has no part for that.
        figures: of rows after `once_per_patient`.
    """
    positive = figures.positive
    outcome = _parts([("with the outcome", positive), ("without", figures.rows - positive)])
    is_assessed = not any(isinstance(item.count, Hidden) for item in outcome)
    return SharedFigures(
        patients=shown_alone(figures.rows),
        outcome=outcome,
        features=tuple(
            _feature(item, is_assessed=is_assessed, may_lack=asked.missing != "none_allowed")
            for item, asked in zip(figures.features, plan.features, strict=True)
        ),
        years=_years(figures.months or {}),
        left_out=_left_out(figures.attrition),
    )


def shareable_report(plan: StudyPlan, shared: SharedFigures, *, has_events: bool) -> Document:
    """Return the document of what may leave."""
    title = f"Data quality for {plain_text(plan.study.title)}"
    if isinstance(shared.patients, Hidden):
        few = f"There are fewer than {SHOWN_MIN} patients: nothing can be shown."
        return Document(title, NOTICE, (Section("Patients and outcome", (few,)),))
    rows = [("patients", count_text(shared.patients))]
    rows += [(item.label, item.text) for item in shared.outcome]
    tables = [TableOfFigures("Patients, each counted once", ("what", "count"), tuple(rows))]
    if shared.left_out:
        steps = tuple((item.label, item.text) for item in shared.left_out)
        tables.append(TableOfFigures("Left out of the cohort", ("step", "patients"), steps))
    sections = [
        Section("Patients and outcome", tables=tuple(tables)),
        _features(shared),
        Section(
            "Time coverage",
            () if shared.years else ("Not known: only monitoring reads a table's index dates.",),
            charts=(_bars("Patients by the year of their index date", "year", shared.years),)
            if shared.years
            else (),
        ),
        Section(
            "Likely leakage",
            (
                "The AUROC of each feature alone, to the nearest 0.05; above "
                f"{AUROC_SUSPICIOUS} is shown as such. Where few patients stand behind it, it is "
                "not shown.",
                EVENT_TIME if has_events else TABLE_TIME,
            ),
        ),
        Section(
            "Distributions",
            charts=tuple(
                _bars(_title(plan, item.name), "level or range", item.parts)
                for item in shared.features
            ),
        ),
    ]
    return Document(title, NOTICE, tuple(sections))


def _feature(item: FeatureFigures, *, is_assessed: bool, may_lack: bool) -> SharedFeature:
    counts = [(part.label, part.rows) for part in item.parts]
    if may_lack:
        counts.append((NO_VALUE, item.rows - item.recorded))
    parts = _parts(counts)
    levels, none = (parts[:-1], parts[-1]) if may_lack else (parts, None)
    return SharedFeature(
        name=item.name,
        parts=parts,
        lacking="none, says the plan" if none is None else none.text,
        auroc=_auroc(item, levels, none) if is_assessed else NOT_SHOWN,
        units=tuple(
            (
                "(none)" if unit.unit is None else plain_text(unit.unit),
                "used" if unit.left_out is None else f"left out: {unit.left_out}",
            )
            for unit in sorted(item.units or (), key=lambda unit: unit.unit or "")
            if unit.patients >= SHOWN_MIN
        ),
    )


def _auroc(item: FeatureFigures, levels: tuple[Shared, ...], none: Shared | None) -> str:
    """Return the area in words, if no count that is not shown moves it by much."""
    small = (Hidden.SMALL, Hidden.NOT_SHOWN)
    areas = []
    # A level of few patients moves a categorical feature's area; ranks do not tell ranges.
    if item.unit or not any(level.count in small for level in levels):
        areas.append(item.sole_auroc.value)
    if none is not None and not isinstance(none.count, Hidden):
        areas += [item.sole_auroc.missing, item.sole_auroc.both]
    largest = max((area for area in areas if area is not None), default=None)
    if largest is None:
        return NOT_SHOWN
    if largest > AUROC_SUSPICIOUS:
        return f"above {AUROC_SUSPICIOUS}"
    return f"{round(largest * _AUROC_STEP) / _AUROC_STEP:.2f}"


def _parts(counts: Sequence[tuple[str, int]]) -> tuple[Shared, ...]:
    shown = shown_parts([count for _, count in counts])
    return tuple(Shared(label, count) for (label, _), count in zip(counts, shown, strict=True))


def _years(months: Mapping[str, int]) -> tuple[Shared, ...]:
    years: dict[str, int] = {}
    for month, rows in months.items():
        years[month[:4]] = years.get(month[:4], 0) + rows
    # The first and last year of few patients would be an extreme value: they have no line.
    large = [year for year, rows in years.items() if rows >= SHOWN_MIN]
    if not large:
        return ()
    kept = [(year, rows) for year, rows in years.items() if large[0] <= year <= large[-1]]
    others = sum(years.values()) - sum(rows for _, rows in kept)
    return _parts([*kept, (OTHER_YEARS, others)])


def _left_out(attrition: tuple[Attrition, ...]) -> tuple[Shared, ...]:
    return tuple(
        Shared(after.step, shown_alone(before.patients - after.patients))
        for before, after in itertools.pairwise(attrition)
    )


def _features(shared: SharedFigures) -> Section:
    rows = [(item.name, item.lacking, item.auroc) for item in shared.features]
    heads = ("feature", f"patients with {NO_VALUE}", "AUROC alone")
    tables = [TableOfFigures("Features", heads, tuple(rows))]
    units = tuple((item.name, unit, what) for item in shared.features for unit, what in item.units)
    if units:
        caption = f"Recorded units of {SHOWN_MIN} patients or more"
        tables.append(TableOfFigures(caption, ("feature", "unit", "what is done"), units))
    return Section("Features", tables=tuple(tables))


def _bars(title: str, label: str, parts: tuple[Shared, ...]) -> Bars:
    counts = tuple(
        (
            plain_text(part.label),
            None if isinstance(part.count, Hidden) else part.count,
            part.text,
        )
        for part in parts
    )
    return Bars(title, label, counts)


def _title(plan: StudyPlan, name: str) -> str:
    [feature] = [item for item in plan.features if item.name == name]
    unit = f", {plain_text(feature.unit)}" if isinstance(feature, NumericFeature) else ""
    return f"{name}{unit}"
