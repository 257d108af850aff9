"""One probe for all images: is the service of this container alive? Exit 0 or 1."""

from __future__ import annotations

import os
import socket
import sqlite3
import ssl
import sys
import tomllib
import urllib.request
from contextlib import closing
from pathlib import Path

HOME = Path(os.environ.get("COHORTIUM_COORDINATOR_HOME", "/var/lib/cohortium"))


def coordinator() -> bool:
    """Return whether the public listener answers over TLS."""
    config = tomllib.loads((HOME / "server.toml").read_text())
    context = ssl.create_default_context(cafile=str(HOME / "ca.crt"))
    url = f"https://127.0.0.1:{config['port']}/health"
    with urllib.request.urlopen(url, context=context, timeout=4) as answer:
        return bool(answer.status == 200)


def agent() -> bool:
    """Return whether the agent's socket takes a connection."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(4)
        probe.connect(str(HOME / "run" / "agent.sock"))
    return True


def courier() -> bool:
    """Return whether the courier has logged in at least once and can reach the socket."""
    return (HOME / "courier" / "node-id").exists() and agent()


def board() -> bool:
    """Return whether the board's store opens and has its tables."""
    config = tomllib.loads((HOME / "board.toml").read_text())
    if "database_url" in config:
        return True  # another server's store; `collect` says when it cannot be reached
    with closing(sqlite3.connect(f"file:{HOME / 'board.db'}?mode=ro", uri=True)) as store:
        return store.execute("SELECT 1 FROM alembic_version").fetchone() is not None


_PROBES = {"coordinator": coordinator, "agent": agent, "courier": courier, "board": board}

if __name__ == "__main__":
    try:
        healthy = _PROBES[sys.argv[1]]()
    except (OSError, KeyError, IndexError, ValueError, sqlite3.Error):
        healthy = False
    sys.exit(0 if healthy else 1)
