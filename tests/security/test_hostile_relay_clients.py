"""Members and outsiders who want to tire the relay: each is bounded, and others are served."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from common import limits
from common.protocol import monitoring_pb2 as wire
from tests.lib.relaying import Relaying, collected, submit

SUBMIT = "/cohortium.v1.Monitoring/Submit"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
RECEIVE_S = 2


@pytest.fixture(scope="module")
def relaying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relaying]:
    built = Relaying(
        tmp_path_factory.mktemp("r"), calls_per_minute_max=1000, receive_s_max=RECEIVE_S
    )
    with built.running():
        yield built


def _is_served(relaying: Relaying, site_id: str = "east") -> bool:
    envelope = relaying.sites[site_id].seal(relaying.roster)
    with relaying.as_site(site_id) as stub:
        return submit(stub, envelope, timeout=10) > 0


def _channel(relaying: Relaying, site_id: str, **options: Any) -> Any:
    paths = relaying.sites[site_id].paths
    credentials = grpc.ssl_channel_credentials(
        relaying.paths.ca_certificate.read_bytes(),
        paths.tls_key.read_bytes(),
        paths.certificate.read_bytes(),
    )
    arguments = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    return grpc.secure_channel(relaying.address, credentials, arguments, **options)


def _raw_tls(relaying: Relaying) -> ssl.SSLSocket:
    paths = relaying.sites["north"].paths
    context = ssl.create_default_context(cafile=str(relaying.paths.ca_certificate))
    context.load_cert_chain(paths.certificate, paths.tls_key)
    context.set_alpn_protocols(["h2"])
    host, port = relaying.address.split(":")
    plain = socket.create_connection((host, int(port)), timeout=30)
    return context.wrap_socket(plain, server_hostname=host)


@pytest.mark.parametrize("excess_bytes", [1, 64 << 20])
def test_b13_an_oversized_message_is_refused_and_the_relay_goes_on(
    relaying: Relaying, excess_bytes: int
) -> None:
    with _channel(relaying, "north") as channel:
        call = channel.unary_unary(SUBMIT)
        junk = bytes(limits.NOTICE_BYTES_MAX + (1 << 16) + excess_bytes)
        with pytest.raises(grpc.RpcError) as caught:
            call(junk, timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert _is_served(relaying)


def test_a_message_that_would_unpack_to_more_is_not_unpacked(relaying: Relaying) -> None:
    with (
        _channel(relaying, "north", compression=grpc.Compression.Gzip) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary(SUBMIT)(bytes(4 << 20), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("junk", [b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x0f", b""])
def test_b1_bytes_that_are_no_message_get_a_number_and_no_text(
    relaying: Relaying, junk: bytes
) -> None:
    with _channel(relaying, "north") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(SUBMIT)(junk, timeout=30)
        with pytest.raises(grpc.RpcError) as empty:
            channel.stream_unary(SUBMIT)(iter(()), timeout=30)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "B1")
    assert empty.value.details() == "B1"


@pytest.mark.parametrize("name", [SUBMIT, CHECK])
def test_calls_that_never_send_are_bounded_and_ended_and_nobody_else_waits(
    relaying: Relaying, name: str
) -> None:
    release = threading.Event()

    def silent() -> Iterator[bytes]:
        release.wait(30)
        yield b""

    with _channel(relaying, "north") as channel:
        # A connection has at most 16 calls; of one member, four are at work at once.
        calls = [channel.stream_unary(name).future(silent(), timeout=60) for _ in range(12)]
        assert _is_served(relaying)
        details = [call.exception(timeout=30).details() for call in calls]
        release.set()
    assert sorted(details) == ["B14"] * 8 + ["late"] * 4
    assert _is_served(relaying, "north")


def test_a_member_cannot_hold_places_by_watching_the_health_of_the_relay(
    relaying: Relaying,
) -> None:
    with _channel(relaying, "north") as channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream(WATCH)(bytes(1 << 20), timeout=30))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_b14_who_calls_too_often_is_told_when_to_come_back_and_others_are_served(
    tmp_path: Path,
) -> None:
    relaying = Relaying(tmp_path, calls_per_minute_max=5)
    with relaying.running(), relaying.as_site("north") as stub:
        for _ in range(5):
            list(stub.Notices(wire.NoticesRequest(), timeout=10))
        envelope = relaying.sites["north"].seal(relaying.roster)
        with pytest.raises(grpc.RpcError) as caught:
            submit(stub, envelope)
        assert (caught.value.code().name, caught.value.details()) == ("RESOURCE_EXHAUSTED", "B14")
        [wait_ms] = [
            int(value)
            for name, value in caught.value.trailing_metadata()
            if name == "grpc-retry-pushback-ms"
        ]
        assert 0 < wait_ms <= 12_001
        assert _is_served(relaying)


def test_a_silent_crowd_and_a_babbling_one_keep_nobody_out(relaying: Relaying) -> None:
    host, port = relaying.address.split(":")
    with ExitStack() as stack:
        for number in range(100):
            plain = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
            if number % 2:
                plain.sendall(os.urandom(100))
        babbling = stack.enter_context(_raw_tls(relaying))
        babbling.sendall(os.urandom(1000))
        assert _is_served(relaying)


@pytest.mark.slow
def test_who_connects_and_says_nothing_is_sent_away_within_seconds(relaying: Relaying) -> None:
    host, port = relaying.address.split(":")
    started_at = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        while plain.recv(1 << 16):
            pass
    with _raw_tls(relaying) as silent:  # TLS is complete, and nothing follows
        while silent.recv(1 << 16):
            pass
    assert time.monotonic() - started_at < 60


def test_a_graceful_stop_answers_what_it_took_and_then_ends(tmp_path: Path) -> None:
    relaying = Relaying(tmp_path, sites=("north",), calls_per_minute_max=100_000)
    process = relaying.start()
    acknowledged: list[bytes] = []
    with relaying.as_site("north") as stub:
        for _ in range(3):
            acknowledged.append(relaying.sites["north"].seal(relaying.roster))
            submit(stub, acknowledged[-1])
        assert relaying.stop(process) == 0
        with pytest.raises(grpc.RpcError) as caught:
            submit(stub, acknowledged[0], timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "the relay has stopped" in relaying.log()
    with relaying.running(), relaying.as_board() as board:
        assert [envelope for _, envelope in collected(board)] == acknowledged


def test_a_second_relay_on_the_same_folder_ends_with_our_error(relaying: Relaying) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "server.relay_main", str(relaying.paths.home)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 62
    assert "another relay runs on this folder" in done.stderr


def test_ctrl_c_stops_it_as_well(tmp_path: Path) -> None:
    relaying = Relaying(tmp_path, sites=())
    process = relaying.start()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
