"""Secret files: written once, for their owner only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.crypto import key_files
from common.crypto.key_files import SECRET_FILE_BYTES_MAX, read_secret, write_secret
from common.errors import KeyFileError


def test_a_secret_file_is_never_overwritten(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"first")
    with pytest.raises(KeyFileError):
        write_secret(tmp_path / "key", b"second")
    assert read_secret(tmp_path / "key") == b"first"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o777])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    write_secret(tmp_path / "key", b"secret-content")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(KeyFileError) as caught:
        read_secret(tmp_path / "key")
    assert "secret-content" not in str(caught.value)


def test_a_symbolic_link_is_not_followed_for_reading(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"x")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with pytest.raises(KeyFileError):
        read_secret(tmp_path / "link")


def test_a_symbolic_link_is_not_followed_for_writing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError):
        write_secret(tmp_path / "link", b"x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_file_or_folder_is_a_key_file_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError):
        read_secret(tmp_path / "none")
    with pytest.raises(KeyFileError):
        write_secret(tmp_path / "none" / "key", b"x")


def test_a_folder_or_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(KeyFileError):
            read_secret(tmp_path / name)


def test_a_file_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", b"x" * (SECRET_FILE_BYTES_MAX + 1))
    with pytest.raises(KeyFileError):
        read_secret(tmp_path / "key")


def test_a_write_that_fails_leaves_no_half_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(key_files.os, "fsync", fail)
    with pytest.raises(KeyFileError):
        write_secret(tmp_path / "key", b"x")
    monkeypatch.undo()
    write_secret(tmp_path / "key", b"whole")
    assert read_secret(tmp_path / "key") == b"whole"
