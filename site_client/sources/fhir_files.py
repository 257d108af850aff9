"""FHIR's JSON files as documents, one at a time and bounded: no content ever enters a message.

The errors of gzip and of JSON parsers quote the file or carry it whole, so ours is raised after
their handler has ended: then it has neither cause nor context.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

import orjson

from common import limits
from common.errors import DataSourceError
from site_client.sources.fhir_types import RESOURCE_TYPES

_NDJSON: Final = (".ndjson", ".ndjson.gz")
_JSON: Final = (".json", ".json.gz")
_MARK: Final = b"\xef\xbb\xbf"
_CHUNK_BYTES: Final = 1 << 20
_NAME_PARTS: Final = re.compile(r"[._-]")
_COUNTER: Final = re.compile(r"[0-9]{1,3}", re.ASCII)  # longer may be a date, or a patient's number
_ENDINGS: Final = frozenset({"ndjson", "json", "gz"})


class Document(NamedTuple):
    """One line of NDJSON or one JSON file: where it starts, its length in bytes, its value."""

    line: int
    length: int
    value: object


class _Broken(NamedTuple):
    """Where a text stops being JSON, counted from its own first line."""

    line: int


def fhir_files(folder: Path) -> list[Path]:
    """Return the folder's files in any depth, in the order of their relative names' bytes."""
    found = (item for item in folder.rglob("*") if item.name.lower().endswith(_NDJSON + _JSON))
    return sorted(
        (item for item in found if item.is_file()),
        key=lambda item: os.fsencode(item.relative_to(folder).as_posix()),
    )


def safe_name(path: Path, number: int, files: int) -> str:
    """Return what messages call a file: a bundle's own name is often a patient's.

    A name of nothing but one resource type and a counter, as bulk exports write them
    (`Observation.000.ndjson`), is said; any other file is its place in the order of `fhir_files`.

    Args:
        path: of the file.
        number: its place, from 1.
        files: how many there are.
    """
    parts = [part for part in _NAME_PARTS.split(path.name) if part not in _ENDINGS]
    others = [part for part in parts if part not in RESOURCE_TYPES]
    if len(parts) == len(others) + 1 and all(_COUNTER.fullmatch(part) for part in others):
        return f"{path.name} (file {number:,} of {files:,} by name)"
    return f"file {number:,} of {files:,} by name"


def documents(path: Path, name: str) -> Iterator[Document]:
    """Return the documents of one file.

    Args:
        path: of the file.
        name: see `safe_name`.

    Raises:
        DataSourceError: with file and line, never a value.
    """
    if path.name.lower().endswith(_NDJSON):
        return _lines(path, name)
    return _whole(path, name)


def refuse(name: str, line: int, what: str, *, expected: str, todo: str) -> DataSourceError:
    """Return the error that names a place in a file, never a value."""
    return DataSourceError(
        f"{name}, line {line}: {what}",
        expected=expected,
        arrived="something else (values are never shown)",
        todo=todo,
    )


def _lines(path: Path, name: str) -> Iterator[Document]:
    stream = _opened(path)
    if stream is None:
        raise _unreadable(name, 1)
    with stream:
        number = 0
        while True:
            number += 1
            try:
                raw = stream.readline(limits.FHIR_LINE_BYTES_MAX + 1)
            except (OSError, EOFError, zlib.error):
                raw = None
            if raw is None:
                raise _unreadable(name, number)
            if not raw:
                return
            if len(raw) > limits.FHIR_LINE_BYTES_MAX:
                raise _too_long(name, number, "a line", limits.FHIR_LINE_BYTES_MAX)
            if number == 1:
                raw = raw.removeprefix(_MARK)
            if raw.isspace():
                continue
            value = _parsed(raw)
            if type(value) is _Broken:
                raise _not_json(name, number)
            yield Document(number, len(raw), value)


def _whole(path: Path, name: str) -> Iterator[Document]:
    stream = _opened(path)
    if stream is None:
        raise _unreadable(name, 1)
    with stream:
        chunks: list[bytes] = []
        length = 0
        is_whole = True
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                length += len(chunk)
                chunks.append(chunk)
                if length > limits.FHIR_BUNDLE_BYTES_MAX:
                    break
        except (OSError, EOFError, zlib.error):
            is_whole = False
    if not is_whole:
        raise _unreadable(name, 1)
    if length > limits.FHIR_BUNDLE_BYTES_MAX:
        raise _too_long(name, 1, "the file", limits.FHIR_BUNDLE_BYTES_MAX)
    raw = b"".join(chunks).removeprefix(_MARK)
    chunks.clear()
    value = _parsed(raw)
    if type(value) is _Broken:
        raise _not_json(name, value.line)
    yield Document(1, length, value)


def _opened(path: Path) -> BinaryIO | None:
    try:
        if path.suffix.lower() == ".gz":
            return cast(BinaryIO, gzip.open(path, "rb"))
        return path.open("rb")
    except OSError:
        return None


def _parsed(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        broken = _Broken(error.lineno)
        if "infinity" not in error.msg:
            return broken
    return _parsed_with_infinity(raw, broken)


def _parsed_with_infinity(raw: bytes, broken: _Broken) -> object:
    # orjson refuses a number beyond a double; here it is one value that cannot be read, and the
    # rest of the document stands. The second pass refuses what only the slow parser accepts.
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return broken
    return value


def _refuse_constant(_: str) -> object:
    raise ValueError


def _unreadable(name: str, line: int) -> DataSourceError:
    return refuse(
        name,
        line,
        "the file cannot be read",
        expected="a whole file, gzip where its name ends in .gz",
        todo="copy or export the file again; check who may read it",
    )


def _too_long(name: str, line: int, what: str, bytes_max: int) -> DataSourceError:
    return refuse(
        name,
        line,
        f"{what} is too long",
        expected=f"at most {bytes_max} bytes, unpacked",
        todo="export one resource a line as *.ndjson",
    )


def _not_json(name: str, line: int) -> DataSourceError:
    return refuse(
        name,
        line,
        "not JSON, or cut off",
        expected="JSON in UTF-8: one resource a line in *.ndjson, one document in *.json",
        todo="copy or export the file again",
    )
