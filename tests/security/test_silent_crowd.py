"""A crowd that connects and says nothing, against the real SuperLink with few open files."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from common.clock import SystemClock
from server.config import CoordinatorPaths, ServerConfig
from server.consortium import found_consortium
from simulations.deployment import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OPEN_FILES = 256
CROWD = 300


@dataclass(frozen=True)
class SuperLink:
    """The real process."""

    config: ServerConfig
    paths: CoordinatorPaths
    process: subprocess.Popen[bytes]
    log: Path

    def health(self, port: int) -> int | None:
        """Return the status of /health on one of the listeners, or None without an answer."""
        context = ssl.create_default_context(cafile=str(self.paths.ca_certificate))
        with suppress(httpx.HTTPError), httpx.Client(verify=context, timeout=5.0) as client:
            return client.get(f"https://127.0.0.1:{port}/health").status_code
        return None

    def open_files(self) -> int:
        """Return how many files the process has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@pytest.fixture
def superlink(tmp_path: Path) -> Iterator[SuperLink]:
    port = free_port()
    config = ServerConfig(
        consortium="Heart network",
        host="127.0.0.1",
        port=port,
        operator_port=port + 1,
        listen_host="127.0.0.1",
    )
    paths = CoordinatorPaths(tmp_path / "coordinator")
    found_consortium(paths.home, config, clock=SystemClock())
    log = tmp_path / "superlink.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                *("sh", "-c", f'ulimit -n {OPEN_FILES} && exec "$@"', "sh"),
                *(sys.executable, "-m", "server.superlink_main", str(paths.home)),
            ],
            stdout=stream,
            stderr=stream,
        )
    found = SuperLink(config, paths, process, log)
    try:
        deadline = time.monotonic() + 60
        while found.health(port) != 200:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def _crowd(superlink: SuperLink) -> list[socket.socket]:
    """Connect many times: silent before TLS, silent after it, and in the middle of a head."""
    context = ssl.create_default_context(cafile=str(superlink.paths.ca_certificate))
    crowd: list[socket.socket] = []
    for number in range(CROWD):
        with suppress(OSError):
            client = socket.create_connection(("127.0.0.1", superlink.config.port), timeout=2)
            crowd.append(client)
            if number % 3:
                secure = context.wrap_socket(client, server_hostname="127.0.0.1")
                crowd[-1] = secure
                if number % 3 == 2:
                    secure.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
    return crowd


def test_a_silent_crowd_locks_nobody_but_its_own_address_out_and_is_sent_away(
    superlink: SuperLink,
) -> None:
    operator, public = superlink.config.operator_port, superlink.config.port
    for _ in range(2):
        crowd = _crowd(superlink)
        assert superlink.health(operator) == 200
        assert superlink.open_files() < OPEN_FILES * 3 // 4
        # The crowd is still there; what it held is not.
        deadline = time.monotonic() + 60
        while superlink.health(public) != 200:
            assert superlink.health(operator) == 200
            assert time.monotonic() < deadline
            time.sleep(0.5)
        for client in crowd:
            client.close()
    assert superlink.process.poll() is None
    said = superlink.log.read_text()
    assert "Too many open files" not in said
    assert said.count("connections are refused") == 1
