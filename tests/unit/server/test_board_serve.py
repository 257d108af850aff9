"""The dashboard's start, its vendored files, its views made anew, and its Prometheus text."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from common.clock import SystemClock
from common.crypto.certificates import Authority, TlsKey
from common.errors import ConfigError, ServiceError
from server.monitor_board.web.assets import STATIC, check_vendored
from server.monitor_board.web.metrics_text import metrics_text
from server.monitor_board.web.serve import LOGIN_TOKEN, Listen, TokenDesk, serve
from server.monitor_board.web.view_source import REMAKE_S, RETRY_S, ViewSource
from server.monitor_board.web.views import BoardView
from tests.lib.board_views import make_study, make_view

ROOT = Path(__file__).parents[3]


class Store:
    """A store whose news and faults a test decides."""

    def __init__(self) -> None:
        self.position = 1
        self.made = 0
        self.is_broken = False
        self.gate = threading.Event()
        self.gate.set()

    def newest_position(self) -> int:
        return self.position

    def make(self) -> BoardView:
        position = self.position
        self.gate.wait(10)
        if self.is_broken:
            raise ValueError("a secret in a message")
        self.made += 1
        return make_view(position=position)


def test_views_are_kept_until_the_store_has_news() -> None:
    store = Store()
    source = ViewSource(store, now_s=lambda: 1_775_124_000, failed=lambda _: None)
    for _ in range(5):
        assert not source.shown().is_stale
    assert store.made == 1
    store.position = 2
    store.gate.clear()
    shown = source.shown()
    assert (shown.view.position, shown.is_stale) == (1, True)
    assert source.shown().is_stale
    store.gate.set()
    source.wait()
    assert (source.shown().view.position, source.shown().is_stale) == (2, False)
    assert store.made == 2


def test_views_are_made_anew_after_an_hour_because_silence_is_told_by_the_clock() -> None:
    store, now = Store(), [1_775_124_000]
    source = ViewSource(store, now_s=lambda: now[0], failed=lambda _: None)
    now[0] += REMAKE_S
    assert not source.shown().is_stale
    source.wait()
    assert store.made == 2


def test_a_fault_keeps_the_former_views_and_tells_its_kind_alone() -> None:
    store, now, told = Store(), [1_775_124_000], list[str]()
    source = ViewSource(store, now_s=lambda: now[0], failed=told.append)
    store.position, store.is_broken = 2, True
    for _ in range(3):
        assert source.shown().view.position == 1
        source.wait()
    assert told == ["ValueError"]
    store.is_broken = False
    now[0] += RETRY_S
    source.shown()
    source.wait()
    assert source.shown().view.position == 2


def test_vendored_files_are_those_of_the_manifest(tmp_path: Path) -> None:
    check_vendored(STATIC / "vendor")
    for change in ("htmx.min.js", "uPlot.iife.min.js", "new.js"):
        copy = tmp_path / change
        shutil.copytree(STATIC / "vendor", copy)
        with (copy / change).open("a") as file:
            file.write("//")
        with pytest.raises(ConfigError) as refused:
            check_vendored(copy)
        assert change in refused.value.arrived


def test_our_own_scripts_ask_for_nothing_that_the_policy_forbids() -> None:
    for path in STATIC.glob("*.js"):
        text = path.read_text()
        for forbidden in ("innerHTML", "eval(", "Function(", "document.write", ".style", "http"):
            assert forbidden not in text, (path.name, forbidden)


def test_a_password_less_network_is_refused() -> None:
    Listen("127.0.0.1", 1).check()
    Listen("::1", 1).check()
    Listen("localhost", 1).check()
    Listen("0.0.0.0", 1, Path("c.pem"), Path("k.pem")).check()
    for unsafe in (
        Listen("0.0.0.0", 1),
        Listen("board.example", 1),
        Listen("127.0.0.1", 1, Path("c.pem")),
        Listen("127.0.0.1", 1, key=Path("k.pem")),
    ):
        with pytest.raises(ConfigError):
            unsafe.check()


def test_a_token_goes_to_a_terminal_or_to_a_private_file_but_into_no_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = TokenDesk(tmp_path, Listen("127.0.0.1", 8460))
    desk.give("first-token")
    assert "first-token" not in capsys.readouterr().out
    assert (tmp_path / LOGIN_TOKEN).read_text() == "first-token\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    desk.give("second-token")
    assert "http://127.0.0.1:8460/login#second-token" in capsys.readouterr().out


_LINE = re.compile(r'^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? (-?[0-9.e+-]+)$')


def test_every_line_of_the_metrics_is_prometheus_text_with_help_and_type() -> None:
    hostile = dataclasses.replace(
        make_study().rows[0], site_id='a"b\\c\nd', cells=make_study().rows[0].cells
    )
    study = dataclasses.replace(make_study(), rows=(hostile, *make_study().rows[1:]))
    text = metrics_text(make_view(study))
    assert text.endswith("\n")
    known = set()
    for line in text.splitlines():
        if line.startswith("# "):
            known.add(line.split()[2])
            continue
        found = _LINE.match(line)
        assert found, line
        assert found[1] in known
    assert 'site="a\\"b\\\\c\\nd"' in text


def test_the_metrics_are_the_views_values_and_leave_out_what_is_suppressed() -> None:
    study = make_study()
    lines = metrics_text(make_view(study)).splitlines()
    site = 'study="stroke-outcome",site="site-0002"'
    assert f"cohortium_board_site_state{{{site}}} 2" in lines
    assert f"cohortium_board_epsilon_spent{{{site}}} 3.5" in lines
    assert (
        f"cohortium_board_last_report_timestamp_seconds{{{site}}} {1_775_124_000 - 90_000}" in lines
    )
    estimates = [line for line in lines if line.startswith("cohortium_board_signal{")]
    shown = sum(
        cell.number is not None and cell.number.value is not None
        for row in study.rows
        for cell in row.cells
    )
    assert len(estimates) == 3 * shown


def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = Listen("127.0.0.1", other.getsockname()[1])
        with pytest.raises(ServiceError) as refused:
            serve(Store(), tmp_path, listen)
    assert str(listen.port) in refused.value.expected


_PROGRAM = "from server.monitor_board.cli import main; main()"


def _board_command(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-c", _PROGRAM, "--home", str(home), *words]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Return files of a certificate for loopback, of its key, and of the authority."""
    now_s = SystemClock().now_s()
    authority = Authority.make("board", TlsKey.generate(), now_s=now_s)
    key = TlsKey.generate()
    files = folder / "web.pem", folder / "web.key", folder / "authority.pem"
    files[0].write_text(authority.issue_server_certificate(["127.0.0.1"], key, now_s=now_s))
    key.write(files[1])
    files[2].write_text(authority.certificate_pem)
    return files


@pytest.mark.e2e
def test_the_real_command_serves_a_login_over_tls_and_its_output_holds_no_secret(
    tmp_path: Path,
) -> None:
    home, output, port = tmp_path / "board", tmp_path / "output", _free_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    made = _board_command(home, "init", "--consortium", "Heart network", "--id", "board")
    subprocess.run(made, cwd=ROOT, env=environment, check=True, capture_output=True)
    certificate, key, authority = _certificate(tmp_path)
    words = ["serve", "--port", str(port), "--certificate", str(certificate), "--key", str(key)]
    with output.open("w") as file:
        process = subprocess.Popen(
            _board_command(home, *words), cwd=ROOT, env=environment, stdout=file, stderr=file
        )
    trusted = ssl.create_default_context(cafile=str(authority))
    token_file = home / "web" / LOGIN_TOKEN
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted) as client:
            _wait_for(client)
            token = token_file.read_text().strip()
            answer = client.post("/login", data={"token": token})
            assert answer.status_code == 303
            assert "Secure" in answer.headers["set-cookie"]
            cookie = next(iter(client.cookies.values()))
            page = client.get("/")
            assert page.status_code == 200
            assert "No plan was added" in page.text
            assert "server" not in page.headers
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
    text = output.read_text()
    assert "the one-time token is in" in text
    for secret in (token, cookie, token_file.read_text().strip()):
        assert secret not in text


def _wait_for(client: httpx.Client) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/health").text == "ok\n":
                return
        time.sleep(0.1)
    raise AssertionError("the server did not come up")
