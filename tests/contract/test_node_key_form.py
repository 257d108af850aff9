"""Flower and OpenSSH read the node keys that we make."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from common.crypto.node_key import make_node_key, read_node_key


def test_flower_signs_with_the_key_and_verifies_with_its_public_half(tmp_path: Path) -> None:
    asymmetric = pytest.importorskip("flwr.supercore.primitives.asymmetric")
    make_node_key(tmp_path / "node.key")
    key = read_node_key(tmp_path / "node.key")
    assert asymmetric.uses_nist_ec_curve(key.public_key())
    signature = asymmetric.sign_message(key, b"timestamp")
    assert asymmetric.verify_signature(key.public_key(), b"timestamp", signature)


def test_openssh_derives_the_same_public_key(tmp_path: Path) -> None:
    program = shutil.which("ssh-keygen")
    if program is None:
        pytest.skip("ssh-keygen is not installed")
    text = make_node_key(tmp_path / "node.key")
    derived = subprocess.run(
        [program, "-y", "-f", str(tmp_path / "node.key")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert derived.stdout.split()[:2] == text.split()[:2]
