"""Write a file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from common.errors import StoreError


def write_durably(path: Path, content: bytes) -> None:
    """Write, flush to disk, then rename into place; raises `StoreError`.

    After a crash the file is either whole or absent; a `.partial` left behind is harmless.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(
            f"{path.name} cannot be written",
            expected=f"a writable folder {path.parent} with free space",
            arrived=error.strerror or type(error).__name__,
            todo="free disk space or correct the permissions",
        ) from None
