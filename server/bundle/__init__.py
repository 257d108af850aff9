"""The thin Flower bundle: three files, no code (docs/decisions/0002)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

BUNDLE_FILES: Final = ("pyproject.toml", "README.md", "LICENSE")


def build_bundle() -> bytes:
    """Return the bundle as Flower's FAB bytes; the same bytes on every machine."""
    # Imported here: Flower's builder loads its whole command line.
    from flwr.cli.build import build_fab_from_files

    folder = Path(__file__).parent
    content, _ = build_fab_from_files({name: (folder / name).read_bytes() for name in BUNDLE_FILES})
    return bytes(content)


def bundle_digest(content: bytes) -> str:
    """Return the SHA-256 by which a site pins the bundle."""
    return hashlib.sha256(content).hexdigest()
