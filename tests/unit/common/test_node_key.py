"""Node keys: EC P-384 in OpenSSH form, as Flower's node authentication wants them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.crypto.node_key import make_node_key, parse_node_public_key, read_node_key
from common.errors import EnrolmentError, KeyFileError


def test_a_node_key_survives_its_file(tmp_path: Path) -> None:
    text = make_node_key(tmp_path / "node.key")
    key = read_node_key(tmp_path / "node.key")
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert public.decode() == text
    assert text.startswith("ecdsa-sha2-nistp384 ")
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600


def test_a_comment_does_not_make_another_key(tmp_path: Path) -> None:
    text = make_node_key(tmp_path / "node.key")
    assert parse_node_public_key(text + " someone@somewhere") == text.encode()


def _public(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "é",
        "ecdsa-sha2-nistp384 AAAA",
        _public(ed25519.Ed25519PrivateKey.generate()),
        _public(ec.generate_private_key(ec.SECP256R1())),
    ],
    ids=["empty", "not ASCII", "cut short", "Ed25519", "P-256"],
)
def test_another_kind_of_key_is_refused(text: str) -> None:
    with pytest.raises(EnrolmentError):
        parse_node_public_key(text)


def test_a_file_that_is_no_node_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.key").write_text("nothing of the kind\n")
    (tmp_path / "node.key").chmod(0o600)
    with pytest.raises(KeyFileError):
        read_node_key(tmp_path / "node.key")
