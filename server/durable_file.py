"""Files of the coordinator and of a monitor board: whole or not at all, with one error."""

from __future__ import annotations

from pathlib import Path

from common.errors import StoreError
from common.whole_file import write_whole


def write_durably(path: Path, content: bytes, *, waits_for_disk: bool = True) -> None:
    """Write a file as `write_whole` does; raises `StoreError`."""
    try:
        write_whole(path, content, waits_for_disk=waits_for_disk)
    except OSError as error:
        raise StoreError(
            f"{path.name} cannot be written",
            expected=f"a writable folder {path.parent} with free space",
            arrived=error.strerror or type(error).__name__,
            todo="free disk space or correct the permissions",
        ) from None
