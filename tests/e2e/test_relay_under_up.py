"""`up` runs the relay beside Flower's services, restarts it after kill -9, and does decisions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.ids import Digest, SiteId
from common.protocol import monitoring_pb2 as wire
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import Action, Decision, decision_genesis
from common.protocol.monitoring.signed_notice import read_signed
from server.board_decisions import acted_decisions
from server.site_directory import SiteDirectory
from server.storage.database import Database
from tests.lib.federation import kill_hard, pids_of
from tests.lib.relaying import SITES, STUDY, Relaying, collected, submit

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def _wait_ready(relaying: Relaying, count: int) -> None:
    deadline = time.monotonic() + 90
    path = relaying.paths.logs / "relay.log"
    while not path.exists() or path.read_text().count("the relay is ready") < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _decision(relaying: Relaying, number: int, previous: Digest | None) -> bytes:
    content = Decision(
        study_id=STUDY,
        number=number,
        previous=previous or decision_genesis(relaying.roster.consortium, STUDY),
        action=Action.PAUSE_SITE,
        site_id=SiteId(SITES[number - 1]),
        model_version=None,
        reason="Creatinine in another unit",
        period="2026-02",
        opened_at_s=int(time.time()),
    )
    return sign_notice(content, {name: relaying.deciders[name] for name in ("dr-a", "dr-b")})


def test_up_does_what_the_board_decided_while_it_was_away_and_while_it_runs(
    tmp_path: Path,
) -> None:
    relaying = Relaying(tmp_path)
    first = _decision(relaying, 1, None)
    second = _decision(relaying, 2, read_signed(first).digest)
    with relaying.running(), relaying.as_board() as board:
        board.Publish(wire.NoticeRequest(notice=first), timeout=30)
    database = Database.of(relaying.paths, relaying.enrolling.config)

    def wait_for(count: int) -> list[str]:
        deadline = time.monotonic() + 60
        while len(acted_decisions(database)) < count:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return [item.outcome for item in acted_decisions(database)]

    with _up(relaying, tmp_path) as running:
        assert wait_for(1) == ["done"]
        _wait_ready(relaying, 2)  # the one before `up` was the first
        running.kill()
        running.wait()
    with _up(relaying, tmp_path):
        _wait_ready(relaying, 3)
        with relaying.as_board() as board:
            board.Publish(wire.NoticeRequest(notice=second), timeout=30)
        assert wait_for(2) == ["done", "done"]
    active = SiteDirectory(database, SystemClock()).active_sites()
    assert active == ()


@contextmanager
def _up(relaying: Relaying, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = Path(sys.executable).with_name("cohortium-coordinator")
    words = [str(program), "--home", str(relaying.paths.home), "up"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / "up.log").open("ab") as log:
        running = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        code = running.wait(60)
        assert code in (0, -signal.SIGKILL), (folder / "up.log").read_text()


def test_the_relay_comes_back_with_every_report_and_ends_with_up(tmp_path: Path) -> None:
    relaying = Relaying(tmp_path, sites=("north",))
    with _up(relaying, tmp_path):
        _wait_ready(relaying, 1)
        envelopes = [relaying.sites["north"].seal(relaying.roster) for _ in range(2)]
        with relaying.as_site("north") as stub:
            assert submit(stub, envelopes[0]) == 1
        assert len(kill_hard("server.relay_main", str(relaying.paths.home))) == 1
        _wait_ready(relaying, 2)
        with relaying.as_site("north") as stub, relaying.as_board() as board:
            assert [submit(stub, envelope) for envelope in envelopes] == [1, 2]
            assert collected(board) == list(enumerate(envelopes, 1))
    assert not pids_of("server.relay_main", str(relaying.paths.home))
