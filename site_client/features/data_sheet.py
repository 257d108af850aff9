"""An entry of the feature store in words: lineage, and a data sheet for the steward.

The sheet's headings are those of Gebru et al., "Datasheets for Datasets", CACM 64(12), 2021, with
the questions that one plan's rows at one site can answer. It holds exact counts: it is for the
site, and nothing sends it.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.clock import utc_text
from common.study.plan import NumericFeature, StudyPlan
from common.study.plan_file import plan_from_bytes
from site_client.features.store_entry import FeatureEntry, FeatureRecord, NamedCount
from site_client.sources.events import Exclusion

_UNMAPPED_SHOWN_MAX = 20


def data_sheet(entry: FeatureEntry, *, keep_days: int, is_in_use: bool) -> str:
    """Return lineage and data sheet as Markdown.

    Args:
        entry: of the store.
        keep_days: of the site.
        is_in_use: whether a running study uses the entry.

    Raises:
        PlanError: the plan is of another version of the software.
    """
    plan = plan_from_bytes(entry.plan.encode())
    parts = (
        f"# Features of {plan.study.title}",
        *_lineage(entry),
        *_motivation(plan),
        *_composition(entry, plan),
        *_collection(entry),
        *_preprocessing(entry),
        *_uses(entry, keep_days=keep_days, is_in_use=is_in_use),
    )
    return "\n".join(parts) + "\n"


def _lineage(entry: FeatureEntry) -> Iterable[str]:
    made = "the whole source"
    if entry.build == "increment":
        made = f"entry {entry.base}, {entry.recomputed} patients made anew"
    files = "a database"
    if entry.source.files:
        files = f"{len(entry.source.files)} files, {entry.source.size_bytes:,} bytes"
    return (
        "",
        "## Lineage",
        "",
        f"- entry: {entry.id}, built {utc_text(entry.built_at_s)} from {made}",
        f"- study plan: {entry.study_id}, digest {entry.key.plan_digest}",
        f"- source: {entry.source.kind}, {files}; fingerprint {entry.key.fingerprint}",
        f"- software: {entry.key.software}",
        *(
            f"- {name}: {file.size_bytes:,} bytes, SHA-256 {file.sha256}"
            for name, file in sorted(entry.files.items())
        ),
    )


def _motivation(plan: StudyPlan) -> Iterable[str]:
    return (
        "",
        "## Motivation",
        "",
        f"- for: {plan.study.purpose}",
        f"- lawful basis: {plan.study.lawful_basis}",
        f"- contact: {plan.study.contact}",
    )


def _composition(entry: FeatureEntry, plan: StudyPlan) -> Iterable[str]:
    share = entry.positive / entry.rows if entry.rows else 0.0
    index = plan.cohort.index_date
    records = {item.name: item for item in entry.features}
    return (
        "",
        "## Composition",
        "",
        f"- who: {plan.cohort.description}",
        f"- a row: {index.description if index else 'as in the table'}",
        f"- {entry.rows} rows of {entry.patients} patients",
        f"- outcome: {plan.label.description}; {entry.positive} rows ({share:.1%})",
        "- values are raw, in the plan's units, before clipping and scaling; missing stays missing",
        "",
        "| feature | what | codes | window | has a value | implausible |",
        "|---|---|---|---|---|---|",
        *(
            f"| {item.name} | {item.description}"
            f"{f', {item.aggregate}, {item.unit}' if isinstance(item, NumericFeature) else ''} "
            f"| {records[item.name].codes or 'date of birth'} | {item.window_days} d "
            f"| {_complete(records[item.name], entry.rows)} | {records[item.name].implausible} |"
            for item in plan.features
            if item.name in records
        ),
    )


def _complete(record: FeatureRecord, rows: int) -> str:
    return f"{record.recorded / rows:.1%}" if rows else "0 %"


def _collection(entry: FeatureEntry) -> Iterable[str]:
    return (
        "",
        "## Collection",
        "",
        f"- read: {_listed(entry.records)} records",
        *(f"- left out, {Exclusion[item.name].value}: {item.count}" for item in entry.excluded),
        *(
            f"- without a standard code: {item.name}, {item.count}"
            for item in entry.unmapped[:_UNMAPPED_SHOWN_MAX]
        ),
        "",
        "| step | rows left | patients left |",
        "|---|---|---|",
        *(f"| {item.step} | {item.rows} | {item.patients} |" for item in entry.attrition),
    )


def _preprocessing(entry: FeatureEntry) -> Iterable[str]:
    return (
        "",
        "## Preprocessing",
        "",
        "| feature | unit as recorded: factor, offset to the plan's | used | without a value | in "
        "another unit |",
        "|---|---|---|---|---|",
        *(
            f"| {item.name} | {_units(item)} | {item.used} | {item.no_value} | {item.other_unit} |"
            for item in entry.features
            if item.codes
        ),
    )


def _units(item: FeatureRecord) -> str:
    return "; ".join(
        f"{unit.unit or '(none)'}: {unit.factor}, {unit.offset}" for unit in item.units
    )


def _uses(entry: FeatureEntry, *, keep_days: int, is_in_use: bool) -> Iterable[str]:
    until = "the study's approval ends" if is_in_use else f"it is {keep_days} days old"
    return (
        "",
        "## Uses, distribution, maintenance",
        "",
        "- for: training, evaluation and monitoring of exactly this plan at this site",
        "- not for: another question; the rows were chosen for this outcome and cohort",
        "- limits: care that was not recorded at this site is missing; a value is what was "
        "recorded, not what was true; patients are those of one hospital",
        "- nothing of it leaves the site; what training releases of it is noised and in the ledger",
        f"- kept until {until}; `cohortium-site features drop {entry.id}` deletes it before",
    )


def _listed(counts: Iterable[NamedCount]) -> str:
    return ", ".join(f"{item.name} {item.count:,}" for item in counts if item.count) or "0"
