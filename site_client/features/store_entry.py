"""What the feature store knows of one entry: its key, where its rows came from, what they hold.

`entry.json` is canonical JSON beside its own digest. It holds codes, units that convert, counts and
digests, never a value of a patient's row and no file's name, which may be a patient's.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.canonical import Canonical, canonical_bytes, digest_bytes, parse_canonical
from common.errors import CohortiumError, DataSourceError
from common.ids import Digest

FORMAT: Final = 1
_LABEL: Final = "feature-entry"
_MADE_BY: Final = (
    "common.study",
    "site_client.features",
    "site_client.sources",
    "common.units",
)
"""Packages that decide the rows."""
_Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class EntryKey(_Part):
    """What decides an entry's rows.

    Args:
        plan_digest: of the study plan.
        fingerprint: of the source's snapshot.
        software: see `software_version`.
    """

    plan_digest: _Hex64
    fingerprint: _Hex64
    software: str


class SourceFile(_Part):
    """One file of the source.

    Args:
        name: digest of its name.
        size_bytes: of the file.
        content: SHA-256.
    """

    name: _Hex64
    size_bytes: _Count
    content: _Hex64


class SourceState(_Part):
    """The source when it was read.

    Args:
        kind: of `[source]`.
        declared: digest of `[source]`.
        end: the first moment that was impossible; empty where growth is not told.
        files: empty for a database.
    """

    kind: str
    declared: _Hex64
    end: str
    files: list[SourceFile]

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(item.size_bytes for item in self.files)


class StepCount(_Part):
    """What one step of the cohort left."""

    step: str
    rows: _Count
    patients: _Count


class NamedCount(_Part):
    """How many of something; names need not be ASCII, so they are no keys."""

    name: str
    count: _Count


class UsedUnit(_Part):
    """A unit that was met, and how it became the plan's: times `factor`, plus `offset`."""

    unit: str
    factor: str
    offset: str


class FeatureRecord(_Part):
    """One feature: what was met of it.

    Args:
        name: in the plan.
        codes: how many codes stand for it, narrower ones included; 0 for the age.
        units: that were brought to the plan's.
        recorded, missing, out_of_range, unmapped: rows.
        used, no_value, other_unit, implausible: events in windows.
    """

    name: str
    codes: _Count
    units: list[UsedUnit]
    recorded: _Count
    missing: _Count
    out_of_range: _Count
    unmapped: _Count
    used: _Count = 0
    no_value: _Count = 0
    other_unit: _Count = 0
    implausible: _Count = 0


class RowsFile(_Part):
    """A Parquet file of the entry."""

    name: Annotated[str, Field(pattern=r"^[a-z]+-[0-9a-f]{16}\.parquet$")]
    size_bytes: _Count
    sha256: _Hex64


class FeatureEntry(_Part):
    """One entry of the store.

    Args:
        plan: its canonical bytes as text; what was asked, in the plan's own words.
        build: "full", or "increment" on the entry `base`.
        recomputed: patients whose rows were made anew.
        files: by what they hold, see `store_rows`.
    """

    format: Literal[1] = FORMAT
    key: EntryKey
    study_id: str
    plan: str
    built_at_s: _Count
    source: SourceState
    build: Literal["full", "increment"]
    base: str
    recomputed: _Count
    rows: _Count
    patients: _Count
    positive: _Count
    attrition: list[StepCount]
    records: list[NamedCount]
    excluded: list[NamedCount]
    unmapped: list[NamedCount]
    features: list[FeatureRecord]
    files: dict[str, RowsFile]

    @property
    def id(self) -> str:
        """Name of the entry: the same key and the same rows have one name."""
        content = (item for name in sorted(self.files) for item in (name, self.files[name].sha256))
        parts = (*self.key.model_dump().values(), *content)
        return digest_bytes(_LABEL, *(part.encode() for part in parts))[:32]

    @property
    def size_bytes(self) -> int:
        """Of its Parquet files."""
        return sum(item.size_bytes for item in self.files.values())


def entry_bytes(entry: FeatureEntry) -> bytes:
    """Return the content of `entry.json`."""
    record: dict[str, Canonical] = entry.model_dump(mode="json")
    digest = digest_bytes(_LABEL, canonical_bytes(record))
    return canonical_bytes({"digest": digest, "entry": record})


def parse_entry(content: bytes) -> FeatureEntry:
    """Return the entry of an `entry.json`; raises `DataSourceError` for any other bytes."""
    try:
        record = parse_canonical(content)
        if isinstance(record, dict) and set(record) == {"digest", "entry"}:
            body = canonical_bytes(record["entry"])
            if digest_bytes(_LABEL, body) == record["digest"]:
                return FeatureEntry.model_validate(record["entry"])
    except (CohortiumError, ValidationError):
        pass
    raise damaged("its description")


def damaged(what: str) -> DataSourceError:
    """Return the refusal of an entry whose files are not what was written."""
    return DataSourceError(
        f"an entry of the feature store is damaged: {what}",
        expected="the files as they were written, by their SHA-256",
        arrived="others, or none",
        todo="run `cohortium-site features build PLAN`; when a running study began with this "
        "entry, first `features drop ENTRY --in-use`: it then goes on with the new rows",
    )


@functools.cache
def software_version() -> str:
    """Return the version, and a digest of the code that makes rows: a changed line is another."""
    try:
        released = version("cohortium")
    except PackageNotFoundError:
        released = "unknown"
    digest = hashlib.sha256()
    for package in _MADE_BY:
        inside = importlib.resources.files(package).iterdir()
        modules = (item for item in inside if item.name.endswith(".py"))
        for module in sorted(modules, key=lambda item: item.name):
            digest.update(module.read_bytes())
    return f"{released}+{digest.hexdigest()[:12]}"


def digest_of_text(label: str, text: str) -> Digest:
    """Return the digest of a text under a label."""
    return digest_bytes(label, text.encode("utf-8", "surrogateescape"))
