"""`up` runs the relay beside Flower's services and starts it again after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lib.federation import kill_hard, pids_of
from tests.lib.relaying import Relaying, collected, submit

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def _wait_ready(relaying: Relaying, count: int) -> None:
    deadline = time.monotonic() + 90
    path = relaying.paths.logs / "relay.log"
    while not path.exists() or path.read_text().count("the relay is ready") < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_relay_comes_back_with_every_report_and_ends_with_up(tmp_path: Path) -> None:
    relaying = Relaying(tmp_path, sites=("north",))
    program = Path(sys.executable).with_name("cohortium-coordinator")
    words = [str(program), "--home", str(relaying.paths.home), "up"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (tmp_path / "up.log").open("wb") as log:
        running = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    try:
        _wait_ready(relaying, 1)
        envelopes = [relaying.sites["north"].seal(relaying.roster) for _ in range(2)]
        with relaying.as_site("north") as stub:
            assert submit(stub, envelopes[0]) == 1
        assert len(kill_hard("server.relay_main", str(relaying.paths.home))) == 1
        _wait_ready(relaying, 2)
        with relaying.as_site("north") as stub, relaying.as_board() as board:
            assert [submit(stub, envelope) for envelope in envelopes] == [1, 2]
            assert collected(board) == list(enumerate(envelopes, 1))
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 0, (tmp_path / "up.log").read_text()
    assert not pids_of("server.relay_main", str(relaying.paths.home))
