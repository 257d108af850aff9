"""A table with a declared mapping to the plan's features: rows of patients, every cell checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from common import limits
from common.errors import DataSourceError
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from site_client.sources.table_dates import NO_DATE, index_date_of
from site_client.sources.table_mapping import ROW_NUMBER, TableMapping
from site_client.sources.table_rows import Row, open_rows

MISSING_LEVEL = -1
TOO_FEW: Final = "R13"
"""Of a refusal for the number of patients, be it zero."""


@dataclass
class FeatureCounts:
    """What was found in one feature's column, as counts."""

    recorded: int = 0
    missing: int = 0
    out_of_range: int = 0
    unmapped: int = 0


@dataclass(frozen=True)
class PatientTable:
    """Rows of patients, values as the plan names them; one row each unless the plan allows more.

    Args:
        subject_ids: [rows], never leaves the agent.
        numeric: feature to float64 [rows], or [rows, bins] with time bins; NaN when missing.
        levels: feature to int64 [rows], index of the level, -1 when missing.
        label: float32 [rows], 0 or 1; NaN where it is not recorded, if such rows were asked for.
        counts: per feature.
        unlabelled: rows left out because their label is not recorded.
        index_time: datetime64 [rows], NaT where none is recorded; None: the source has no dates.
    """

    subject_ids: tuple[str, ...]
    numeric: dict[str, npt.NDArray[np.float64]]
    levels: dict[str, npt.NDArray[np.int64]]
    label: npt.NDArray[np.float32]
    counts: dict[str, FeatureCounts]
    unlabelled: int
    index_time: npt.NDArray[np.datetime64] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.subject_ids)

    @property
    def patients(self) -> int:
        """Number of patients."""
        return len(set(self.subject_ids))


def read_table(
    plan: StudyPlan,
    mapping: TableMapping,
    *,
    folder: Path,
    patients_min: int = 0,
    is_monitored: bool = False,
) -> PatientTable:
    """Read a site's table for one plan.

    Args:
        plan: names features, units, plausible ranges and levels.
        mapping: names columns and cell texts.
        folder: where site.toml lies; a relative path starts there.
        patients_min: of fewer nothing is asked but their number.
        is_monitored: keep rows without a label, let patients have come more than once, and believe
            a unit that is probably wrong: a report is there to show the change.

    Raises:
        DataSourceError: with file, line and column, never a value.
    """
    return _Reader(plan, mapping, folder / mapping.path, patients_min, is_monitored).read()


@dataclass
class _Reader:
    plan: StudyPlan
    mapping: TableMapping
    path: Path
    patients_min: int
    is_monitored: bool
    first_missing: DataSourceError | None = None
    counts: dict[str, FeatureCounts] = field(default_factory=dict)
    first_out_of_range: dict[str, int] = field(default_factory=dict)

    def read(self) -> PatientTable:
        """Read every row; see `read_table`."""
        self._check_mapping()
        table = open_rows(self.path, self.mapping)
        position = self._positions(table.columns)
        missing = {_key(text) for text in self.mapping.missing_values} | {""}
        absent = {
            item.name: missing
            | {_key(text) for text in self.mapping.features[item.name].missing_values}
            for item in self.plan.features
        }
        levels = self._level_maps()
        truth = {_key(text): 1.0 for text in self.mapping.label.positive}
        truth |= {_key(text): 0.0 for text in self.mapping.label.negative}
        subjects: dict[str, int] = {}
        subject_ids: list[str] = []
        columns: dict[str, list[float]] = {item.name: [] for item in self.plan.features}
        label: list[float] = []
        dates: list[np.datetime64] = []
        unlabelled = 0
        self.counts = {item.name: FeatureCounts() for item in self.plan.features}
        for row in table.rows:
            outcome = _key(row.cells[position[self.mapping.label.column]])
            if outcome in missing and not self.is_monitored:
                unlabelled += 1
                continue
            if outcome not in truth and outcome not in missing:
                raise self._refuse_cell(
                    row,
                    self.mapping.label.column,
                    "a label that the mapping does not name",
                    "one of the positive or negative texts under [source.label]",
                )
            subject_ids.append(self._subject(row, position, subjects))
            label.append(truth.get(outcome, math.nan))
            if self.mapping.index_date_column is not None:
                dates.append(self._date(row, self.mapping.index_date_column, position, missing))
            for feature in self.plan.features:
                source = self.mapping.features[feature.name]
                text = _key(row.cells[position[source.column]])
                is_absent = text in absent[feature.name]
                if isinstance(feature, NumericFeature):
                    value = self._number(row, feature, source.column, text, is_absent)
                else:
                    value = self._level(feature, text, is_absent, levels[feature.name])
                self._check_missing(row, feature, source.column, is_absent, value)
                columns[feature.name].append(value)
        self._check_whole(len(set(subject_ids)))
        return PatientTable(
            subject_ids=tuple(subject_ids),
            numeric={
                item.name: np.array(columns[item.name], dtype=np.float64)
                for item in self.plan.features
                if isinstance(item, NumericFeature)
            },
            levels={
                item.name: np.array(columns[item.name], dtype=np.int64)
                for item in self.plan.features
                if isinstance(item, CategoricalFeature)
            },
            label=np.array(label, dtype=np.float32),
            counts=self.counts,
            unlabelled=unlabelled,
            index_time=np.array(dates, "datetime64[us]") if dates else None,
        )

    def _check_mapping(self) -> None:
        for feature in self.plan.features:
            source = self.mapping.features.get(feature.name)
            where = f"[source.features.{feature.name}]"
            if source is None:
                raise _refuse_mapping(where, "a mapping of this feature of the plan", "none")
            if isinstance(feature, NumericFeature):
                if feature.time_bins is not None:
                    raise _refuse_mapping(
                        where,
                        "a source of events: a table has one value a row",
                        f"time_bins = {feature.time_bins} in the plan",
                    )
                if source.unit != feature.unit:
                    raise _refuse_mapping(
                        where, f'unit = "{feature.unit}", the plan\'s', f"unit = {source.unit!r}"
                    )
            else:
                unknown = set((source.values or {}).values()) - set(feature.levels)
                if source.values is None or unknown:
                    raise _refuse_mapping(
                        where,
                        f"`values` from cell texts to {', '.join(feature.levels)}",
                        ", ".join(sorted(unknown)) or "no `values`",
                    )

    def _positions(self, columns: tuple[str, ...]) -> dict[str, int]:
        wanted = [self.mapping.label.column]
        wanted += [self.mapping.features[item.name].column for item in self.plan.features]
        if self.mapping.subject_id != ROW_NUMBER:
            wanted.append(self.mapping.subject_id)
        if self.mapping.index_date_column is not None:
            wanted.append(self.mapping.index_date_column)
        absent = sorted(set(wanted) - set(columns))
        if absent:
            raise DataSourceError(
                f"{self.path.name}, line 1: column {absent[0]!r} is missing",
                expected=f"the column(s) {', '.join(repr(name) for name in absent)}",
                arrived=f"{len(columns)} other column(s)",
                todo="check `delimiter` under [source]"
                if len(columns) == 1
                else "correct the mapping in site.toml, or export the table with these columns",
            )
        return {name: index for index, name in enumerate(columns)}

    def _level_maps(self) -> dict[str, dict[str, int]]:
        maps: dict[str, dict[str, int]] = {}
        for feature in self.plan.features:
            values = self.mapping.features[feature.name].values
            if isinstance(feature, CategoricalFeature) and values is not None:
                maps[feature.name] = {
                    _key(text): feature.levels.index(level) for text, level in values.items()
                }
        return maps

    def _subject(self, row: Row, position: dict[str, int], subjects: dict[str, int]) -> str:
        column = self.mapping.subject_id
        subject = str(row.line) if column == ROW_NUMBER else row.cells[position[column]].strip()
        if not subject:
            raise self._refuse_cell(row, column, "a patient has no identifier", "an identifier")
        is_once = self.plan.privacy.rows_per_patient_max == 1 and not self.is_monitored
        if subject in subjects and is_once:
            raise self._refuse_cell(
                row,
                column,
                f"a patient stands here and on line {subjects[subject]}",
                "one row a patient, as rows_per_patient_max = 1 in the plan says",
            )
        subjects.setdefault(subject, row.line)
        return subject

    def _date(
        self, row: Row, column: str, position: dict[str, int], missing: set[str]
    ) -> np.datetime64:
        text = row.cells[position[column]].strip()
        date = NO_DATE if _key(text) in missing else index_date_of(text)
        if date is None:
            raise self._refuse_cell(row, column, "no date", "an ISO date, such as 2026-02-28")
        return date

    def _number(
        self, row: Row, feature: NumericFeature, column: str, text: str, is_missing: bool
    ) -> float:
        counts = self.counts[feature.name]
        if is_missing:
            counts.missing += 1
            return math.nan
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._refuse_cell(row, column, "text where a number belongs", "a number")
        if not feature.plausible_range[0] <= value <= feature.plausible_range[1]:
            counts.out_of_range += 1
            self.first_out_of_range.setdefault(feature.name, row.line)
            return math.nan
        counts.recorded += 1
        return value

    def _level(
        self, feature: CategoricalFeature, text: str, is_missing: bool, levels: dict[str, int]
    ) -> float:
        counts = self.counts[feature.name]
        if is_missing:
            counts.missing += 1
            return MISSING_LEVEL
        level = levels.get(text)
        if level is None:
            counts.unmapped += 1
            return MISSING_LEVEL
        counts.recorded += 1
        return level

    def _check_missing(
        self,
        row: Row,
        feature: NumericFeature | CategoricalFeature,
        column: str,
        is_absent: bool,
        value: float,
    ) -> None:
        # What values decide waits for the end: of few patients it is not asked at all, and with
        # many values out of range the unit is what is wrong.
        if feature.missing != "none_allowed":
            return
        if is_absent:
            self.first_missing = self.first_missing or self._refuse_cell(
                row, column, "a value is missing", "a value in every row"
            )
        elif isinstance(feature, CategoricalFeature) and value == MISSING_LEVEL:
            self.first_missing = self.first_missing or self._refuse_cell(
                row,
                column,
                "a text that the mapping does not name",
                f"one of the {len(self.mapping.features[feature.name].values or {})} texts in "
                f"`values` under [source.features.{feature.name}]",
            )

    def _check_whole(self, patients: int) -> None:
        if patients == 0:
            raise DataSourceError(
                f"{self.path.name}, line 1: the file has no labelled patient",
                expected="at least one row",
                arrived="none",
                todo="export the table again",
                number=TOO_FEW,
            )
        if patients < self.patients_min:
            raise too_few_patients()
        if self.first_missing is not None:
            raise self.first_missing
        for name, counts in self.counts.items():
            present = counts.recorded + counts.out_of_range
            if self.is_monitored:
                continue
            if present and counts.out_of_range > limits.OUT_OF_RANGE_FRACTION_MAX * present:
                column = self.mapping.features[name].column
                raise DataSourceError(
                    f"{self.path.name}, line {self.first_out_of_range[name]}, column {column!r}: "
                    "too many values are outside the plausible range",
                    expected=f"at most {limits.OUT_OF_RANGE_FRACTION_MAX:.0%} of the values of "
                    f"{name} outside the plan's range",
                    arrived="more; the unit is probably another one",
                    todo="check the unit of the column; convert it to the plan's unit",
                )
        for feature in self.plan.features:
            counts = self.counts[feature.name]
            if (
                isinstance(feature, NumericFeature)
                and feature.missing == "none_allowed"
                and counts.out_of_range
            ):
                column = self.mapping.features[feature.name].column
                low, high = feature.plausible_range
                raise DataSourceError(
                    f"{self.path.name}, line {self.first_out_of_range[feature.name]}, column "
                    f"{column!r}: {counts.out_of_range} value(s) are outside the plausible range",
                    expected=f"a value from {low:g} to {high:g} {feature.unit} in every row",
                    arrived="something else (values are never shown)",
                    todo="correct those cells at their origin, or leave those patients out",
                )

    def _refuse_cell(self, row: Row, column: str, what: str, expected: str) -> DataSourceError:
        return DataSourceError(
            f"{self.path.name}, line {row.line}, column {column!r}: {what}",
            expected=expected,
            arrived="something else (values are never shown)",
            todo="correct that cell at its origin, or the mapping in site.toml",
        )


def too_few_patients() -> DataSourceError:
    """Return the refusal of fewer patients than the site's minimum, which tells no more of them."""
    return DataSourceError(
        "the cohort is smaller than this site's minimum",
        expected="`cohort_size_min` of site.toml, or more",
        arrived="fewer patients",
        todo="wait for more patients; `cohortium-site check PLAN` says how many there are",
        number=TOO_FEW,
    )


def _key(text: str) -> str:
    """Return a cell's text so that 1, 1.0 and " 1" are one level."""
    stripped = text.strip()
    try:
        number = float(stripped)
    except ValueError:
        return stripped
    return f"{number:.17g}"


def _refuse_mapping(where: str, expected: str, arrived: str) -> DataSourceError:
    return DataSourceError(
        f"{where} in site.toml does not fit the plan",
        expected=expected,
        arrived=arrived,
        todo="correct site.toml",
    )
