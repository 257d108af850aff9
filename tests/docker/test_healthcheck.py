"""The images' probe against the services themselves: alive, stopped, and not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from common.clock import SystemClock
from common.crypto.certificates import Authority, TlsKey
from common.protocol import monitoring_pb2 as wire
from common.protocol import monitoring_pb2_grpc
from simulations.deployment import free_port
from tests.lib.relaying import Relaying

ROOT = Path(__file__).parents[2]
PROBE = ROOT / "docker" / "healthcheck.py"


def _probe(home: Path, service: str) -> int:
    environment = os.environ | {
        "COHORTIUM_COORDINATOR_HOME": str(home),
        "http_proxy": "http://127.0.0.1:9",  # a proxy of the machine is not for loopback
        "no_proxy": "127.0.0.1",
    }
    words = [sys.executable, str(PROBE), service]
    return subprocess.run(words, env=environment, check=False, capture_output=True).returncode


@pytest.mark.slow
def test_the_relays_health_port_answers_a_probe_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    relaying = Relaying(tmp_path, sites=("north",), health_port=port)
    assert _probe(relaying.paths.home, "relay") == 1
    with relaying.running() as process:
        assert _probe(relaying.paths.home, "relay") == 0
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = monitoring_pb2_grpc.MonitoringStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.RpcError) as refused:
                list(stub.Notices(wire.NoticesRequest(), timeout=10))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        process.send_signal(signal.SIGSTOP)
        try:
            assert _probe(relaying.paths.home, "relay") == 1
        finally:
            process.send_signal(signal.SIGCONT)
    without = Relaying(tmp_path / "without", sites=("north",))
    assert _probe(without.paths.home, "relay") == 0


@pytest.mark.slow
def test_the_boards_pages_answer_a_probe_over_tls(tmp_path: Path) -> None:
    port, now_s = free_port(), SystemClock().now_s()
    (tmp_path / "board.toml").write_text(f"web_port = {port}\n")
    authority, key = Authority.make("board", TlsKey.generate(), now_s=now_s), TlsKey.generate()
    certificate = authority.issue_server_certificate(["board.example"], key, now_s=now_s)
    (tmp_path / "web.pem").write_text(certificate)
    key.write(tmp_path / "web.key")
    assert _probe(tmp_path, "web") == 1
    files = [str(tmp_path / name) for name in ("web.pem", "web.key")]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lib.serve_views", str(tmp_path), str(port), *files],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while _probe(tmp_path, "web"):
            assert process.poll() is None
            assert time.monotonic() < until
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
