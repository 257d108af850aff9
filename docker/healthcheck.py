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
        return bool(answer.status == 200) and relay()


def relay() -> bool:
    """Return whether the relay, where there is one with a health port, answers that it serves."""
    config = tomllib.loads((HOME / "server.toml").read_text())
    port = config.get("relay", {}).get("health_port")
    if port is None:
        return True
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    # A proxy of the environment is not for loopback.
    options = [("grpc.enable_http_proxy", 0)]
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            asked = health_pb2.HealthCheckRequest()
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=4)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


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


def web() -> bool:
    """Return whether the board's pages answer on loopback, over TLS or not."""
    context = ssl.create_default_context()
    # Whose certificate it is does not matter to whether this container's own service is alive.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = int(tomllib.loads((HOME / "board.toml").read_text()).get("web_port", 8460))
    with urllib.request.urlopen(
        f"https://127.0.0.1:{port}/health", context=context, timeout=4
    ) as answer:
        return bool(answer.status == 200)


_PROBES = {
    "coordinator": coordinator,
    "relay": relay,
    "agent": agent,
    "courier": courier,
    "board": board,
    "web": web,
}

if __name__ == "__main__":
    try:
        healthy = _PROBES[sys.argv[1]]()
    except (OSError, KeyError, IndexError, ValueError, sqlite3.Error):
        healthy = False
    sys.exit(0 if healthy else 1)
