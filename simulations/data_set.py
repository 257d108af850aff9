"""One source of patients on disk, from which a simulation makes several virtual sites."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import ConfigError, DataSourceError
from common.study.plan import StudyPlan
from simulations.patient_source import PatientSource
from site_client.sources.source_mapping import SourceMapping
from site_client.sources.table import PatientTable
from site_client.sources.table_mapping import ROW_NUMBER, TableMapping
from site_client.sources.table_rows import open_rows

_OF_A_SITE: Final = frozenset({"site", "limits", "features", "monitoring"})
"""Sections of a `site.toml` that say nothing about where patients come from."""
_SITES_COLUMNS: Final = ("subject_id", "site")
_NAMES_SHOWN_MAX: Final = 60


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    source: SourceMapping


class DataSet:
    """One source: a table, or events in OMOP, FHIR, MEDS or declared tables.

    Args:
        mapping: as `[source]` of `site.toml`.
        folder: where a relative path starts.
    """

    def __init__(self, mapping: SourceMapping, *, folder: Path) -> None:
        self.mapping = mapping
        self.folder = folder
        self._source = PatientSource(mapping, folder=folder)

    @classmethod
    def read(cls, file: Path) -> DataSet:
        """Return the data set that a TOML file with `[source]` describes; a `site.toml` will do.

        Raises:
            ConfigError: with every problem at once.
        """
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
            wanted = {key: value for key, value in document.items() if key not in _OF_A_SITE}
            return cls(_File.model_validate(wanted).source, folder=file.parent)
        except OSError as error:
            raise _refuse(file, error.strerror or type(error).__name__) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            raise _refuse(file, "a file that is not TOML") from None
        except ValidationError as error:
            places = "; ".join(
                f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
                for item in error.errors()
            )
            raise _refuse(file, places) from None

    def __getstate__(self) -> dict[str, Any]:
        # Rows that were read stay here: who gets the data set reads those that are asked for.
        return {"mapping": self.mapping, "folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["mapping"], folder=state["folder"])  # type: ignore[misc]

    def rows(self, plan: StudyPlan) -> PatientTable:
        """Return the plan's rows; raises `DataSourceError`."""
        return self._source.rows(plan)

    def column(self, name: str) -> dict[str, str]:
        """Return each patient's text in one column of a table, of the patient's first row.

        Raises:
            ConfigError: the source has no such column; says which there are.
            DataSourceError: the file cannot be read.
        """
        mapping = self.mapping
        if not isinstance(mapping, TableMapping):
            raise ConfigError(
                f"this data set has no column {name!r}",
                expected="a table, or a CSV file of subject_id,site that says who belongs where",
                arrived=f"a source of events of the kind {mapping.kind}, which has no columns",
                todo="name a CSV file in place of the column",
            )
        table = open_rows(self.folder / mapping.path, mapping)
        if name not in table.columns:
            raise ConfigError(
                f"this data set has no column {name!r}",
                expected=f"one of its columns: {_listed(table.columns)}",
                arrived=repr(name[:80]),
                todo="name one of them, spelt as it stands there",
            )
        place = table.columns.index(name)
        who = None if mapping.subject_id == ROW_NUMBER else _place(table.columns, mapping)
        found: dict[str, str] = {}
        for row in table.rows:
            subject_id = str(row.line) if who is None else row.cells[who].strip()
            found.setdefault(subject_id, row.cells[place].strip())
        return found

    @property
    def time_column(self) -> str | None:
        """The column of index dates that the mapping of a table names."""
        return self.mapping.index_date_column if isinstance(self.mapping, TableMapping) else None


def read_sites_file(file: Path) -> dict[str, str]:
    """Return the site of each patient from a CSV file with columns subject_id and site.

    Raises:
        ConfigError: when it cannot be read, has other columns, or puts a patient at two sites.
    """
    expected = f"a CSV file with the columns {' and '.join(_SITES_COLUMNS)}"
    found: dict[str, str] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not set(_SITES_COLUMNS) <= set(reader.fieldnames or ()):
                raise _refuse_sites(file, expected, f"columns {_listed(reader.fieldnames or ())}")
            for row in reader:
                subject_id, site = (str(row[name] or "").strip() for name in _SITES_COLUMNS)
                if found.setdefault(subject_id, site) != site:
                    raise _refuse_sites(
                        file, "one site for each patient", f"two sites, line {reader.line_num}"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        arrived = getattr(error, "strerror", None) or type(error).__name__
        raise _refuse_sites(file, expected, arrived) from None
    return found


def _place(columns: tuple[str, ...], mapping: TableMapping) -> int:
    if mapping.subject_id not in columns:
        raise DataSourceError(
            f"{Path(mapping.path).name}, line 1: column {mapping.subject_id!r} is missing",
            expected="the column that `subject_id` under [source] names",
            arrived=f"columns {_listed(columns)}",
            todo="correct `subject_id`, or export the table with this column",
        )
    return columns.index(mapping.subject_id)


def _listed(names: Any) -> str:
    shown = [str(name)[:80] for name in names]
    more = len(shown) - _NAMES_SHOWN_MAX
    return ", ".join(shown[:_NAMES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _refuse(file: Path, arrived: str) -> ConfigError:
    return ConfigError(
        f"the data set {file.name} cannot be read",
        expected=f"a TOML file {file} with [source] as in site.toml",
        arrived=arrived,
        todo="correct it; docs/table-source.md and the pages of the other sources describe it",
    )


def _refuse_sites(file: Path, expected: str, arrived: str) -> ConfigError:
    return ConfigError(
        f"the file of sites {file.name} is refused",
        expected=expected,
        arrived=arrived,
        todo="correct the file",
    )
