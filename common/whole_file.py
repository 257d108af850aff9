"""Write a file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(
    path: Path, content: bytes, *, mode: int = 0o666, waits_for_disk: bool = True
) -> None:
    """Write, flush to disk, then rename into place; raises `OSError`.

    After a crash the file is either whole or absent; a `.partial` left behind is harmless.

    Args:
        path: of the file.
        content: all of it.
        mode: of a new file, less the process' umask.
        waits_for_disk: False: a kill of the process leaves the file whole or absent, a power cut
            may not.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # one left behind may have another mode
    with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
        stream.write(content)
        if waits_for_disk:
            stream.flush()
            os.fsync(stream.fileno())
    partial.replace(path)
    if not waits_for_disk:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
