"""A source's files by content: what they were when rows were made, told in milliseconds.

A file that was read once and whose size, times and inode are what they were then is not read again.
Its time of change (ctime) is the file system's own and cannot be set back; a file that changed
within the clock's grain of being read is read again.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.canonical import digest_bytes
from common.errors import DataSourceError
from site_client.sources.remembered import read_remembered, remember

_GRAIN_NS: Final = 2_000_000_000
"""The coarsest clock of a file system in use, FAT's."""
_KNOWN_MAX: Final = 1_000_000


@dataclass(frozen=True)
class FileContent:
    """One file of a source.

    Args:
        name: digest of its name, which may be a patient's.
        size_bytes: of the file.
        content: SHA-256.
    """

    name: str
    size_bytes: int
    content: str


class FileDigests:
    """SHA-256 of files, remembered in one small file.

    Args:
        memory: where; a damaged or missing one is made anew.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known = read_remembered(memory)
        self._is_changed = False

    def manifest(self, files: list[tuple[str, Path]]) -> tuple[FileContent, ...]:
        """Return the content of each file, by digest of its name.

        Raises:
            DataSourceError: a file cannot be read, or changed while it was.
        """
        found = sorted(
            (self._content(name, path) for name, path in files), key=lambda item: item.name
        )
        if self._is_changed:
            remember(self._memory, self._known)
            self._is_changed = False
        return tuple(found)

    def _content(self, name: str, path: Path) -> FileContent:
        named = name_digest(name)
        where = digest_bytes("source-file-path", os.fsencode(path.absolute()))
        try:
            with path.open("rb") as stream:
                before = _state(stream.fileno())
                known = self._known.get(where)
                if isinstance(known, list) and known[:-1] == before:
                    return FileContent(named, int(before[0]), str(known[-1]))
                content = hashlib.file_digest(stream, "sha256").hexdigest()
                after = _state(stream.fileno())
                now_ns = time.time_ns()
        except (OSError, ValueError):
            before, after, content, now_ns = [], [""], "", 0
        if before != after:
            raise DataSourceError(
                "a file of the source cannot be read, or changes while it is",
                expected="files that the agent may read and that nobody writes now",
                arrived=f"file {named[:12]} (by digest; a name may be a patient's)",
                todo="wait until the export is complete, check permissions, then try again",
            )
        if now_ns - max(int(after[1]), int(after[2])) > _GRAIN_NS:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[where] = [*after, content]
            self._is_changed = True
        return FileContent(named, int(after[0]), content)


def name_digest(name: str) -> str:
    """Return what stands for a file's name where a name must not."""
    return digest_bytes("source-file-name", os.fsencode(name))


def _state(descriptor: int) -> list[str]:
    status = os.fstat(descriptor)
    numbers = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
    return [str(number) for number in numbers]
