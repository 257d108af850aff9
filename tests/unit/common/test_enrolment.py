"""Enrolment files: read only when every field, key, certificate and signature is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from common import limits
from common.crypto.certificates import Authority, TlsKey
from common.errors import EnrolmentError
from common.protocol.enrolment import (
    EnrolmentRecord,
    EnrolmentRequest,
    Roster,
    RosterEntry,
    read_enrolment,
    read_request,
    request_digest,
    write_enrolment,
    write_request,
)
from tests.lib.enrolment import enrolment_record, enrolment_request
from tests.lib.messages import NOW_S, Party

SITE, COORDINATOR, STRANGER = Party.fresh(), Party.fresh(), Party.fresh()


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> EnrolmentRequest:
    return enrolment_request(SITE, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def record(request_: EnrolmentRequest) -> EnrolmentRecord:
    return enrolment_record(request_, COORDINATOR)


def _number_of_request(path: Path, request: EnrolmentRequest, by: Party = SITE) -> str:
    write_request(path / "request.json", request, by.signing)
    with pytest.raises(EnrolmentError) as caught:
        read_request(path / "request.json")
    return caught.value.number


def _number_of_record(path: Path, record: EnrolmentRecord, by: Party = COORDINATOR) -> str:
    write_enrolment(path / "enrolment.json", record, by.signing)
    with pytest.raises(EnrolmentError) as caught:
        read_enrolment(path / "enrolment.json")
    return caught.value.number


def test_a_request_survives_its_file(tmp_path: Path, request_: EnrolmentRequest) -> None:
    write_request(tmp_path / "request.json", request_, SITE.signing)
    assert read_request(tmp_path / "request.json") == request_


def test_an_enrolment_survives_its_file(tmp_path: Path, record: EnrolmentRecord) -> None:
    write_enrolment(tmp_path / "enrolment.json", record, COORDINATOR.signing)
    assert read_enrolment(tmp_path / "enrolment.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["enrolment.json"]


def test_a_request_file_holds_no_private_key(tmp_path: Path, request_: EnrolmentRequest) -> None:
    write_request(tmp_path / "request.json", request_, SITE.signing)
    SITE.signing.write(tmp_path / "signing.key")
    text = (tmp_path / "request.json").read_text()
    assert (tmp_path / "signing.key").read_text().split()[1] not in text
    assert "PRIVATE" not in text


def test_a_record_names_the_request_it_answers(
    record: EnrolmentRecord, request_: EnrolmentRequest, tmp_path: Path
) -> None:
    other = enrolment_request(SITE, tmp_path)
    assert record.request_digest == request_digest(request_)
    assert record.request_digest != request_digest(other)


def test_n1_a_request_signed_by_another_key_is_refused(
    tmp_path: Path, request_: EnrolmentRequest
) -> None:
    assert _number_of_request(tmp_path, request_, by=STRANGER) == "N1"
    forged = request_.model_copy(update={"verify_key": "A" * 43 + "="})
    assert _number_of_request(tmp_path, forged) == "N1"


def test_n2_a_request_with_another_sealing_key_is_refused(
    tmp_path: Path, request_: EnrolmentRequest
) -> None:
    changed = request_.model_copy(update={"sealing_key": request_.verify_key})
    assert _number_of_request(tmp_path, changed) == "N2"


def test_n3_a_request_with_another_node_key_is_refused(
    tmp_path: Path, request_: EnrolmentRequest
) -> None:
    weak = ec.generate_private_key(ec.SECP256R1()).public_key()
    text = weak.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    changed = request_.model_copy(update={"node_public_key": text})
    assert _number_of_request(tmp_path, changed) == "N3"


def test_n4_a_request_with_another_certificate_request_is_refused(
    tmp_path: Path, request_: EnrolmentRequest, record: EnrolmentRecord
) -> None:
    changed = request_.model_copy(update={"certificate_request": record.ca_certificate})
    assert _number_of_request(tmp_path, changed) == "N4"


def test_n5_an_enrolment_signed_by_another_key_is_refused(
    tmp_path: Path, record: EnrolmentRecord
) -> None:
    assert _number_of_record(tmp_path, record, by=STRANGER) == "N5"


def test_n6_an_enrolment_with_another_sealing_key_is_refused(
    tmp_path: Path, record: EnrolmentRecord
) -> None:
    changed = record.model_copy(update={"coordinator_sealing_key": "A" * 1624})
    assert _number_of_record(tmp_path, changed) == "N6"


def test_n7_a_certificate_by_another_authority_is_refused(
    tmp_path: Path, record: EnrolmentRecord
) -> None:
    other = Authority.make("Test authority", TlsKey.generate(), now_s=NOW_S)
    changed = record.model_copy(update={"ca_certificate": other.certificate_pem})
    assert _number_of_record(tmp_path, changed) == "N7"


def test_n8_a_roster_that_repeats_or_forgets_a_site_is_refused(
    tmp_path: Path, record: EnrolmentRecord
) -> None:
    here = record.roster.sites[0]
    key = STRANGER.signing.verify_key.to_text()
    wrong: list[tuple[RosterEntry, ...]] = [
        (),
        (here.model_copy(update={"site_id": "south"}),),
        (here, here.model_copy(update={"verify_key": key})),
        (here, here.model_copy(update={"site_id": "south"})),
    ]
    for sites in wrong:
        changed = record.model_copy(update={"roster": Roster(version=1, sites=sites)})
        assert _number_of_record(tmp_path, changed) == "N8"


CHANGES: list[Callable[[Any], object]] = [
    lambda outer: outer.update(signature=""),
    lambda outer: outer.update(signature="A" * 88),
    lambda outer: outer.update(signature=7),
    lambda outer: outer.update(signature=outer["signature"] + "\n"),
    lambda outer: outer.update(extra=1),
    lambda outer: outer.pop("signature"),
    lambda outer: outer.update(record=[]),
    lambda outer: outer["record"].update(version=2),
    lambda outer: outer["record"].update(version=True),
    lambda outer: outer["record"].update(site_id="North"),
    lambda outer: outer["record"].update(site_id="south"),
    lambda outer: outer["record"].update(organisation="North\nSouth"),
    lambda outer: outer["record"].update(organisation="North \u202e lareneG"),
    lambda outer: outer["record"].update(organisation=""),
    lambda outer: outer["record"].update(created_at_s="1790000000"),
    lambda outer: outer["record"].update(created_at_s=1.5),
    lambda outer: outer["record"].update(created_at_s=NOW_S + 1),
    lambda outer: outer["record"].update(extra=1),
    lambda outer: outer["record"].pop("contact"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_request_file_is_refused(
    tmp_path: Path, request_: EnrolmentRequest, change: Callable[[Any], object]
) -> None:
    path = tmp_path / "request.json"
    write_request(path, request_, SITE.signing)
    outer = json.loads(path.read_text())
    change(outer)
    path.write_text(json.dumps(outer))
    with pytest.raises(EnrolmentError):
        read_request(path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"null", b"[]", b"{}", b"[" * 100_000, b'{"record":{},"record":{}}']
)
def test_a_file_that_is_no_enrolment_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    for read in (read_request, read_enrolment):
        with pytest.raises(EnrolmentError):
            read(tmp_path / "file.json")


def test_a_request_is_not_read_as_an_enrolment(tmp_path: Path, request_: EnrolmentRequest) -> None:
    write_request(tmp_path / "request.json", request_, SITE.signing)
    with pytest.raises(EnrolmentError):
        read_enrolment(tmp_path / "request.json")


def test_a_file_beyond_the_bound_is_refused(
    tmp_path: Path, request_: EnrolmentRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_request(tmp_path / "request.json", request_, SITE.signing)
    monkeypatch.setattr(limits, "ENROLMENT_FILE_BYTES_MAX", 100)
    with pytest.raises(EnrolmentError, match="at most 100 bytes"):
        read_request(tmp_path / "request.json")


def test_a_missing_file_or_folder_is_an_enrolment_error(
    tmp_path: Path, request_: EnrolmentRequest
) -> None:
    with pytest.raises(EnrolmentError):
        read_request(tmp_path / "none.json")
    with pytest.raises(EnrolmentError):
        write_request(tmp_path / "none" / "request.json", request_, SITE.signing)


@pytest.mark.parametrize("address", ["fed.example.org", ":8443", "a b:1", "::1:8443", "a:b"])
def test_an_address_has_a_host_and_a_port(record: EnrolmentRecord, address: str) -> None:
    with pytest.raises(ValidationError):
        EnrolmentRecord.model_validate({**record.model_dump(), "coordinator_address": address})


def test_an_ipv6_address_stands_in_brackets(record: EnrolmentRecord) -> None:
    EnrolmentRecord.model_validate({**record.model_dump(), "coordinator_address": "[::1]:8443"})
