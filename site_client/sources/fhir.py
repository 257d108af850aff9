"""A folder of FHIR R4 (bulk export and bundles) as the event table.

Source: HL7 FHIR R4 (hl7.org/fhir/R4), Bulk Data Access 2.0 (NDJSON), docs/fhir-source.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from common.errors import ConfigError, DataSourceError
from site_client.sources.code_map import merge_code_maps
from site_client.sources.events import SourceCounts
from site_client.sources.fhir_elements import Element, NotFhir, References
from site_client.sources.fhir_files import Document, documents, fhir_files, refuse, safe_name
from site_client.sources.fhir_resources import Findings, read_resource
from site_client.sources.fhir_shards import Shards
from site_client.sources.fhir_times import WallClock
from site_client.sources.fhir_types import RESOURCE_TYPES, UNKNOWN_TYPE
from site_client.sources.file_refusal import refuse_file
from site_client.sources.snapshot import end_of_data, snapshot_digest

if TYPE_CHECKING:
    import duckdb

_BUNDLE_TYPES: Final = frozenset({"collection", "transaction", "batch", "searchset"})
_URN: Final = "urn:"
_MESSAGES: Final = frozenset({"request", "response"})
_TODO: Final = "export it again, or move what is not FHIR R4 out of the folder"


class FhirFolder:
    """FHIR R4 resources in `*.ndjson`, `*.json` and both with `.gz`, in any depth of folders.

    Args:
        folder: of the files.
        time_zone: of the site, an IANA name such as "Europe/London"; times with an offset are
            converted to its wall clock.
        data_until: the first day after the data; by default see `end_of_data`.
        code_map: the site's own codes, `system|code`, to standard ones; goes before any coding.
        code_maps: by name, files of the same; see `code_map.py`.

    Raises:
        ConfigError: the time zone is not known.
    """

    def __init__(
        self,
        folder: Path,
        time_zone: str,
        *,
        data_until: date | None = None,
        code_map: Mapping[str, str] | None = None,
        code_maps: Mapping[str, Path] | None = None,
    ) -> None:
        self._folder = folder
        self._until = data_until
        self._code_map = dict(code_map or {})
        self._code_maps = dict(code_maps or {})
        self._zone = _zone(time_zone)

    def files(self) -> list[tuple[str, Path]]:
        """Return the files that decide the events, by a name of their own; see `EventSource`."""
        exported = [(path.relative_to(self._folder).as_posix(), path) for path in self._files()]
        return exported + [(f"code map {name}", path) for name, path in self._code_maps.items()]

    def fingerprint(self) -> str:
        """Return a digest of time zone, `data_until` and code map, and of the files' content."""
        until = self._until.isoformat() if self._until else None
        declared = {"data_until": until, "time_zone": self._zone.key, "code_map": self._code_map}
        return snapshot_digest("fhir-folder", declared, self.files())

    def write_events(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: str,
        *,
        scratch: Path,
        codes: frozenset[str] | None = None,
    ) -> SourceCounts:
        """Create the view `table`; see `EventSource`.

        `excluded` counts what would have been an event each; a resource entered in error once.

        Raises:
            DataSourceError: with file and line, never a value.
        """
        del codes
        paths = self._files()
        files = [
            (safe_name(path, number, len(paths)), path)
            for number, path in enumerate(paths, start=1)
        ]
        clock = WallClock(self._zone, end_of_data(self._until, files))
        findings = Findings(clock, self._merged_map())
        with Shards(Path(tempfile.mkdtemp(prefix="fhir-", dir=scratch)), findings) as shards:
            for name, path in files:
                for document in documents(path, name):
                    _read(document, name, findings)
                    shards.have_read(document.length)
        shards.join(connection, table)
        shards.remove()
        return findings.counts

    def descendants(self, codes: frozenset[str]) -> Mapping[str, frozenset[str]]:
        """Return each code as its own only one: a FHIR export carries no vocabulary tables."""
        return {code: frozenset({code}) for code in codes}

    def _merged_map(self) -> dict[str, str]:
        merged = merge_code_maps(self._code_map, self._code_maps)
        if any(len(targets) > 1 for targets in merged.values()):
            raise refuse_file(
                "the code map of a FHIR source gives one code two standard codes",
                expected="one standard code for each of the site's codes",
                arrived="a code on two lines",
                todo="keep the line that the plan needs",
            )
        return {code: targets[0] for code, targets in merged.items()}

    def _files(self) -> list[Path]:
        files = fhir_files(self._folder) if self._folder.is_dir() else []
        if not files:
            raise DataSourceError(
                "the FHIR folder cannot be read",
                expected=f"*.ndjson or *.json, also with .gz, in {self._folder}",
                arrived="no such file",
                todo="correct `path` under [source] in site.toml",
            )
        return files


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        pass
    except KeyError:
        pass
    raise ConfigError(
        "the time zone is not known",
        expected="an IANA name, such as Europe/London",
        arrived=repr(name),
        todo="correct `time_zone` under [source] in site.toml",
    )


def _read(document: Document, name: str, findings: Findings) -> None:
    value = document.value
    kind = value.get("resourceType") if isinstance(value, dict) else None
    if kind == "Bundle" and isinstance(value, dict):
        _read_bundle(value, document.line, name, findings)
    elif not isinstance(value, dict) or not _is_read(value, kind, findings):
        raise _not_a_resource(name, document.line, "what stands here")


def _read_bundle(bundle: Element, line: int, name: str, findings: Findings) -> None:
    entries = bundle.get("entry") or []
    if bundle.get("type") not in _BUNDLE_TYPES or not isinstance(entries, list):
        raise refuse(
            name,
            line,
            "a bundle of another type",
            expected=f"a Bundle whose type is one of {', '.join(sorted(_BUNDLE_TYPES))}",
            todo=_TODO,
        )
    findings.references = _references(entries)
    for number, entry in enumerate(entries, start=1):
        resource = entry.get("resource") if isinstance(entry, dict) else None
        # Only an entry with a request or a response may do without a resource (FHIR's rule bdl-5).
        if resource is None and isinstance(entry, dict) and not _MESSAGES.isdisjoint(entry):
            continue
        kind = resource.get("resourceType") if isinstance(resource, dict) else None
        if isinstance(resource, dict) and resource.get("id") is None:
            resource["id"] = _id_of(entry)
        if not isinstance(resource, dict) or not _is_read(resource, kind, findings):
            raise _not_a_resource(name, line, f"entry {number} of the bundle")
    findings.references = {}


def _references(entries: list[object]) -> References:
    found: dict[str, tuple[str, str]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        url, resource = entry.get("fullUrl"), entry.get("resource")
        if not isinstance(url, str) or not isinstance(resource, dict):
            continue
        kind, own = resource.get("resourceType"), resource.get("id") or _id_of(entry)
        if url.startswith(_URN) and isinstance(kind, str) and isinstance(own, str):
            found[url] = (kind, own)
    return found


def _id_of(entry: Element) -> str | None:
    """Return the id of a resource that a server has yet to name: its `urn:uuid:` without that."""
    url = entry.get("fullUrl")
    return url.rpartition(":")[2] if isinstance(url, str) and url.startswith(_URN) else None


def _is_read(resource: Element, kind: object, findings: Findings) -> bool:
    if type(kind) is not str or kind == "Bundle":
        return False
    try:
        read_resource(resource, kind if kind in RESOURCE_TYPES else UNKNOWN_TYPE, findings)
    except NotFhir:
        return False
    return True


def _not_a_resource(name: str, line: int, what: str) -> DataSourceError:
    return refuse(
        name,
        line,
        f"{what} is no FHIR resource",
        expected="a JSON object with a resourceType and elements as in FHIR R4",
        todo=_TODO,
    )
