"""The thin Flower bundle: three files, no code (docs/decisions/0002)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

BUNDLE_FILES: Final = ("pyproject.toml", "README.md", "LICENSE")
BUNDLE_NAME: Final = "cohortium.fab"


def read_bundle() -> bytes:
    """Return the shipped bundle: the same bytes on every machine, as each site pins them.

    It is shipped built, because another zlib would compress the same files to other bytes.
    """
    return (Path(__file__).parent / BUNDLE_NAME).read_bytes()


def build_bundle() -> bytes:
    """Build the bundle anew from its files, as Flower's FAB bytes; `make bundle` writes them."""
    # Imported here: Flower's builder loads its whole command line.
    from flwr.cli.build import build_fab_from_files

    folder = Path(__file__).parent
    content, _ = build_fab_from_files({name: (folder / name).read_bytes() for name in BUNDLE_FILES})
    return bytes(content)


def bundle_digest(content: bytes) -> str:
    """Return the SHA-256 by which a site pins the bundle."""
    return hashlib.sha256(content).hexdigest()
