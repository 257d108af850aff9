"""The figures of data quality, exact, for the eyes of the site alone; as records for `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from site_client.features.event_inspection import TextMet, UnitMet
from site_client.features.index_dates import Attrition
from site_client.quality.leakage import SoleAuroc


@dataclass(frozen=True)
class Part:
    """A level or a range of values, and in how many rows it was met."""

    label: str
    rows: int
    positive: int


@dataclass(frozen=True)
class EventFates:
    """What became of a feature's events in the windows of rows, counted once for each row."""

    used: int
    no_value: int
    other_unit: int
    implausible: int


@dataclass(frozen=True)
class FeatureFigures:
    """One feature; of one with time bins, the last value known at the index date.

    Args:
        name: the plan's.
        unit: the plan's; empty for a categorical feature.
        rows: all of the site.
        recorded: rows with a usable value.
        out_of_range: of a table, rows; of a source of events, events; outside the plan's range.
        unmapped: rows of a table whose text the mapping does not name.
        parts: levels, or ranges between the plan's public bounds; their rows add up to `recorded`.
        quantiles: 5, 25, 50, 75 and 95 %, of a numeric feature with values.
        distinct: different values among those recorded.
        sole_auroc: how well it alone tells the outcome.
        events: what became of its events; None for a table, and for age.
        units: in which its values were recorded; None where nobody can tell.
        other_texts: recorded words that are no level of the plan's.
        outcome_codes: rows with a code of the outcome among the feature's own, in its window; None
            when they share no code, or where nobody can tell.
    """

    name: str
    unit: str
    rows: int
    recorded: int
    out_of_range: int
    unmapped: int
    parts: tuple[Part, ...]
    quantiles: tuple[float, ...]
    distinct: int
    sole_auroc: SoleAuroc
    events: EventFates | None = None
    units: tuple[UnitMet, ...] | None = None
    other_texts: tuple[TextMet, ...] = ()
    outcome_codes: int | None = None

    @property
    def completeness(self) -> float:
        """Share of rows with a usable value, 0 to 1."""
        return self.recorded / self.rows if self.rows else 0.0

    @property
    def missing(self) -> int:
        """Rows without a usable value for which no other reason is counted."""
        if self.events is not None:
            return self.rows - self.recorded
        return self.rows - self.recorded - self.out_of_range - self.unmapped

    def as_record(self) -> dict[str, object]:
        """Return a record for `--json`."""
        auroc = self.sole_auroc
        return {
            "name": self.name,
            "unit": self.unit,
            "recorded": self.recorded,
            "completeness": round(self.completeness, 4),
            "missing": self.missing,
            "out_of_range": self.out_of_range,
            "unmapped": self.unmapped,
            "parts": [asdict(item) for item in self.parts],
            "quantiles": list(self.quantiles),
            "distinct": self.distinct,
            "auroc_value": auroc.value,
            "auroc_missing": auroc.missing,
            "auroc_both": auroc.both,
            "auroc_rows": auroc.rows,
            "events": None if self.events is None else asdict(self.events),
            "units": None if self.units is None else [asdict(item) for item in self.units],
            "other_texts": [asdict(item) for item in self.other_texts],
            "outcome_codes": self.outcome_codes,
        }


@dataclass(frozen=True)
class GroupSize:
    """One level of a fairness group of the plan."""

    feature: str
    level: str
    rows: int
    positive: int


@dataclass(frozen=True)
class SourceFigures:
    """What the reader of a source of events met, in records.

    Args:
        records: read, per table or resource type.
        excluded: per reason in words.
        unmapped_codes: the most frequent codes without a standard one.
    """

    records: Mapping[str, int]
    excluded: Mapping[str, int]
    unmapped_codes: Mapping[str, int]


@dataclass(frozen=True)
class Concern:
    """Something that a steward should look at before approving.

    Args:
        kind: one word, the same for the same thing.
        subject: the feature, or empty.
        text: in plain words, with counts.
        todo: what to do.
    """

    kind: str
    subject: str
    text: str
    todo: str


@dataclass(frozen=True)
class QualityFigures:
    """All figures of one plan at one site.

    Args:
        rows: with a label.
        patients: of these rows.
        positive: rows with the outcome.
        unlabelled: rows of a table left out because their label is not recorded.
        alike: rows that are another row's equal in every feature and the label.
        features: in the plan's order.
        groups: of the plan's fairness groups.
        months: index dates per month, `2023-05`; None where nobody can tell.
        attrition: rows and patients after each step; empty for a table.
        source: None for a table.
        outcome_at_index: rows with an outcome's code at exactly the index time; None for a table.
    """

    rows: int
    patients: int
    positive: int
    unlabelled: int
    alike: int
    features: tuple[FeatureFigures, ...]
    groups: tuple[GroupSize, ...]
    months: Mapping[str, int] | None
    attrition: tuple[Attrition, ...]
    source: SourceFigures | None
    outcome_at_index: int | None

    @property
    def prevalence(self) -> float:
        """Share of rows with the outcome, 0 to 1."""
        return self.positive / self.rows if self.rows else 0.0

    def as_record(self) -> dict[str, object]:
        """Return a record for `--json`, exact: it stays at the site."""
        return {
            "rows": self.rows,
            "patients": self.patients,
            "positive": self.positive,
            "prevalence": round(self.prevalence, 4),
            "unlabelled": self.unlabelled,
            "alike": self.alike,
            "features": [item.as_record() for item in self.features],
            "groups": [asdict(item) for item in self.groups],
            "months": None if self.months is None else dict(self.months),
            "attrition": [asdict(item) for item in self.attrition],
            "source": None
            if self.source is None
            else {
                "records": dict(self.source.records),
                "excluded": dict(self.source.excluded),
                "unmapped_codes": dict(self.source.unmapped_codes),
            },
            "outcome_at_index": self.outcome_at_index,
        }
