"""Whose rows a report counts: one row of each patient with an index date in the period.

The source is read as it is now: patients of a period are those who came after training. Only the
reference is of the rows with which the study began here.
"""

from __future__ import annotations

import datetime
import hashlib

import numpy as np
import numpy.typing as npt

from common.errors import DataSourceError
from common.privacy.patient_parts import patient_parts
from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_digest
from common.study.report_periods import REFERENCE, Period, report_due_s
from common.study.report_tensors import ReportKind
from site_client.config import SitePaths
from site_client.feature_use import FeaturePins
from site_client.features.matrix import patient_part
from site_client.features.site_rows import SiteRows, read_rows
from site_client.features.store import FeatureStore
from site_client.features.store_build import read_entry
from site_client.source_pin import SourcePin
from site_client.sources.source_mapping import SourceMapping
from site_client.sources.table import PatientTable

Times = npt.NDArray[np.datetime64]


class MonitoredRows:
    """Rows of one site for reports; a source is read once for each kind of row that is asked for.

    Args:
        mapping: `[source]` of `site.toml`.
        paths: of the site.
        salt: the site's secret.
        pin: what the patients of earlier releases were identified by.
        feature_pins: with which rows studies began here.
        patients_min: of the site, over all its patients.
    """

    def __init__(
        self,
        mapping: SourceMapping,
        *,
        paths: SitePaths,
        salt: bytes,
        pin: SourcePin | None,
        feature_pins: FeaturePins | None,
        patients_min: int,
    ) -> None:
        self._mapping = mapping
        self._paths = paths
        self._salt = salt
        self._pin = pin
        self._feature_pins = feature_pins
        self._patients_min = patients_min
        self._read: dict[tuple[str, bool], tuple[PatientTable, Times]] = {}

    def of_period(self, plan: StudyPlan, kind: ReportKind, period: Period) -> PatientTable:
        """Return one row of each patient of a period; a case mix asks for no outcome.

        Raises:
            DataSourceError: the data do not fit the plan, have no index dates, or are declared to
                end before the report is due.
        """
        self._check_end(report_due_s(plan, kind, period))
        table, times = self._now(plan, is_labelled=kind is ReportKind.OUTCOME)
        begin, end = (np.datetime64(moment, "s") for moment in (period.begin_s, period.end_s))
        chosen = np.flatnonzero((times >= begin) & (times < end))
        return one_row_each(table, times, chosen, label=period.label, salt=self._salt)

    def of_reference(self, plan: StudyPlan, *, before_s: int) -> PatientTable:
        """Return one row of each held-out patient of the rows with which the study began here.

        Args:
            plan: of the study.
            before_s: where those rows are not kept, the source's with an earlier index date count.

        Raises:
            DataSourceError: as `of_period`.
        """
        held_out = patient_parts(plan.evaluation).held_out
        table, times = self._of_training(plan, before_s)
        parts = [patient_part(item, salt=self._salt) for item in table.subject_ids]
        chosen = np.flatnonzero([held_out.first <= part < held_out.stop for part in parts])
        return one_row_each(table, times, chosen, label=REFERENCE, salt=self._salt)

    def check_pin(self) -> None:
        """Pin what tells patients apart before the first report; raises `DataSourceError`."""
        if self._pin is not None:
            self._pin.check(self._mapping, folder=self._paths.home, salt=self._salt)

    def _check_end(self, due_s: int) -> None:
        # What is declared is no secret; to ask the newest row would be to ask one patient.
        until: datetime.date | None = getattr(self._mapping, "data_until", None)
        due = datetime.datetime.fromtimestamp(due_s, datetime.UTC).replace(tzinfo=None)
        if until is not None and datetime.datetime.combine(until, datetime.time()) < due:
            raise DataSourceError(
                "the data end before this report can be made",
                expected=f"data until {due.isoformat(' ')} or later",
                arrived=f"data_until = {until.isoformat()} under [source]",
                todo="make the extract anew and move `data_until`; nothing was charged",
            )

    def _of_training(self, plan: StudyPlan, before_s: int) -> tuple[PatientTable, Times]:
        entry_id = self._feature_pins.find(plan_digest(plan)) if self._feature_pins else None
        if entry_id is not None:
            store = FeatureStore(self._paths.features)
            try:
                rows = read_entry(store, store.entry(entry_id))
            except DataSourceError:
                pass  # dropped or damaged: the same patients are in the source
            else:
                return rows.table, _times_of(rows)
        table, times = self._now(plan, is_labelled=True)
        earlier = np.flatnonzero(times < np.datetime64(before_s, "s"))
        return take_rows(table, earlier), times[earlier]

    def _now(self, plan: StudyPlan, *, is_labelled: bool) -> tuple[PatientTable, Times]:
        key = (plan_digest(plan), is_labelled)
        if key not in self._read:
            rows = read_rows(
                plan if is_labelled else _without_follow_up(plan),
                self._mapping,
                folder=self._paths.home,
                scratch=self._paths.scratch,
                patients_min=self._patients_min,
                is_monitored=True,
            )
            table, times = rows.table, _times_of(rows)
            if is_labelled:
                known = np.flatnonzero(~np.isnan(table.label))
                table, times = take_rows(table, known), times[known]
            self._read[key] = (table, times)
        return self._read[key]


def one_row_each(
    table: PatientTable,
    times: Times,
    chosen: npt.NDArray[np.int64],
    *,
    label: str,
    salt: bytes,
) -> PatientTable:
    """Return one of each patient's chosen rows, in the order of the table.

    The draw is by a salted hash of patient, period and row, so that whoever makes a report again
    counts the same row, and so do both reports of a period when the same rows stand to the draw.

    Args:
        table: of rows.
        times: index dates [rows].
        chosen: places of the rows of the period, rising.
        label: of the period.
        salt: the site's secret.
    """
    lots: dict[str, tuple[bytes, int]] = {}
    met: dict[tuple[str, int], int] = {}
    moments = times.astype("datetime64[us]").astype(np.int64)
    for row in chosen.tolist():
        subject, moment = table.subject_ids[row], int(moments[row])
        ordinal = met[subject, moment] = met.get((subject, moment), -1) + 1
        text = f"{label}\0{moment}\0{ordinal}\0{subject}".encode()
        lot = hashlib.sha256(b"cohortium/period-row\0" + salt + text).digest()
        lots[subject] = min(lots.get(subject, (lot, row)), (lot, row))
    return take_rows(table, np.array(sorted(row for _, row in lots.values()), dtype=np.int64))


def take_rows(table: PatientTable, places: npt.NDArray[np.int64]) -> PatientTable:
    """Return some rows of a table; its counts stay those of all rows."""
    return PatientTable(
        subject_ids=tuple(table.subject_ids[place] for place in places.tolist()),
        numeric={name: values[places] for name, values in table.numeric.items()},
        levels={name: levels[places] for name, levels in table.levels.items()},
        label=table.label[places],
        counts=table.counts,
        unlabelled=table.unlabelled,
    )


def _without_follow_up(plan: StudyPlan) -> StudyPlan:
    """Return the plan with rows of patients who have not been followed to the outcome's end yet."""
    return plan.model_copy(update={"label": plan.label.model_copy(update={"follow_up": "assumed"})})


def _times_of(rows: SiteRows) -> Times:
    times = rows.table.index_time if rows.events is None else rows.events.index_time
    if times is None:
        raise DataSourceError(
            "this table does not say when a patient's row begins",
            expected="`index_date_column` under [source]",
            arrived="none",
            todo="name the column of the index date; see docs/table-source.md",
        )
    return times
