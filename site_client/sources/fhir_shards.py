"""What FHIR's resources gave, on disk until every patient and medication of the source is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import duckdb
import pyarrow as arrow
from pyarrow import parquet

from site_client.sources.events import Exclusion
from site_client.sources.fhir_resources import Findings
from site_client.sources.source_files import run_sql, sql_file, sql_name, sql_text

_ROWS_MAX: Final = 50_000
_INPUT_BYTES_MAX: Final = 64 << 20
_PLACE: Final = "the FHIR folder"

_SCHEMAS: Final[dict[str, Any]] = {
    "rows": arrow.schema(
        [
            ("subject_id", arrow.string()),
            ("time", arrow.timestamp("us")),
            ("code", arrow.string()),
            ("numeric_value", arrow.float64()),
            ("unit", arrow.string()),
            ("text_value", arrow.string()),
            ("medication_id", arrow.string()),
        ]
    ),
    "patients": arrow.schema([("subject_id", arrow.string())]),
    "medications": arrow.schema(
        [
            ("medication_id", arrow.string()),
            ("code", arrow.string()),
            ("unmapped", arrow.string()),
        ]
    ),
}

_RESOLVED: Final = """
    SELECT events.subject_id, events.time, coalesce(events.code, medications.code) AS code,
        events.numeric_value, events.unit, events.text_value,
        CASE WHEN events.code IS NULL AND medications.code IS NULL THEN
                CASE WHEN medications.unmapped IS NULL THEN 'NO_CODE' ELSE 'UNMAPPED' END
            WHEN patients.subject_id IS NULL THEN 'NO_SUBJECT' END AS reason,
        medications.unmapped
    FROM read_parquet({rows}) AS events
    LEFT JOIN (SELECT DISTINCT subject_id FROM read_parquet({patients})) AS patients
        ON events.subject_id = patients.subject_id
    LEFT JOIN (
        SELECT medication_id, min(code) AS code, min(unmapped) AS unmapped
        FROM read_parquet({medications}) GROUP BY medication_id
    ) AS medications ON events.medication_id = medications.medication_id
"""


class Shards:
    """Rows, patients and medications as Parquet under one folder, written as they come.

    Args:
        folder: of this build alone.
        findings: is emptied into the files whenever enough has been read.
    """

    def __init__(self, folder: Path, findings: Findings) -> None:
        self._folder = folder
        self._findings = findings
        self._paths = {name: folder / f"{name}.parquet" for name in _SCHEMAS}
        self._writers: dict[str, Any] = {}
        self._bytes = 0

    def __enter__(self) -> Shards:
        for name, schema in _SCHEMAS.items():
            self._writers[name] = parquet.ParquetWriter(self._paths[name], schema)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._write()
        for writer in self._writers.values():
            writer.close()
        if error is not None:
            self.remove()

    def have_read(self, length: int) -> None:
        """Write what was found, when it or the bytes read since the last time are many."""
        self._bytes += length
        if self._bytes >= _INPUT_BYTES_MAX or len(self._findings.rows) >= _ROWS_MAX:
            self._write()

    def remove(self) -> None:
        """Delete the files."""
        for path in self._paths.values():
            path.unlink(missing_ok=True)

    def join(self, connection: duckdb.DuckDBPyConnection, table: str) -> None:
        """Create the view of events and count what only the whole source could tell."""
        query = _RESOLVED.format(**{name: sql_file(path) for name, path in self._paths.items()})
        kept = 0
        for reason, key, times in run_sql(
            connection,
            "SELECT reason, CASE WHEN reason = 'UNMAPPED' THEN unmapped END AS key, count(*)"  # noqa: S608 - own text, quoted paths
            f" FROM ({query}) GROUP BY ALL",
            place=_PLACE,
        ):
            if reason is None:
                kept = times
            elif reason == Exclusion.UNMAPPED.name:
                self._findings.leave_out_unmapped(key, times)
            else:
                self._findings.leave_out(Exclusion[reason], times)
        events = self._folder / "events.parquet"
        ((distinct,),) = run_sql(
            connection,
            f"COPY (SELECT DISTINCT * EXCLUDE (reason, unmapped) FROM ({query})"  # noqa: S608 - own text, quoted paths
            f" WHERE reason IS NULL) TO {sql_text(str(events))} (FORMAT parquet)",
            place=_PLACE,
        )
        if kept > distinct:
            self._findings.leave_out(Exclusion.DUPLICATE, kept - distinct)
        view = f"CREATE VIEW {sql_name(table)} AS FROM read_parquet({sql_file(events)})"
        run_sql(connection, view, place=_PLACE)

    def _write(self) -> None:
        found = self._findings
        self._bytes = 0
        _append(self._writers["rows"], found.rows)
        _append(self._writers["patients"], [(subject,) for subject in found.patients])
        _append(self._writers["medications"], found.medications)
        found.rows.clear()
        found.patients.clear()
        found.medications.clear()


def _append(writer: Any, rows: Sequence[tuple[object, ...]]) -> None:
    if not rows:
        return
    columns = [
        arrow.array(column, type=kind)
        for column, kind in zip(zip(*rows, strict=True), writer.schema.types, strict=True)
    ]
    writer.write_batch(arrow.record_batch(columns, schema=writer.schema))
