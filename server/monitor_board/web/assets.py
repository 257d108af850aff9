"""Files that pages load: read once, the vendored ones compared with their manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import ConfigError

STATIC: Final = Path(__file__).parent / "static"
_KINDS: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """One file with its media type."""

    content: bytes
    media_type: str


def read_assets(folder: Path = STATIC) -> dict[str, Asset]:
    """Return the files by their path under `/static/`; only these are ever served.

    Raises:
        ConfigError: when a vendored file is not the one in its manifest.
    """
    check_vendored(folder / "vendor")
    return {
        str(path.relative_to(folder)): Asset(path.read_bytes(), _KINDS[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in _KINDS
    }


def check_vendored(folder: Path) -> None:
    """Compare each vendored file with its SHA-256 in `manifest.json`.

    Raises:
        ConfigError: when one differs, is missing, or is there without an entry.
    """
    entries = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    stated = {entry["file"]: entry["sha256"] for entry in entries}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    if stated != found:
        wrong = sorted(name for name, _ in stated.items() ^ found.items())
        raise ConfigError(
            "a vendored file of the dashboard was changed",
            expected="the files of static/vendor/manifest.json, byte for byte",
            arrived=", ".join(dict.fromkeys(wrong)),
            todo="install this software again",
        )
