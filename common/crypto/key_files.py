"""Secret files: made once, readable by their owner only, never overwritten."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from common.errors import KeyFileError

SECRET_FILE_BYTES_MAX: Final = 64 << 10  # the largest of our keys is 1 kB


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file with mode 0600 and make it durable; raises `KeyFileError` if it exists."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            _fill(handle, content)
        except OSError:
            path.unlink()  # half a key must not stand in the way of the next attempt
            raise
        _make_name_durable(path.parent)
    except FileExistsError:
        raise KeyFileError(
            "a key file is never overwritten",
            expected=f"no file {path}",
            arrived="a file is there",
            todo="keep the existing key, or move it away first if it must be replaced",
        ) from None
    except OSError as error:
        raise KeyFileError(
            "a key file cannot be written",
            expected=f"a writable folder {path.parent}",
            arrived=error.strerror or type(error).__name__,
            todo="create the folder, or free disk space",
        ) from None


def _fill(handle: int, content: bytes) -> None:
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _make_name_durable(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_secret(path: Path) -> bytes:
    """Read a secret file; raises `KeyFileError` if others can read it or it is not a plain file."""
    try:
        # Not blocking: a named pipe in the place of a key must not hang the program.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            _check_private(path, os.fstat(handle))
            content = os.read(handle, SECRET_FILE_BYTES_MAX + 1)
        finally:
            os.close(handle)
    except OSError as error:
        raise KeyFileError(
            "a key file cannot be read",
            expected=f"a file {path}",
            arrived=error.strerror or type(error).__name__,
            todo="enrol first, or restore the key from its backup",
        ) from None
    if len(content) > SECRET_FILE_BYTES_MAX:
        raise KeyFileError(
            "a key file is too large",
            expected=f"at most {SECRET_FILE_BYTES_MAX} bytes in {path}",
            arrived="more",
            todo="restore the key from its backup",
        )
    return content


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077:
        raise KeyFileError(
            "a key file is open to others",
            expected=f"a plain file {path} with mode 0600",
            arrived=f"mode {stat.S_IMODE(status.st_mode):04o}",
            todo=f"chmod 600 {path}, and replace the key if anyone may have read it",
        )
