"""A PostgreSQL server of one test module alone."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = secrets.token_hex(12)
PROGRAMS = Path("/usr/lib/postgresql/15/bin")


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Run a server on a socket in its own folder and give its URL; skips without PostgreSQL."""
    user = "postgres" if os.geteuid() == 0 else None
    if not (PROGRAMS / "initdb").exists():
        pytest.skip("PostgreSQL 15 is not installed")
    folder = Path(tempfile.mkdtemp(prefix="test-pg-"))
    (folder / "password").write_text(PASSWORD)
    try:
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        commands = (
            f"{PROGRAMS}/initdb -D {folder}/data -U reader -E UTF8 --locale=C --no-sync "
            f"-A scram-sha-256 --pwfile={folder}/password",
            f"{PROGRAMS}/pg_ctl -D {folder}/data -w -l {folder}/log start -o "
            f"'-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off'",
        )
        for command in commands:
            done = subprocess.run(
                ["sh", "-c", command], user=user, cwd=folder, capture_output=True, check=False
            )
            if done.returncode:
                pytest.skip(f"PostgreSQL does not start here: {done.stderr.decode()[-300:]}")
        yield f"postgresql://reader:{PASSWORD}@/postgres?host={folder}"
    finally:
        subprocess.run(
            [PROGRAMS / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"],
            user=user,
            cwd="/",
            capture_output=True,
            check=False,
        )
        shutil.rmtree(folder)
