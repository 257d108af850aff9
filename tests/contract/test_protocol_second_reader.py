"""A second reader, written from docs/protocol.md, that shares no code with ours."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519

from tests.lib.protocol_vectors import COORDINATOR_SEED, SITE_SEED, VECTORS

SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def digest(label: str, *parts: bytes) -> str:
    """C4."""
    framed = b"".join(struct.pack(">Q", len(part)) + part for part in parts)
    return hashlib.sha256(b"cohortium/1/" + label.encode() + b"\0" + framed).hexdigest()


def frames(data: bytes) -> list[bytes]:
    """C5."""
    found = []
    while data:
        length = int.from_bytes(data[:8], "big")
        found.append(data[8 : 8 + length])
        data = data[8 + length :]
    return found


def fingerprint(use: str, public: bytes) -> str:
    """K3."""
    text = hashlib.sha256(b"cohortium/fingerprint/" + use.encode() + b"\0" + public).hexdigest()
    return " ".join(text[i : i + 4] for i in range(0, 32, 4))


def signing_key(seed: int) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def opening_key(seed: int) -> tuple[hpke.MLKEM768X25519PrivateKey, bytes]:
    """K2: the private key and the public bytes."""
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes([seed]) * 64)
    curve = x25519.X25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    return hpke.MLKEM768X25519PrivateKey(lattice, curve), public


def open_by_the_page(data: bytes, sender: int, recipient: int) -> tuple[dict[str, Any], bytes]:
    """E1 to E5."""
    assert data[:4] == b"CHE1"
    head, sealed, signature = frames(data[4:])
    header: dict[str, Any] = json.loads(head)
    label = "envelope/" + header["direction"]
    private, public = opening_key(recipient)
    verify_key = signing_key(sender).public_key()
    assert header["sender"] == fingerprint("signing", verify_key.public_bytes_raw())
    assert header["recipient"] == fingerprint("sealing", public)
    verify_key.verify(signature, digest(f"sign/{label}", head, sealed).encode())
    return header, SUITE.decrypt(sealed, private, info=digest(f"seal/{label}", head).encode())


@pytest.fixture(scope="module")
def vectors() -> dict[str, str]:
    loaded: dict[str, str] = json.loads((VECTORS / "messages.json").read_text(encoding="ascii"))
    return loaded


def test_the_page_suffices_to_open_a_request(vectors: dict[str, str]) -> None:
    envelope = bytes.fromhex(vectors["request_envelope"])
    header, message = open_by_the_page(envelope, COORDINATOR_SEED, SITE_SEED)
    assert (header["site"], header["study"], header["round"]) == ("north", "small-study", 1)
    head, body = frames(message)
    assert json.loads(head)["base_version"] == digest("parameters", body)
    length = int.from_bytes(body[:8], "little")
    layout = json.loads(body[8 : 8 + length])
    first, stop = layout["linear.weight"]["data_offsets"]
    numbers = np.frombuffer(body[8 + length :][first:stop], dtype="<f4")
    assert numbers.tolist() == [0.25, -1.5, 3.0]


def test_the_page_suffices_to_open_a_reply(vectors: dict[str, str]) -> None:
    envelope = bytes.fromhex(vectors["reply_envelope"])
    header, message = open_by_the_page(envelope, SITE_SEED, COORDINATOR_SEED)
    assert header["direction"] == "reply"
    head = json.loads(frames(message)[0])
    assert head["message"] == "task-released"
    assert [item["kind"] for item in head["mechanisms"]] == ["dp-sgd-steps", "gaussian-vector"]
    assert float(head["statement"]["delta"]) == 1e-5


def test_the_page_suffices_to_read_a_count() -> None:
    vectors = json.loads((VECTORS / "count.json").read_text(encoding="ascii"))
    head, body = frames(bytes.fromhex(vectors["request"]))
    asked = json.loads(head)
    assert (asked["kind"], asked["evaluate"], asked["round"]) == ("count", False, 2)
    assert asked["base_version"] == digest("count-question", body) == vectors["question_digest"]
    assert json.loads(body) == {"candidates": [0, 4, 7], "version": 1}
    head, body = frames(bytes.fromhex(vectors["release"]))
    answered = json.loads(head)
    assert answered["evaluation"] is None
    assert answered["mechanisms"][0]["cells_per_patient_max"] == 3
    counts = np.frombuffer(body, dtype="<i4")
    assert counts.tolist() == [*range(-3, 18), 70_000, 0, -1]


def test_the_page_suffices_to_read_sums_for_scaling() -> None:
    frozen = json.loads((VECTORS / "scaling.json").read_text(encoding="ascii"))
    head, body = frames(bytes.fromhex(frozen["request"]))
    asked = json.loads(head)
    assert (asked["kind"], asked["round"], asked["evaluate"], body) == ("scale", 0, False, b"")
    assert asked["base_version"] == digest("parameters", b"")
    head, body = frames(bytes.fromhex(frozen["release"]))
    assert json.loads(head)["evaluation"] is None
    length = int.from_bytes(body[:8], "little")
    assert json.loads(body[8 : 8 + length])["scaling.moments"]["shape"] == [3, 2]
    sums = np.frombuffer(body[8 + length :], dtype="<f4").reshape(3, 2)
    assert sums.tolist() == [[1.5, -2.0], [-0.25, 8.0], [40.0, 30.5]]


@pytest.mark.parametrize(
    ("name", "label", "key"),
    [
        ("enrolment-request.json", "enrolment-request", "verify_key"),
        ("enrolment.json", "enrolment-record", "coordinator_verify_key"),
    ],
)
def test_the_page_suffices_to_verify_an_enrolment_file(name: str, label: str, key: str) -> None:
    outer = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    canonical = json.dumps(outer["record"], sort_keys=True, separators=(",", ":"))
    verify_key = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(outer["record"][key]))
    verify_key.verify(
        base64.b64decode(outer["signature"]), digest(f"sign/{label}", canonical.encode()).encode()
    )


def test_the_page_suffices_to_name_a_request(vectors: dict[str, str]) -> None:
    outer = json.loads((VECTORS / "enrolment-request.json").read_text(encoding="utf-8"))
    canonical = json.dumps(outer["record"], sort_keys=True, separators=(",", ":"))
    named = digest("enrolment-request", canonical.encode())
    assert named == vectors["enrolment_request_digest"]
