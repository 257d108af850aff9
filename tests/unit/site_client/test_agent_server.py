"""The agent's socket: one agent a folder, private files, and faults that tell only their number."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from common.errors import AgentUnavailable
from common.openblas import THREADS
from common.protocol import agent_pb2, agent_pb2_grpc
from site_client.agent_server import run_agent
from site_client.config import SitePaths
from tests.lib.enrolling import Enrolling


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> SitePaths:
    return Enrolling(tmp_path_factory.mktemp("a")).joined("north")


def _start(paths: SitePaths) -> subprocess.Popen[bytes]:
    """Start an agent and wait until it says that it is ready."""
    command = [sys.executable, "-m", "site_client.agent_main", str(paths.home)]
    with (paths.logs / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while b"the agent is ready" not in (paths.logs / "agent.log").read_bytes():
        assert process.poll() is None, (paths.logs / "agent.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.fixture(scope="module")
def agent(paths: SitePaths) -> Iterator[subprocess.Popen[bytes]]:
    process = _start(paths)
    yield process
    process.kill()
    process.wait()


def test_the_threads_of_site_toml_hold_for_numpy_too(paths: SitePaths, tmp_path: Path) -> None:
    config = paths.config.read_text()
    assert "[limits]\n" in config
    SitePaths(tmp_path).config.write_text(config.replace("[limits]\n", "[limits]\nthreads = 3\n"))
    # Instead of serving, the agent says what its products were granted.
    program = (
        "import os, sys, site_client.agent_server as server, site_client.agent_main as agent; "
        f"server.run_agent = lambda paths: print(os.environ[{THREADS!r}]); "
        "sys.exit(agent.main())"
    )
    environment = {name: value for name, value in os.environ.items() if name != THREADS}
    command = [sys.executable, "-c", program, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout.strip() == "3"


def _carry(paths: SitePaths, envelope: bytes) -> grpc.RpcError:
    with grpc.insecure_channel(f"unix:{paths.socket}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            agent_pb2_grpc.AgentStub(channel).Carry(agent_pb2.CarryRequest(envelope=envelope))
        return caught.value


@pytest.mark.usefixtures("agent")
def test_only_owner_and_group_reach_the_socket_and_only_the_owner_its_folder(
    paths: SitePaths,
) -> None:
    deadline = time.monotonic() + 5
    while stat.S_IMODE(paths.socket.stat().st_mode) != 0o660:
        assert time.monotonic() < deadline
    assert stat.S_IMODE(paths.run.stat().st_mode) == 0o700


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("envelope", [b"", b"junk", b"\0" * 1000])
def test_bytes_that_are_no_envelope_get_the_number_r1_and_the_agent_goes_on(
    paths: SitePaths, envelope: bytes
) -> None:
    error = _carry(paths, envelope)
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "R1")
    with grpc.insecure_channel(f"unix:{paths.socket}") as channel:
        health = agent_pb2_grpc.AgentStub(channel).Health(agent_pb2.HealthRequest(), timeout=5)
    assert health.site_id == "north"


@pytest.mark.usefixtures("agent")
def test_a_second_agent_on_the_folder_is_refused_and_the_first_goes_on(paths: SitePaths) -> None:
    with pytest.raises(AgentUnavailable, match="another agent runs") as caught:
        run_agent(paths)
    assert caught.value.exit_code == 61
    assert paths.socket.exists()


def test_the_agent_holds_no_network_socket(
    paths: SitePaths, agent: subprocess.Popen[bytes]
) -> None:
    inodes = set()
    for item in Path(f"/proc/{agent.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            inodes.add(os.readlink(item).removeprefix("socket:[").removesuffix("]"))
    unix = Path(f"/proc/{agent.pid}/net/unix").read_text()
    assert any(
        str(paths.socket) in line and line.split()[6] in inodes for line in (unix.splitlines())
    )
    for table in ("tcp", "tcp6", "udp", "udp6", "raw"):
        for line in Path(f"/proc/{agent.pid}/net/{table}").read_text().splitlines()[1:]:
            assert line.split()[9] not in inodes, f"the agent holds a {table} socket"


def test_after_kill_9_the_socket_that_was_left_is_taken_over_and_sigterm_ends_with_0(
    tmp_path: Path,
) -> None:
    paths = Enrolling(tmp_path).joined("north")
    first = _start(paths)
    first.kill()
    first.wait()
    assert paths.socket.exists()
    second = _start(paths)
    _carry(paths, b"junk")
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=20) == 0
    assert not paths.socket.exists()


def test_a_path_too_long_for_a_socket_is_one_clear_error(tmp_path: Path) -> None:
    paths = Enrolling(tmp_path / ("long" * 40)).joined("north")
    with pytest.raises(AgentUnavailable, match="socket cannot be made") as caught:
        run_agent(paths)
    assert "shorter folder" in caught.value.todo
