"""A board fetches from a real relay over mutual TLS; killed at any moment it loses nothing."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete

from common.errors import TransportError
from common.ids import SiteId
from common.protocol.monitoring.notice_checks import verify_receipt
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.signed_notice import NoticeKind, read_signed
from server.monitor_board.config import BoardPaths
from server.monitor_board.relay_connection import connected
from server.monitor_board.setup import read_certificate
from server.storage.database import Database
from server.storage.tables import relay_notices, relay_reports
from tests.lib.board_home import (
    STUDY,
    board_home,
    collector_of,
    past_weeks,
    promote,
    store_of,
    world_of,
)
from tests.lib.relaying import Relaying, submit

pytestmark = pytest.mark.e2e
RELAYED = 100
"""Reports at the relay: a pass has time to be killed in."""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def relaying(tmp_path: Path) -> Relaying:
    made = Relaying(tmp_path)
    promote(made)
    return made


def _send(relaying: Relaying, weeks: int) -> list[bytes]:
    """Let both sites submit a report of each week."""
    world, sent = world_of(relaying), []
    for site_id in ("east", "north"):
        with relaying.as_site(site_id) as stub:
            for period in past_weeks(weeks):
                sent.append(world.report(SiteId(site_id), period=period))
                submit(stub, sent[-1])
    return sent


def _pass(paths: BoardPaths) -> None:
    with connected(paths.tls_key, read_certificate(paths)) as relay:
        collector_of(paths).once(relay)


def _kill_passes(paths: BoardPaths, *, times: int) -> int:
    """Start passes and kill each with -9 soon after it took something; return how many were."""
    draws, killed, store = random.Random(3), 0, store_of(paths)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.lib.collect_slowly", str(paths.home)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as starter:
        assert starter.stdin is not None and starter.stdout is not None
        for _ in range(times):
            starter.stdin.write(b"go\n")
            starter.stdin.flush()
            child = int(starter.stdout.readline())
            before = store.position(f"reports/{STUDY}")
            deadline = time.monotonic() + 20
            while store.position(f"reports/{STUDY}") == before and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(draws.uniform(0, 0.05))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
                killed += store.position(f"reports/{STUDY}") < RELAYED
            assert starter.stdout.readline() == b"gone\n"
        starter.stdin.close()
    return killed


def _receipts(relaying: Relaying, site_id: str) -> list[int]:
    """Return the sequence numbers that the site's receipts acknowledge."""
    found = relaying.store.notices_after(site_id, 0, 1000)
    return [
        verify_receipt(item.notice, relaying.roster).sequence
        for item in found
        if read_signed(item.notice).kind is NoticeKind.RECEIPT
    ]


def test_what_sites_send_arrives_at_two_boards_alike_and_sites_get_receipts(
    relaying: Relaying, tmp_path: Path
) -> None:
    homes = [board_home(relaying, name, tmp_path) for name in ("board-a", "board-b")]
    with relaying.running():
        sent = _send(relaying, 3)
        for paths in homes:
            _pass(paths)
        for paths in homes:
            _pass(paths)  # now each sees the other's receipts
    for paths in homes:
        store = store_of(paths)
        assert store.envelopes(STUDY, kind="case-mix") == tuple(sent)
        assert [item.digest for item in store.kept_reports(STUDY)] == [
            report_digest(envelope) for envelope in sent
        ]
        assert store.refusals() == ()
        assert store.refused_notices() == ()
        assert store.count_unpublished() == 0
    assert _receipts(relaying, "north") == [3, 3]


def test_a_board_killed_again_and_again_loses_no_report_and_counts_none_twice(
    relaying: Relaying, tmp_path: Path
) -> None:
    paths = board_home(relaying, "board-a", tmp_path)
    with relaying.running():
        sent = _send(relaying, RELAYED // 2)
        assert _kill_passes(paths, times=8) >= 5
        _pass(paths)
    store = store_of(paths)
    assert store.envelopes(STUDY, kind="case-mix") == tuple(sent)
    assert len(store.kept_reports(STUDY)) == len(sent)
    assert store.refusals() == ()
    assert store.gaps(also_filled=True) == ()
    assert store.count_unpublished() == 0
    assert max(_receipts(relaying, "north")) == RELAYED // 2


def test_a_relay_that_was_set_back_is_told_again_what_it_lost(
    relaying: Relaying, tmp_path: Path
) -> None:
    paths = board_home(relaying, "board-a", tmp_path)
    database = Database.of(relaying.paths, relaying.enrolling.config)
    with relaying.running():
        _send(relaying, 2)
        _pass(paths)
        assert _receipts(relaying, "north") == [2]
        with database.transaction() as connection:
            connection.execute(delete(relay_notices).where(relay_notices.c.kind == "receipt"))
        _pass(paths)
        assert _receipts(relaying, "north") == []
        collector_of(paths).forget_positions()
        _pass(paths)
    assert _receipts(relaying, "north") == [2]
    store = store_of(paths)
    assert store.count_unpublished() == 0
    assert len(store.kept_reports(STUDY)) == 4


def test_a_board_finds_by_itself_that_the_relay_was_set_back(
    relaying: Relaying, tmp_path: Path
) -> None:
    paths = board_home(relaying, "board-a", tmp_path)
    database = Database.of(relaying.paths, relaying.enrolling.config)
    with relaying.running():
        sent = _send(relaying, 2)
        _pass(paths)
        with database.transaction() as connection:  # as from a backup of an hour ago
            connection.execute(delete(relay_notices).where(relay_notices.c.kind == "receipt"))
            connection.execute(delete(relay_reports).where(relay_reports.c.position > 2))
        with relaying.as_site("north") as stub:  # which waits for the receipt of its newest
            for envelope in sent[2:]:
                submit(stub, envelope)
        with database.transaction() as connection:
            connection.execute(delete(relay_reports).where(relay_reports.c.position > 3))
        _pass(paths)
        assert _receipts(relaying, "north") == [2]
        position = store_of(paths).position(f"reports/{STUDY}")
        _pass(paths)
    store = store_of(paths)
    assert store.position(f"reports/{STUDY}") == position == 3
    assert len(store.kept_reports(STUDY)) == len(sent)


def test_a_relay_that_is_away_costs_a_pass_and_nothing_else(
    relaying: Relaying, tmp_path: Path
) -> None:
    paths = board_home(relaying, "board-a", tmp_path)
    with relaying.running():
        _send(relaying, 1)
    with pytest.raises(TransportError):
        _pass(paths)
    with relaying.running():
        _pass(paths)
    assert len(store_of(paths).kept_reports(STUDY)) == 2


def test_a_board_reaches_the_relay_through_an_http_connect_proxy(
    relaying: Relaying, tmp_path: Path
) -> None:
    paths = board_home(relaying, "board-a", tmp_path)
    with relaying.running(), _proxy() as (address, asked):
        _send(relaying, 1)
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from server.monitor_board.cli import main; main()"),
                *("--home", str(paths.home), "collect", "--once"),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "https_proxy": f"http://{address}"}
            | {"no_proxy": "", "no_grpc_proxy": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert asked == [f"CONNECT {relaying.address} HTTP/1.1"]
    assert len(store_of(paths).kept_reports(STUDY)) == 2


@contextmanager
def _proxy() -> Iterator[tuple[str, list[str]]]:
    """Run an HTTP proxy that knows CONNECT and nothing else; tell what it was asked."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, asked), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked


def _accept(listener: socket.socket, asked: list[str]) -> None:
    while True:
        try:
            inner, _ = listener.accept()
        except OSError:
            return
        head = b""
        while b"\r\n\r\n" not in head:
            head += inner.recv(4096)
        asked.append(head.split(b"\r\n")[0].decode())
        host, _, port = asked[-1].split()[1].rpartition(":")
        outer = socket.create_connection((host, int(port)))
        inner.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for source, target in ((inner, outer), (outer, inner)):
            threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # either side may have gone
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
