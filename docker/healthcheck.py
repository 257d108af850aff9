"""One probe for all images: is the service of this container alive? Exit 0 or 1."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import tomllib
import urllib.request
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


if __name__ == "__main__":
    try:
        healthy = {"coordinator": coordinator, "agent": agent, "courier": courier}[sys.argv[1]]()
    except (OSError, KeyError, IndexError, ValueError):
        healthy = False
    sys.exit(0 if healthy else 1)
