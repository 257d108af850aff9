"""The keys that open reports: the one in use, those before it, and when an old one is deleted.

A report is sealed to the keys of the roster that it names, so a key must outlive its place in the
roster by the grace and by what still waits; after that, deleting it is what keeps yesterday's
reports closed when the board's machine is stolen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from common.crypto.keys import (
    HYBRID_SUITE,
    X25519_SUITE,
    AnyOpeningKey,
    OpeningKey,
    X25519OpeningKey,
)
from common.errors import ConfigError, KeyFileError
from common.protocol.monitoring.report_header import ReportHeader

_MAKERS: Final[dict[int, type[OpeningKey] | type[X25519OpeningKey]]] = {
    HYBRID_SUITE: OpeningKey,
    X25519_SUITE: X25519OpeningKey,
}


SUITE_NAMES: Final = {"hybrid": HYBRID_SUITE, "x25519": X25519_SUITE}
"""How people name suites: ML-KEM-768 with X25519, and X25519 alone."""


def parse_suite(text: str) -> int:
    """Return the suite that a person names; raises `ConfigError`."""
    if text not in SUITE_NAMES:
        raise ConfigError(
            "a suite is refused",
            expected=" or ".join(SUITE_NAMES),
            arrived=text,
            todo="name one of them; hybrid, unless the roster allows x25519 alone",
        )
    return SUITE_NAMES[text]


@dataclass(frozen=True)
class OpeningKeys:
    """All opening keys that this board still has.

    Args:
        folder: one file a key, named by suite and fingerprint.
        keys: by fingerprint.
    """

    folder: Path
    keys: dict[str, AnyOpeningKey]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read every key in the folder; raises `KeyFileError`."""
        keys: dict[str, AnyOpeningKey] = {}
        for path in sorted(folder.glob("*.key")):
            key = _MAKERS[_suite_of(path)].read(path)
            if path != _path(folder, key):
                raise KeyFileError(
                    "an opening key lies under another key's name",
                    expected=f"{_path(folder, key).name} in {folder}",
                    arrived=path.name,
                    todo="restore the folder from its backup",
                )
            keys[key.fingerprint] = key
        return cls(folder, keys)

    @classmethod
    def make(cls, folder: Path, *, suite: int = HYBRID_SUITE) -> AnyOpeningKey:
        """Make a new key in the folder; raises `KeyFileError`."""
        key = _MAKERS[suite].generate()
        key.write(_path(folder, key))
        return key

    def for_report(self, header: ReportHeader) -> AnyOpeningKey | None:
        """Return a key that a report is sealed to, or None."""
        for fingerprint in header.recipients:
            key = self.keys.get(fingerprint)
            if key is not None and key.suite == header.suite:
                return key
        return None

    def delete(self, fingerprint: str) -> None:
        """Delete one key for good; its file's bytes are overwritten first."""
        path = _path(self.folder, self.keys.pop(fingerprint))
        # Overwriting helps only where the file system writes in place; the docs say so.
        with path.open("r+b") as stream:
            stream.write(os.urandom(path.stat().st_size))
            stream.flush()
            os.fsync(stream.fileno())
        path.unlink()


def _path(folder: Path, key: AnyOpeningKey) -> Path:
    return folder / f"{key.suite}-{key.fingerprint.replace(' ', '')}.key"


def _suite_of(path: Path) -> int:
    first = path.name.partition("-")[0]
    suite = int(first) if first.isdigit() else 0
    if suite not in _MAKERS:
        raise KeyFileError(
            "a file among the opening keys is none",
            expected="files that `cohortium-board` made",
            arrived=path.name,
            todo="move it elsewhere",
        )
    return suite
