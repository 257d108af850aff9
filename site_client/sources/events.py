"""The event table: one shape for every source, after the Medical Event Data Standard.

An event is what was recorded of one patient at one time under one code. Readers differ; what they
give does not, so that a plan's feature is the same column at every hospital.

| column | type | |
|---|---|---|
| subject_id | VARCHAR or BIGINT, never null | the patient as the source says; never leaves |
| time | TIMESTAMP or null | wall clock of the site's time zone; null: not bound to a time |
| code | VARCHAR, never null | vocabulary and code, as `LOINC/2160-0` |
| numeric_value | DOUBLE or null | finite |
| unit | VARCHAR or null | as recorded; UCUM where the source says so |
| text_value | VARCHAR or null | an answer in words, or as a code with its vocabulary |

Facts that every source records in a form of its own have one here: `BIRTH`, `DEATH`, `SEX`, and the
first and last moment of a stay, `Visit/...` and `VisitEnd/...` with the classes of `VisitClass`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

EVENT_COLUMNS: Final = ("subject_id", "time", "code", "numeric_value", "unit", "text_value")
EVENT_TYPES: Final = ("VARCHAR", "TIMESTAMP", "VARCHAR", "DOUBLE", "VARCHAR", "VARCHAR")

BIRTH: Final = "MEDS/BIRTH"
DEATH: Final = "MEDS/DEATH"
SEX: Final = "LOINC/46098-0"
"""Without time; `text_value` is one of `SEXES`."""
SEXES: Final = ("female", "male", "other", "unknown")

YEAR_MIN: Final = 1870
"""An earlier year is a placeholder of the source (0001-01-01, 1753-01-01), not a time."""


class VisitClass(StrEnum):
    """OMOP's standard visit concepts, and what the other formats' classes mean by them."""

    INPATIENT = "IP"
    EMERGENCY = "ER"
    EMERGENCY_AND_INPATIENT = "ERIP"
    OUTPATIENT = "OP"
    INTENSIVE_CARE = "ICU"


class Exclusion(StrEnum):
    """Why a record of a source is not an event, or is one with something missing."""

    NO_SUBJECT = "no patient, or one that the source does not have"
    NO_CODE = "no code"
    UNMAPPED = "a code without a standard one"
    TIME_UNREADABLE = "a time that cannot be read"
    TIME_IMPOSSIBLE = "a time before 1870 or after the data were taken"
    VALUE_UNREADABLE = "a number that cannot be read or is not finite; the event stays without it"
    ENTERED_IN_ERROR = "withdrawn by the source itself"
    DUPLICATE = "the same event a second time"


@dataclass
class SourceCounts:
    """What a reader met, as counts; exact counts stay at the site.

    Args:
        records: read, per table or resource type.
        excluded: per reason.
        unmapped: per source code, with its vocabulary; the most frequent are listed to the steward.
    """

    records: dict[str, int] = field(default_factory=dict)
    excluded: dict[Exclusion, int] = field(default_factory=dict)
    unmapped: dict[str, int] = field(default_factory=dict)


class EventSource(Protocol):
    """One source at a site, read into the event table.

    Readers stream: memory does not grow with the source. Records that are no event are counted, a
    file that is not what it says is one `DataSourceError` with file and line or field, and neither
    a count's key nor an error names a value of a patient's row.
    """

    def files(self) -> list[tuple[str, Path]] | None:
        """Return every file that decides the events, with a name of its own; None: a database.

        Raises:
            DataSourceError: there are none.
        """
        ...

    def fingerprint(self) -> str:
        """Return a digest of the snapshot: another one when the source's content may differ."""
        ...

    def write_events(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: str,
        *,
        scratch: Path,
        codes: frozenset[str] | None = None,
    ) -> SourceCounts:
        """Create a table or view of `EVENT_COLUMNS` in `EVENT_TYPES`, subject_id also as BIGINT.

        Args:
            connection: with no access to the network.
            table: its name there.
            scratch: a folder of this build, for what does not fit into memory.
            codes: those that will be asked for; events of others may be left out, not uncounted.

        A view over files is read with `source_files.run_sql` or `stream_sql`: what is damaged may
        show only then.

        Raises:
            DataSourceError: see above.
        """
        ...

    def descendants(self, codes: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """Return each code's narrower codes by the source's own vocabulary tables, itself included.

        A source without vocabulary tables knows none: each code stands for itself.
        """
        ...
