"""The report for the site's own eyes: every count exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from common.study.plan import StudyPlan
from site_client.features.event_inspection import NAMED_PATIENTS_MIN
from site_client.quality.document import Bars, Document, Section, TableOfFigures, plain_text
from site_client.quality.figures import Concern, FeatureFigures, QualityFigures, SourceFigures
from site_client.quality.leakage import AUROC_SUSPICIOUS, OUTCOMES_MIN

NOTICE: Final = (
    "For this site's own eyes: the counts are exact. Nothing on this page was sent anywhere. What "
    "may be shown to others is the page that --shareable writes."
)
TABLE_TIME: Final = (
    "Whether a feature was known at the index date: not known. A table carries no times; ask "
    "whoever made it whether each column was known then."
)
EVENT_TIME: Final = (
    "Whether a feature was known at the index date: yes, by construction. Features are made from "
    "events of windows that end at the index date; a test on generated events holds it "
    "(test_no_event_after_the_index_date_changes_a_feature). An event is as early as the source "
    "says it is."
)
APART: Final = (
    "The same patient in training and held out: impossible, for a salted hash of the identifier "
    "decides; with row numbers or two identifiers for one patient nobody can tell."
)
_TABLE_UNITS: Final = (
    "In which units a table's values were recorded is not known: the mapping says the plan's unit, "
    "and only the plausible range checks it."
)
_MONTHS_SHOWN_MAX: Final = 120  # ten years; more is a chart that nobody reads
_UNMAPPED: Final = "Most frequent codes without a standard one"


def local_report(plan: StudyPlan, figures: QualityFigures, concerns: Sequence[Concern]) -> Document:
    """Return the report with exact counts."""
    charts = tuple(_distribution(item) for item in figures.features)
    sections = (
        _look(concerns),
        _rows(figures),
        _features(figures),
        _units(figures),
        _groups(figures) if figures.groups else None,
        _leakage(figures),
        _time(figures),
        None if figures.source is None else _source(figures.source),
        Section("Distributions", charts=charts),
    )
    return Document(
        f"Data quality for {plain_text(plan.study.title)}",
        NOTICE,
        tuple(section for section in sections if section is not None),
    )


def _look(concerns: Sequence[Concern]) -> Section:
    if not concerns:
        return Section("What needs a look", ("Nothing was found.",))
    items = tuple(f"{plain_text(item.text)}. To do: {item.todo}." for item in concerns)
    return Section("What needs a look", items=items)


def _rows(figures: QualityFigures) -> Section:
    counts = [
        ("rows with a known outcome", f"{figures.rows:,}"),
        ("patients", f"{figures.patients:,}"),
        ("rows with the outcome", f"{figures.positive:,} ({figures.prevalence:.1%})"),
        ("rows left out because the outcome is not recorded", f"{figures.unlabelled:,}"),
        ("rows that equal another in all features and the outcome", f"{figures.alike:,}"),
    ]
    tables = [TableOfFigures("Rows", ("what", "count"), tuple(counts))]
    if figures.attrition:
        steps = tuple(
            (item.step, f"{item.rows:,}", f"{item.patients:,}") for item in figures.attrition
        )
        tables.append(
            TableOfFigures("How the rows came about", ("after the step", "rows", "patients"), steps)
        )
    return Section("Patients and outcome", (APART,), tables=tuple(tables))


def _features(figures: QualityFigures) -> Section:
    rows = []
    for item in figures.features:
        met = item.events
        outside = item.out_of_range if met is None else met.implausible
        other = item.unmapped + sum(text.values for text in item.other_texts)
        rows.append(
            (
                item.name,
                f"{item.completeness:.1%}",
                f"{item.rows - item.recorded:,}",
                f"{outside:,}",
                f"{other:,}",
                f"{item.distinct:,}",
                ", ".join(f"{value:.4g}" for value in item.quantiles) or "–",
            )
        )
    heads = ("feature", "complete", "rows without a value", "out of range", "no level", "different")
    table = TableOfFigures("Features", (*heads, "5, 25, 50, 75, 95 %"), tuple(rows))
    unmet = [
        f"{item.name}: nobody has the level {plain_text(part.label)}"
        for item in figures.features
        if not item.unit and item.recorded
        for part in item.parts
        if part.rows == 0
    ]
    texts = tuple(
        (item.name, _shown_text(text.text, "all others"), f"{text.values:,}", f"{text.patients:,}")
        for item in figures.features
        for text in item.other_texts
    )
    tables = [table]
    if texts:
        heads_of_texts = ("feature", "recorded", "entries", "patients")
        caption = f"Entries that are no level, by name from {NAMED_PATIENTS_MIN} patients"
        tables.append(TableOfFigures(caption, heads_of_texts, texts))
    counted = "Out of range and no level count rows of a table, and events of a source of events."
    return Section("Features", (counted,), tuple(unmet), tuple(tables))


def _units(figures: QualityFigures) -> Section:
    if figures.source is None:
        return Section("Units", (_TABLE_UNITS,))
    rows = tuple(
        (
            item.name,
            _shown_text(unit.unit, "(none)"),
            f"{unit.values:,}",
            f"{unit.patients:,}",
            f"left out: {unit.left_out}"
            if unit.left_out is not None
            else f"{'converted' if unit.is_converted else 'as it is'} ({plain_text(item.unit)})",
            "–" if unit.median is None else f"{unit.median:.4g}",
        )
        for item in figures.features
        for unit in item.units or ()
    )
    heads = ("feature", "recorded unit", "values", "patients", "what is done", "median after it")
    return Section("Units", tables=(TableOfFigures("Units met", heads, rows),))


def _groups(figures: QualityFigures) -> Section:
    rows = tuple(
        (
            f"{item.feature} = {plain_text(item.level)}",
            f"{item.rows:,}",
            f"{item.positive:,}",
            f"{item.positive / item.rows:.1%}" if item.rows else "–",
        )
        for item in figures.groups
    )
    heads = ("group", "rows", "with the outcome", "share")
    return Section(
        "Groups whose performance is compared", tables=(TableOfFigures("Groups", heads, rows),)
    )


def _leakage(figures: QualityFigures) -> Section:
    def cell(area: float | None) -> str:
        return "not assessed" if area is None else f"{area:.3f}"

    rows = tuple(
        (
            item.name,
            cell(item.sole_auroc.value),
            cell(item.sole_auroc.missing),
            cell(item.sole_auroc.both),
            f"{item.recorded:,}",
        )
        for item in figures.features
    )
    heads = ("feature", "value", "being missing", "both", "rows with a value")
    text = (
        "The AUROC of each feature alone, in whichever direction, 0.5 to 1; above "
        f"{AUROC_SUSPICIOUS} it is likelier the outcome in disguise than a discovery. With fewer "
        f"than {OUTCOMES_MIN} rows of either outcome it is not assessed."
    )
    paragraphs = [text, TABLE_TIME if figures.source is None else EVENT_TIME]
    if figures.outcome_at_index is not None:
        paragraphs.append(
            f"Rows with the outcome's code at exactly the index time: {figures.outcome_at_index:,}."
        )
    return Section(
        "Likely leakage",
        tuple(paragraphs),
        tables=(TableOfFigures("What one feature tells", heads, rows),),
    )


def _time(figures: QualityFigures) -> Section:
    if figures.months is None:
        return Section(
            "Time coverage", ("Not known: only monitoring reads a table's index dates.",)
        )
    years: dict[str, int] = {}
    for month, rows in figures.months.items():
        if rows:  # de-identified data are spread over two hundred years
            years[month[:4]] = years.get(month[:4], 0) + rows
    return Section(
        "Time coverage",
        tables=(_counts("Index dates per year", ("year", "rows"), years),),
        charts=(_exact_bars("Index dates per month", "month", figures.months),)
        if len(figures.months) <= _MONTHS_SHOWN_MAX
        else (),
    )


def _source(source: SourceFigures) -> Section:
    return Section(
        "What the reader met",
        tables=(
            _counts("Records read", ("table or resource", "records"), source.records),
            _counts("Records left out", ("reason", "records"), source.excluded),
            _counts(
                "Most frequent codes without a standard one",
                ("code", "records"),
                source.unmapped_codes,
            ),
        ),
    )


def _distribution(item: FeatureFigures) -> Bars:
    unit = f", {plain_text(item.unit)}" if item.unit else ""
    none = item.rows - item.recorded
    counts = [(plain_text(part.label), part.rows, f"{part.rows:,}") for part in item.parts]
    counts.append(("no usable value", none, f"{none:,}"))
    return Bars(f"{item.name}{unit}", "range" if item.unit else "level", tuple(counts))


def _exact_bars(title: str, label: str, counts: Mapping[str, int]) -> Bars:
    return Bars(title, label, tuple((name, n, f"{n:,}") for name, n in counts.items()))


def _counts(caption: str, heads: tuple[str, str], counts: Mapping[str, int]) -> TableOfFigures:
    rows = tuple((plain_text(name), f"{number:,}") for name, number in counts.items())
    return TableOfFigures(caption, heads, rows)


def _shown_text(text: str | None, otherwise: str) -> str:
    return otherwise if text is None or not text.strip() else plain_text(text)
