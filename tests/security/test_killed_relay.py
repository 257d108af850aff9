"""kill -9 of the relay: no acknowledged report is lost, none is given to a board twice."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from pathlib import Path

import grpc
import pytest

from tests.lib.dying_relay import POINTS
from tests.lib.relaying import Relaying, ReportingSite, collected, submit

KILLS = 6


@pytest.mark.parametrize("point", POINTS)
def test_a_relay_killed_at_a_point_of_storing_has_each_report_once_afterwards(
    tmp_path: Path, point: str
) -> None:
    relaying = Relaying(tmp_path, sites=("north",))
    envelopes = [relaying.sites["north"].seal(relaying.roster) for _ in range(3)]
    process = relaying.start(point, "3")
    with relaying.as_site("north") as stub:
        positions = [submit(stub, envelope) for envelope in envelopes[:2]]
        with pytest.raises(grpc.RpcError):
            submit(stub, envelopes[2])
    assert process.wait(30) == -signal.SIGKILL
    with relaying.running(), relaying.as_site("north") as stub, relaying.as_board() as board:
        assert [position for position, _ in collected(board)][:2] == positions
        assert [submit(stub, envelope) for envelope in envelopes] == [1, 2, 3]
        assert collected(board) == list(enumerate(envelopes, 1))


@pytest.mark.slow
def test_no_acknowledged_report_is_lost_and_none_forwarded_twice_at_any_moment(
    tmp_path: Path,
) -> None:
    # As many as the sites can send, on a fast machine more than a day's quota.
    relaying = Relaying(
        tmp_path,
        sites=("east", "north", "south"),
        calls_per_minute_max=100_000,
        reports_per_day_max=10_000_000,
        report_bytes_per_day_max=1 << 40,
    )
    stop, chance = threading.Event(), random.Random(1)
    acknowledged: dict[str, dict[bytes, int]] = {name: {} for name in relaying.sites}
    sent: dict[str, list[bytes]] = {name: [] for name in relaying.sites}
    errors: list[BaseException] = []

    def hand_in(site: ReportingSite) -> None:
        """Seal one report after another; the same bytes until they are acknowledged."""
        name = site.site_id
        try:
            while not stop.is_set():
                sent[name].append(site.seal(relaying.roster))
                _until_acknowledged(relaying, name, sent[name][-1], acknowledged[name])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=hand_in, args=(site,)) for site in relaying.sites.values()]
    process = relaying.start()
    for thread in threads:
        thread.start()
    seen: list[tuple[int, bytes]] = []
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.3, 0.9))
        process.kill()
        process.wait()
        process = relaying.start()
        with relaying.as_board() as board:
            # A board that goes on from where it was gets nothing twice.
            seen += collected(board, after=seen[-1][0] if seen else 0)
    stop.set()
    for thread in threads:
        thread.join(60)
    with relaying.as_board() as board, relaying.as_board("board-b") as other:
        seen += collected(board, after=seen[-1][0])
        assert collected(other) == seen
    process.kill()
    process.wait()
    assert errors == []
    by_bytes = {envelope: position for position, envelope in seen}
    assert len(by_bytes) == len(seen)
    assert [position for position, _ in seen] == list(range(1, len(seen) + 1))
    for name, found in acknowledged.items():
        assert len(found) > KILLS
        assert {envelope: by_bytes[envelope] for envelope in found} == found
        assert list(found) == sent[name]


def _until_acknowledged(
    relaying: Relaying, name: str, envelope: bytes, acknowledged: dict[bytes, int]
) -> None:
    deadline = time.monotonic() + 60
    while envelope not in acknowledged:
        assert time.monotonic() < deadline
        with contextlib.suppress(grpc.RpcError), relaying.as_site(name) as stub:
            acknowledged[envelope] = submit(stub, envelope, timeout=5)
