"""The numbered checks of enrolment files, run in this order after size and shape.

A request:
    N1  it is signed by the signing key in it (nobody enrols a key that he does not hold)
    N2  its sealing key is a key of our suite
    N3  its node key is an EC P-384 key in OpenSSH form
    N4  its certificate request is for an EC P-256 key and signed by that key
A record (the coordinator's answer):
    N5  it is signed by the coordinator's signing key in it
    N6  the coordinator's sealing key is a key of our suite
    N7  the authority in it issued the certificate in it, for this site
    N8  the roster names each site and each key once, and this site among them

Every check raises `EnrolmentError` with its number.
"""

from __future__ import annotations

from common.canonical import canonical_bytes
from common.crypto.certificates import check_certificate_request, check_issued
from common.crypto.keys import SealingKey, VerifyKey
from common.crypto.node_key import parse_node_public_key
from common.crypto.signing import verify
from common.errors import CohortiumError, EnrolmentError, SealError, SignatureError
from common.protocol.enrolment_records import EnrolmentRecord, EnrolmentRequest, Record

REQUEST_LABEL = "enrolment-request"
RECORD_LABEL = "enrolment-record"


def check_request(request: EnrolmentRequest, signature: bytes) -> None:
    """Run N1 to N4."""
    check_request_signature(request, signature)
    check_request_sealing_key(request)
    check_node_key(request)
    check_certificate_key(request)


def check_record(record: EnrolmentRecord, signature: bytes) -> None:
    """Run N5 to N8."""
    check_record_signature(record, signature)
    check_record_sealing_key(record)
    check_certificates(record)
    check_roster(record)


def check_request_signature(request: EnrolmentRequest, signature: bytes) -> None:
    """N1: the request is signed by the signing key in it."""
    _check_signature("N1", REQUEST_LABEL, request, request.verify_key, signature)


def check_request_sealing_key(request: EnrolmentRequest) -> None:
    """N2: its sealing key is a key of our suite."""
    _check_sealing_key("N2", request.sealing_key)


def check_node_key(request: EnrolmentRequest) -> None:
    """N3: its node key is an EC P-384 key in OpenSSH form."""
    try:
        parse_node_public_key(request.node_public_key)
    except EnrolmentError as error:
        raise _refuse("N3", error) from None


def check_certificate_key(request: EnrolmentRequest) -> None:
    """N4: its certificate request is for an EC P-256 key and signed by that key."""
    try:
        check_certificate_request(request.certificate_request)
    except EnrolmentError as error:
        raise _refuse("N4", error) from None


def check_record_signature(record: EnrolmentRecord, signature: bytes) -> None:
    """N5: the record is signed by the coordinator's signing key in it."""
    _check_signature("N5", RECORD_LABEL, record, record.coordinator_verify_key, signature)


def check_record_sealing_key(record: EnrolmentRecord) -> None:
    """N6: the coordinator's sealing key is a key of our suite."""
    _check_sealing_key("N6", record.coordinator_sealing_key)


def check_certificates(record: EnrolmentRecord) -> None:
    """N7: the authority in it issued the certificate in it, for this site."""
    try:
        check_issued(record.ca_certificate, record.site_certificate, record.site_id)
    except EnrolmentError as error:
        raise _refuse("N7", error) from None


def check_roster(record: EnrolmentRecord) -> None:
    """N8: the roster names each site and each key once, and this site among them."""
    sites = record.roster.sites
    names = {site.site_id for site in sites}
    keys = {site.verify_key for site in sites}
    if len(names) != len(sites) or len(keys) != len(sites) or record.site_id not in names:
        raise EnrolmentError(
            "a roster is refused",
            expected="each site and each key once, and this site among them",
            arrived="a repeated site or key, or a roster without this site",
            todo="ask the coordinator for the enrolment file again",
            number="N8",
        )


def _check_signature(
    number: str, label: str, record: Record, key_text: str, signature: bytes
) -> None:
    try:
        key = VerifyKey.from_text(key_text)
        verify(key, label, signature, canonical_bytes(record.model_dump(mode="json")))
    except SignatureError as error:
        raise _refuse(number, error) from None


def _check_sealing_key(number: str, key_text: str) -> None:
    try:
        SealingKey.from_text(key_text)
    except SealError as error:
        raise _refuse(number, error) from None


def _refuse(number: str, error: CohortiumError) -> EnrolmentError:
    return EnrolmentError(
        error.refused,
        expected=error.expected,
        arrived=error.arrived,
        todo="ask for the file again, over a channel you trust",
        number=number,
    )
