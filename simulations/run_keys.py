"""The keys of everyone in one simulated run, all derived from one secret of that run.

A site can so be opened anywhere from its folder, and a thousand of them need no key files.
"""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519

from common.crypto.key_files import read_secret, write_secret
from common.crypto.keys import OpeningKey, SigningKey
from common.errors import KeyFileError
from common.ids import SiteId
from server.coordinator import CoordinatorKeys

_NAME: Final = "keys.secret"
_SECRET_BYTES: Final = 32
_ED25519_BYTES: Final = 32
_MLKEM768_BYTES: Final = 64
_X25519_BYTES: Final = 32


class RunKeys:
    """Signing and opening keys by party.

    Args:
        secret: of the run.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def of_folder(cls, folder: Path) -> RunKeys:
        """Return the keys of a run's folder, made there the first time; raises `KeyFileError`."""
        path = folder / _NAME
        if not path.exists():
            write_secret(path, os.urandom(_SECRET_BYTES))
        secret = read_secret(path)
        if len(secret) != _SECRET_BYTES:
            raise KeyFileError(
                "the secret of a simulated run is refused",
                expected=f"{_SECRET_BYTES} bytes in {path}",
                arrived=f"{len(secret)} bytes",
                todo="begin the run anew in an empty folder",
            )
        return cls(secret)

    @cached_property
    def coordinator(self) -> CoordinatorKeys:
        """The coordinator's keys."""
        return CoordinatorKeys(*self._of("coordinator"))

    def site(self, site_id: SiteId) -> tuple[SigningKey, OpeningKey]:
        """Return a site's signing and opening key."""
        return self._of(f"site/{site_id}")

    def _of(self, party: str) -> tuple[SigningKey, OpeningKey]:
        stream = hashlib.shake_256(b"cohortium/simulated-keys\0" + self._secret + party.encode())
        raw = stream.digest(_ED25519_BYTES + _MLKEM768_BYTES + _X25519_BYTES)
        signing, opening = raw[:_ED25519_BYTES], raw[_ED25519_BYTES:]
        return (
            SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(signing)),
            OpeningKey(
                mlkem.MLKEM768PrivateKey.from_seed_bytes(opening[:_MLKEM768_BYTES]),
                x25519.X25519PrivateKey.from_private_bytes(opening[_MLKEM768_BYTES:]),
            ),
        )
