"""What a process remembers of the one before: a small file that may be lost at any time."""

from __future__ import annotations

from pathlib import Path

from common.canonical import Canonical, canonical_bytes, parse_canonical
from common.errors import CohortiumError
from common.whole_file import write_whole


def read_remembered(path: Path) -> dict[str, Canonical]:
    """Return what was remembered; of a damaged or missing file nothing."""
    try:
        record = parse_canonical(path.read_bytes())
    except (OSError, CohortiumError):
        return {}
    return dict(record) if isinstance(record, dict) else {}


def remember(path: Path, record: dict[str, Canonical]) -> None:
    """Write what is to be remembered, for the agent's account alone; raises `OSError`."""
    write_whole(path, canonical_bytes(record), mode=0o600)
