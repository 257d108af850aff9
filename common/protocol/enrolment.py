"""The two signed files of enrolment: the site's request and the coordinator's answer.

The site's request carries public keys only and is signed by the site's own key, so that nobody can
enrol a key he does not hold. The coordinator's answer is signed by the coordinator's key, whose
fingerprint the two sides compare by telephone; after that the site trusts no other.
"""

from __future__ import annotations

from pathlib import Path

from common.canonical import canonical_bytes, digest_bytes
from common.crypto.keys import SigningKey
from common.ids import Digest
from common.protocol.enrolment_checks import (
    RECORD_LABEL,
    REQUEST_LABEL,
    check_record,
    check_request,
)
from common.protocol.enrolment_records import (
    EnrolmentRecord,
    EnrolmentRequest,
    Roster,
    RosterEntry,
)
from common.protocol.signed_file import read_record, write_record

__all__ = [
    "EnrolmentRecord",
    "EnrolmentRequest",
    "Roster",
    "RosterEntry",
    "read_enrolment",
    "read_request",
    "request_digest",
    "write_enrolment",
    "write_request",
]


def request_digest(request: EnrolmentRequest) -> Digest:
    """Return the digest by which an enrolment record names the request it answers."""
    return digest_bytes(REQUEST_LABEL, canonical_bytes(request.model_dump(mode="json")))


def write_request(path: Path, request: EnrolmentRequest, key: SigningKey) -> None:
    """Write a request signed by the site's own key; raises `EnrolmentError`."""
    write_record(path, request, key, REQUEST_LABEL)


def read_request(path: Path) -> EnrolmentRequest:
    """Read a request and run checks N1 to N4; raises `EnrolmentError`."""
    request, signature = read_record(EnrolmentRequest, path)
    check_request(request, signature)
    return request


def write_enrolment(path: Path, record: EnrolmentRecord, key: SigningKey) -> None:
    """Write an enrolment file signed by the coordinator; raises `EnrolmentError`."""
    write_record(path, record, key, RECORD_LABEL)


def read_enrolment(path: Path) -> EnrolmentRecord:
    """Read an enrolment file and run checks N5 to N8; raises `EnrolmentError`.

    Whether the key in it is the coordinator's is for two people to compare, or for the site's
    stored fingerprint; whether it answers this site's request, for `request_digest`.
    """
    record, signature = read_record(EnrolmentRecord, path)
    check_record(record, signature)
    return record
