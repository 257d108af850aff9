"""What a site and the coordinator exchange once, as two signed files.

The site's request carries public keys only and is signed by the site's own key, so that nobody can
enrol a key he does not hold. The coordinator's answer is signed by the coordinator's key, whose
fingerprint the two sides compare by telephone; after that the site trusts no other.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common import limits
from common.canonical import canonical_bytes, digest_bytes
from common.crypto.keys import SigningKey, VerifyKey
from common.crypto.signing import sign, verify
from common.errors import EnrolmentError, SealError, SignatureError
from common.ids import Digest

_REQUEST_LABEL: Final = "enrolment-request"
_RECORD_LABEL: Final = "enrolment-record"

Slug = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
KeyText = Annotated[str, Field(min_length=40, max_length=4000)]
Pem = Annotated[str, Field(min_length=40, max_length=20_000)]
Seconds = Annotated[int, Field(ge=0, le=2**40)]


RecordT = TypeVar("RecordT", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class EnrolmentRequest(_Record):
    """What a site asks with: who it is, and its public keys."""

    version: Literal[1]
    site_id: Slug
    organisation: Line
    contact: Line
    verify_key: KeyText
    sealing_key: KeyText
    node_public_key: KeyText
    certificate_request: Pem
    created_at_s: Seconds


class RosterEntry(_Record):
    """One site as the other members of the consortium see it."""

    site_id: Slug
    verify_key: KeyText
    status: Literal["active", "suspended"]


class Roster(_Record):
    """Who is in the consortium at one version of the list."""

    version: Annotated[int, Field(ge=1)]
    sites: Annotated[tuple[RosterEntry, ...], Field(max_length=limits.SITES_MAX, strict=False)]


class EnrolmentRecord(_Record):
    """What the coordinator answers: its keys, its address, the site's certificate, the roster."""

    version: Literal[1]
    consortium: Line
    site_id: Slug
    coordinator_verify_key: KeyText
    coordinator_sealing_key: KeyText
    coordinator_address: Line
    ca_certificate: Pem
    site_certificate: Pem
    request_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    roster: Roster
    issued_at_s: Seconds


def request_digest(request: EnrolmentRequest) -> Digest:
    """Return the digest by which an enrolment record names the request it answers."""
    return digest_bytes(_REQUEST_LABEL, canonical_bytes(request.model_dump(mode="json")))


def write_request(path: Path, request: EnrolmentRequest, key: SigningKey) -> None:
    """Write a request signed by the site's own key; raises `EnrolmentError`."""
    _write(path, request, key, _REQUEST_LABEL)


def read_request(path: Path) -> EnrolmentRequest:
    """Read a request and check that its signer holds the key in it; raises `EnrolmentError`."""
    record, signature = _read(path)
    request = _validate(EnrolmentRequest, record, path)
    _check(request, request.verify_key, signature, _REQUEST_LABEL, path)
    return request


def write_enrolment(path: Path, record: EnrolmentRecord, key: SigningKey) -> None:
    """Write an enrolment file signed by the coordinator; raises `EnrolmentError`."""
    _write(path, record, key, _RECORD_LABEL)


def read_enrolment(path: Path) -> EnrolmentRecord:
    """Read an enrolment file and check its signature by the key in it; raises `EnrolmentError`.

    Whether that key is the coordinator's is for two people to compare, or for the site's stored
    fingerprint.
    """
    record, signature = _read(path)
    enrolment = _validate(EnrolmentRecord, record, path)
    _check(enrolment, enrolment.coordinator_verify_key, signature, _RECORD_LABEL, path)
    return enrolment


def _write(path: Path, record: BaseModel, key: SigningKey, label: str) -> None:
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


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        with path.open("rb") as stream:
            content = stream.read(limits.ENROLMENT_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _refuse(path, "a readable file", error.strerror or "an error") from None
    if len(content) > limits.ENROLMENT_FILE_BYTES_MAX:
        raise _refuse(path, f"at most {limits.ENROLMENT_FILE_BYTES_MAX} bytes", "more")
    outer: Any = None
    try:
        outer = json.loads(content)
        record = outer.pop("record")
        signature = base64.b64decode(outer.pop("signature"), validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, RecursionError):
        record, signature = None, b""
    if not isinstance(record, dict) or outer:
        raise _refuse(path, "JSON with `record` and `signature` and nothing else", "something else")
    return record, signature


def _validate(model: type[RecordT], record: dict[str, Any], path: Path) -> RecordT:
    try:
        return model.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _refuse(path, f"{where}: {first['msg']}", "another value") from None


def _check(record: BaseModel, key_text: str, signature: bytes, label: str, path: Path) -> None:
    try:
        verify(
            VerifyKey.from_text(key_text),
            label,
            signature,
            canonical_bytes(record.model_dump(mode="json")),
        )
    except (SignatureError, SealError):
        raise _refuse(
            path, "a signature by the key inside it", "changed bytes, or another signer"
        ) from None


def _refuse(path: Path, expected: str, arrived: str) -> EnrolmentError:
    return EnrolmentError(
        f"{path.name} is refused",
        expected=expected,
        arrived=arrived,
        todo="ask for the file again, over a channel you trust",
    )
