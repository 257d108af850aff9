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
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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


# Monitoring: F, O and T. Seeds of the keys in the vectors: authority 1, sites 2 and 3 (2's next key
# 12), boards' signing 4 and 5 and opening 6 and 7, deciders 8 to 10, coordinator 11.

SUITES = {1: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM), 2: SUITE}
STANZA_BYTES = {1: 32 + 64 + 16, 2: 1120 + 64 + 16}
HEADER_FIELDS = [
    "body_bytes",
    "commitment",
    "key_epoch",
    "kind",
    "model_version",
    "period",
    "previous",
    "recipients",
    "roster",
    "schema",
    "sealed_at_s",
    "sequence",
    "site_id",
    "study_id",
    "suite",
    "version",
]


@pytest.fixture(scope="module")
def monitoring() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / "monitoring.json").read_text(encoding="ascii"))
    return loaded


def opening_key_of_suite(suite: int, seed: int) -> tuple[Any, bytes]:
    """K2, K8: the private key and the public bytes."""
    if suite == 2:
        return opening_key(seed)
    private = x25519.X25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return private, private.public_key().public_bytes_raw()


def open_report_by_the_page(
    envelope: bytes, sender: int, recipient: int
) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
    """F1 to F10: header, record and counts."""
    assert envelope[:4] == b"FHM1"
    head, body, stanzas, signature = frames(envelope[4:])
    message = digest("sign/report", head, body, stanzas).encode()
    signing_key(sender).public_key().verify(signature, message)
    header = json.loads(head)
    assert sorted(header) == HEADER_FIELDS
    bound = digest("report-header", head).encode()
    private, public = opening_key_of_suite(header["suite"], recipient)
    mine = fingerprint("sealing", public)
    size = STANZA_BYTES[header["suite"]]
    assert len(stanzas) == size * len(header["recipients"])
    place = header["recipients"].index(mine) * size
    info = digest("seal/report", bound + mine.encode()).encode()
    secret = SUITES[header["suite"]].decrypt(stanzas[place : place + size], private, info=info)
    plaintext = AESGCM(secret[:32]).decrypt(bytes(12), body, bound)
    assert len(plaintext) == header["body_bytes"]
    assert header["commitment"] == digest("report-commitment", secret[32:], plaintext)
    length = int.from_bytes(plaintext[:4], "big")
    record = json.loads(plaintext[4 : 4 + length])
    counts = np.frombuffer(plaintext[4 + length :][: 40 * 4], dtype="<i4")
    assert not any(plaintext[4 + length + 40 * 4 :])
    assert len(plaintext) == -(-(4 + 1532 + 40 * 4) // 4096) * 4096
    return header, record, counts.tolist()


def verify_notice_by_the_page(text: str, signers: dict[str, int]) -> tuple[dict[str, Any], str]:
    """T1, T3 to T5, T7: the record and its digest."""
    outer = json.loads(text)
    assert text == json.dumps(outer, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    record: dict[str, Any] = outer["record"]
    label = "notice/" + record["notice"]
    data = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert [item["by"] for item in outer["signatures"]] == sorted(signers)
    for item in outer["signatures"]:
        key = signing_key(signers[item["by"]]).public_key()
        key.verify(base64.b64decode(item["signature"]), digest(f"sign/{label}", data).encode())
    return record, digest(label, data)


@pytest.mark.parametrize("recipient", [6, 7])
@pytest.mark.parametrize("name", ["report", "x25519_report"])
def test_the_page_suffices_to_open_a_report(
    monitoring: dict[str, Any], name: str, recipient: int
) -> None:
    envelope = bytes.fromhex(monitoring[name])
    header, record, counts = open_report_by_the_page(envelope, 2, recipient)
    assert header["suite"] == monitoring["suites"][name]
    assert (header["site_id"], header["sequence"], header["kind"]) == ("north", 1, "outcome")
    assert header["previous"] == digest("monitoring-genesis", b"small-study", b"north")
    assert (record["kind"], record["period"]) == (header["kind"], header["period"])
    assert [item["cells_per_patient_max"] for item in record["mechanisms"]] == [1, 2]
    assert float(record["epsilon_remaining"]) == 6.25
    assert counts == [1001 * place for place in range(-20, 20)]


def test_the_page_suffices_to_follow_a_chain_over_a_new_key(monitoring: dict[str, Any]) -> None:
    first, second = (bytes.fromhex(monitoring[name]) for name in ("report", "next_report"))
    header, _, _ = open_report_by_the_page(second, 12, 6)
    assert (header["sequence"], header["key_epoch"]) == (2, 2)
    assert header["previous"] == digest("report-envelope", first) == monitoring["report_digest"]
    assert header["roster"] == monitoring["next_roster_digest"]


def test_the_page_suffices_to_verify_rosters(monitoring: dict[str, Any]) -> None:
    first, named = verify_notice_by_the_page(monitoring["roster"], {"authority": 1})
    assert named == monitoring["roster_digest"]
    assert first["previous"] == digest("monitoring-roster-genesis", first["consortium"].encode())
    for board, seeds in zip(first["boards"], [(5, 7), (4, 6)], strict=True):
        signing, opening = seeds
        assert base64.b64decode(board["sealing_key"]) == opening_key(opening)[1]
        public = signing_key(signing).public_key().public_bytes_raw()
        assert base64.b64decode(board["verify_key"]) == public
    then, _ = verify_notice_by_the_page(monitoring["next_roster"], {"authority": 1})
    assert (then["roster_version"], then["previous"]) == (2, named)
    site = then["sites"][0]
    names = ("key_epoch", "site_id", "verify_key")
    change = {"consortium": then["consortium"], "version": 1, **{n: site[n] for n in names}}
    data = json.dumps(change, sort_keys=True, separators=(",", ":")).encode()
    signing_key(2).public_key().verify(
        base64.b64decode(site["countersignature"]),
        digest("sign/monitoring-key-change", data).encode(),
    )


@pytest.mark.parametrize(
    ("kind", "signers", "field", "value"),
    [
        ("receipt", {"board": 4}, "sequence", 1),
        ("decision", {"ada": 8, "ben": 9}, "action", "pause-site"),
        ("promotion", {"coordinator": 11}, "sequence", 1),
        (
            "closing",
            {"board": 4},
            "sites",
            [
                {"share_a": "a" * 64, "share_b": "b" * 64, "site_id": "north"},
                {"share_a": "c" * 64, "share_b": "d" * 64, "site_id": "south"},
            ],
        ),
        ("partial_sum", {"aggregator": 13}, "closing", "8" * 64),
        ("check_key", {"authority": 1}, "commitment", "9" * 64),
    ],
)
def test_the_page_suffices_to_verify_a_notice(
    monitoring: dict[str, Any], kind: str, signers: dict[str, int], field: str, value: Any
) -> None:
    record, _ = verify_notice_by_the_page(monitoring[kind], signers)
    assert (record["notice"], record[field]) == (kind.replace("_", "-"), value)
    if kind == "decision":
        assert record["previous"] == digest("decision-genesis", b"Small consortium", b"small-study")
