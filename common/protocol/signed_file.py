"""Files of one signed record: a JSON object with `record` and `signature` (docs/protocol.md, N)."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from common import limits
from common.canonical import canonical_bytes, without_duplicates
from common.crypto.keys import SigningKey
from common.crypto.signing import sign
from common.errors import EnrolmentError, ProtocolError

_SIGNATURE_CHARACTERS: Final = 88  # 64 bytes in base64

RecordT = TypeVar("RecordT", bound=BaseModel)


def write_record(path: Path, record: BaseModel, key: SigningKey, label: str) -> None:
    """Write a record signed under a label; raises `EnrolmentError`."""
    body = record.model_dump(mode="json")
    signature = sign(key, label, canonical_bytes(body))
    content = {"record": body, "signature": base64.b64encode(signature).decode()}
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2, sort_keys=True)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise EnrolmentError(
            "an enrolment file cannot be written",
            expected=f"a writable file {path}",
            arrived=error.strerror or type(error).__name__,
            todo="choose another folder, or free disk space",
        ) from None


def read_record(model: type[RecordT], path: Path) -> tuple[RecordT, bytes]:
    """Return a record in its one form, and the signature, not verified; `EnrolmentError`."""
    content, signature = _read(path)
    return _validate(model, content, path), signature


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        with path.open("rb") as stream:
            content = stream.read(limits.ENROLMENT_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise EnrolmentError(
            f"{path.name} cannot be read",
            expected=f"a readable file {path}",
            arrived=error.strerror or "an error",
            todo="check the path and the permissions",
        ) from None
    if len(content) > limits.ENROLMENT_FILE_BYTES_MAX:
        raise _refuse(path, f"at most {limits.ENROLMENT_FILE_BYTES_MAX} bytes", "more")
    try:
        outer = json.loads(content, object_pairs_hook=without_duplicates)
    except (ProtocolError, ValueError, RecursionError):
        outer = None
    if not isinstance(outer, dict) or set(outer) != {"record", "signature"}:
        raise _refuse(path, "JSON with `record` and `signature` and nothing else", "something else")
    record, text = outer["record"], outer["signature"]
    if not isinstance(record, dict) or not isinstance(text, str):
        raise _refuse(path, "`record` as an object, `signature` as text", "something else")
    return record, _signature(path, text)


def _signature(path: Path, text: str) -> bytes:
    try:
        signature = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        signature = b""
    if len(text) != _SIGNATURE_CHARACTERS or base64.b64encode(signature).decode() != text:
        raise _refuse(path, "`signature` as 64 bytes in base64", "something else")
    return signature


def _validate(model: type[RecordT], content: dict[str, Any], path: Path) -> RecordT:
    try:
        record = model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise _refuse(path, f"{where}: {first['msg']}", "another value") from None
    # The signature covers the record, so the record must be all that the file says: `true` in the
    # place of 1 would read as the same record and show a person another.
    if canonical_bytes(record.model_dump(mode="json")) != _canonical(content):
        raise _refuse(path, "the one form of this record", "another form of it")
    return record


def _canonical(content: dict[str, Any]) -> bytes | None:
    try:
        return canonical_bytes(content)
    except (ProtocolError, ValueError, RecursionError):
        return None


def _refuse(path: Path, expected: str, arrived: str) -> EnrolmentError:
    return EnrolmentError(
        f"{path.name} is refused",
        expected=expected,
        arrived=arrived,
        todo="ask for the file again, over a channel you trust",
    )
