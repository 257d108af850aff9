"""What version 1 of the protocol wrote once is read, and written again, for ever."""

from __future__ import annotations

import json

import pytest

from common.crypto.signing import sign
from common.protocol.arrays import decode_parameters, encode_parameters, parameters_digest
from common.protocol.codec import decode_reply, decode_request, encode_reply, encode_request
from common.protocol.enrolment import read_enrolment, read_request, request_digest
from common.protocol.envelope import envelope_digest, open_envelope, read_header
from common.protocol.messages import Direction
from tests.lib.messages import (
    SHAPES,
    Party,
    count_release,
    count_request,
    header,
    refusal,
    release,
    request,
    scale_release,
    scale_request,
)
from tests.lib.protocol_vectors import VECTORS, parties


@pytest.fixture(scope="module")
def vectors() -> dict[str, str]:
    loaded: dict[str, str] = json.loads((VECTORS / "messages.json").read_text(encoding="ascii"))
    return loaded


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Party, Party]:
    return parties(tmp_path_factory.mktemp("parties"))


def test_key_files_of_version_1_are_read_as_the_same_keys(
    vectors: dict[str, str], both: tuple[Party, Party]
) -> None:
    coordinator, site = both
    assert coordinator.signing.fingerprint == vectors["coordinator_signing_fingerprint"]
    assert coordinator.opening.fingerprint == vectors["coordinator_opening_fingerprint"]
    assert site.signing.verify_key.to_text() == vectors["site_verify_key"]
    assert site.opening.sealing_key.to_text() == vectors["site_sealing_key"]


def test_parameters_have_the_same_bytes_and_digest(vectors: dict[str, str]) -> None:
    data = bytes.fromhex(vectors["parameters"])
    arrays = decode_parameters(data, expected=SHAPES, bytes_max=len(data))
    assert encode_parameters(arrays) == data
    assert parameters_digest(data) == vectors["parameters_digest"]


def test_messages_have_the_same_bytes(vectors: dict[str, str]) -> None:
    assert encode_request(request()).hex() == vectors["request"]
    assert encode_reply(release()).hex() == vectors["release"]
    assert encode_reply(refusal()).hex() == vectors["refusal"]
    assert decode_request(bytes.fromhex(vectors["request"])) == request()
    assert decode_reply(bytes.fromhex(vectors["release"])) == release()
    assert decode_reply(bytes.fromhex(vectors["refusal"])) == refusal()


def test_counts_have_the_same_bytes() -> None:
    vectors = json.loads((VECTORS / "count.json").read_text(encoding="ascii"))
    assert encode_request(count_request()).hex() == vectors["request"]
    assert encode_reply(count_release()).hex() == vectors["release"]
    assert count_request().base_version == vectors["question_digest"]
    assert decode_request(bytes.fromhex(vectors["request"])) == count_request()
    assert decode_reply(bytes.fromhex(vectors["release"])) == count_release()


def test_messages_about_scaling_have_the_same_bytes() -> None:
    frozen = json.loads((VECTORS / "scaling.json").read_text(encoding="ascii"))
    assert encode_request(scale_request()).hex() == frozen["request"]
    assert encode_reply(scale_release()).hex() == frozen["release"]
    assert decode_request(bytes.fromhex(frozen["request"])) == scale_request()
    assert decode_reply(bytes.fromhex(frozen["release"])) == scale_release()


def test_a_request_sealed_under_version_1_opens(
    vectors: dict[str, str], both: tuple[Party, Party]
) -> None:
    coordinator, site = both
    data = bytes.fromhex(vectors["request_envelope"])
    opened = open_envelope(
        data,
        verify_key=coordinator.signing.verify_key,
        opening_key=site.opening,
        direction=Direction.REQUEST,
    )
    assert opened == (header(coordinator, site), encode_request(request()))
    assert read_header(data) == header(coordinator, site)
    assert envelope_digest(data) == vectors["request_envelope_digest"]


def test_a_reply_sealed_under_version_1_opens(
    vectors: dict[str, str], both: tuple[Party, Party]
) -> None:
    coordinator, site = both
    opened = open_envelope(
        bytes.fromhex(vectors["reply_envelope"]),
        verify_key=site.signing.verify_key,
        opening_key=coordinator.opening,
        direction=Direction.REPLY,
    )
    assert opened[1] == encode_reply(release())


def test_enrolment_files_of_version_1_are_read(vectors: dict[str, str]) -> None:
    asked = read_request(VECTORS / "enrolment-request.json")
    answered = read_enrolment(VECTORS / "enrolment.json")
    assert request_digest(asked) == vectors["enrolment_request_digest"]
    assert answered.request_digest == vectors["enrolment_request_digest"]


def test_a_signature_has_the_same_bytes(both: tuple[Party, Party]) -> None:
    # Ed25519 is deterministic (RFC 8032), so this freezes the framing of label and parts.
    assert sign(both[0].signing, "vector", b"one", b"two").hex() == (
        "b0581ed821714ac00102b373d85181791f298005bc7629c521ef7304b333be7e"
        "f27350dacd5fe8d6e97ce87562dd44fba6b7cb13ec048dedd3264198bd26b40a"
    )
