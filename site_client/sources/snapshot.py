"""What a source was when it was read: one digest of its content, and the end of its time.

Every reader uses these two, so that one rule holds for all formats.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from common.canonical import digest_record
from common.errors import DataSourceError

CLOCK_SLACK: Final = datetime.timedelta(days=1)
"""How far after the writing of its source an event may lie.

A file's time is universal and a site's wall clock up to 14 hours ahead; the rest is for clocks that
are wrong.
"""


def snapshot_digest(
    label: str, declared: Mapping[str, Any], files: Iterable[tuple[str, Path]]
) -> str:
    """Return a digest over what is declared and each file's name and content, never its times.

    Args:
        label: of the kind of source.
        declared: JSON: the mapping, the time zone, whatever else decides what is read.
        files: relative name and path; code maps among them.

    Raises:
        DataSourceError: when a file cannot be read.
    """
    contents = [[os.fsencode(name).hex(), _sha256(name, path)] for name, path in sorted(files)]
    return content_digest(label, declared, contents)


def content_digest(
    label: str, declared: Mapping[str, Any], contents: Sequence[Sequence[str]]
) -> str:
    """Return the digest of a source whose content is known as texts; see `snapshot_digest`."""
    # What is declared need not be ASCII, as canonical bytes demand; this text is.
    text = json.dumps(declared, sort_keys=True, separators=(",", ":"))
    return digest_record(label, {"contents": contents, "declared": text})


def end_of_data(
    declared: datetime.date | None, files: Iterable[tuple[str, Path]]
) -> datetime.datetime:
    """Return the first moment at which nothing can have happened.

    Args:
        declared: the first day after the data; data whose dates are shifted into the future, as
            MIMIC's, need one.
        files: name and path; without a declared day, `CLOCK_SLACK` after the newest was written.

    Raises:
        DataSourceError: when a file is not there.
    """
    if declared is not None:
        return datetime.datetime.combine(declared, datetime.time())
    newest = max(_written(name, path) for name, path in files)
    changed = datetime.datetime.fromtimestamp(newest, datetime.UTC).replace(tzinfo=None)
    return changed + CLOCK_SLACK


def _sha256(name: str, path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        pass
    raise _absent(name)


def _written(name: str, path: Path) -> float:
    try:
        return path.stat().st_mtime
    except (OSError, ValueError):
        pass
    raise _absent(name)


def _absent(name: str) -> DataSourceError:
    return DataSourceError(
        f"{name}: the file cannot be read",
        expected="a file that the agent may read",
        arrived="no such file, or no permission",
        todo="correct the path in site.toml",
    )
