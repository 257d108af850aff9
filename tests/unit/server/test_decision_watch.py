"""What looks after the board's decisions: each once, in their order, whatever stands in the way."""

from __future__ import annotations

import fcntl
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.clock import FixedClock
from common.command_line import run_command
from common.errors import StoreError
from common.ids import SiteId, StudyId
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Action
from common.protocol.monitoring.signed_notice import NoticeKind, read_signed
from server.board_decisions import BoardDecisions, acted_decisions
from server.cli import app
from server.decision_watch import DecisionWatch
from server.monitor_board import decisions
from server.monitor_board.decision_book import KeptDecision
from server.relay_notices import relayed
from server.relay_rosters import pin_given_roster
from server.relay_store import RelayStore
from server.site_directory import SiteDirectory
from tests.lib.board_world import World, make_world
from tests.lib.deciding import decide
from tests.lib.memory_channel import CONFIG, SITE_IDS, Consortium, make_consortium


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def _relay_of(world: World, consortium: Consortium) -> RelayStore:
    now_s = int(time.time())
    world.rosters = [replace(world.roster, not_before_s=now_s - 60, not_after_s=now_s + 3600)]
    store = RelayStore(consortium.database, consortium.clock)
    pin_given_roster(
        store,
        world.roster_bytes,
        fingerprint=world.authority.fingerprint,
        now_s=now_s,
    )
    return store


def test_what_looks_after_decisions_acts_on_each_once_and_again_after_a_store_that_failed(
    world: World, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _relay_of(world, consortium)
    data = decide(world, Action.PAUSE_SITE, site_id=SiteId(SITE_IDS[0]))
    watches = [DecisionWatch(consortium.paths, CONFIG) for _ in range(2)]
    assert watches[0].look() == ()
    store.append_notices([relayed(read_signed(data), data)])

    def die(*_: object) -> None:
        raise StoreError("the disk is full", expected="space", arrived="none", todo="free some")

    with monkeypatch.context() as patch:
        patch.setattr(BoardDecisions, "_log", die)
        with pytest.raises(StoreError):
            watches[0].look()
    (acted,) = watches[0].look()
    assert acted.outcome == "done"
    assert [watch.look() for watch in (*watches, *watches)] == [()] * 4
    sites = SiteDirectory(consortium.database, consortium.clock)
    assert SITE_IDS[0] not in {item.site_id for item in sites.active_sites()}


def _second_of(world: World, first: bytes, action: Action, **changes: Any) -> bytes:
    digest = read_notice(first).digest
    held = (KeptDecision(None, digest, (), first, 0),)  # type: ignore[arg-type]
    return decide(world, action, held=held, **changes)


def test_decisions_that_reach_the_relay_in_the_wrong_order_are_done_in_the_right_one(
    world: World, consortium: Consortium
) -> None:
    store, watch = _relay_of(world, consortium), DecisionWatch(consortium.paths, CONFIG)
    first = decide(world)
    second = _second_of(world, first, Action.STOP)
    store.append_notices([relayed(read_signed(second), second)])
    assert watch.look() == ()
    assert "1 of them until one before them comes" in watch.obstacle
    store.append_notices([relayed(read_signed(first), first)])
    assert [item.outcome for item in watch.look()] == ["recorded", "done"]
    assert watch.obstacle == ""


def test_what_stops_one_studys_decision_keeps_no_other_study_waiting_and_takes_no_fork(
    world: World, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, watch = _relay_of(world, consortium), DecisionWatch(consortium.paths, CONFIG)
    stuck, fork = decide(world, Action.RETRAIN), decide(world, Action.WATCH)
    other = decide(world, study_id=StudyId("elsewhere"))
    store.append_notices([relayed(read_signed(data), data) for data in (stuck, fork, other)])
    act = BoardDecisions.act

    def fail(self: BoardDecisions, notice: bytes, rosters: Any) -> Any:
        if notice == stuck:
            raise StoreError("a model is damaged", expected="it whole", arrived="half", todo="mend")
        return act(self, notice, rosters)

    with monkeypatch.context() as patch:
        patch.setattr(BoardDecisions, "act", fail)
        with pytest.raises(StoreError):
            watch.look()
    assert [item.study_id for item in acted_decisions(consortium.database)] == ["elsewhere"]
    acted = watch.look()
    assert [(item.action, item.outcome) for item in acted] == [
        ("continue", "not possible"),
        ("retrain", "recorded"),
        ("watch", "refused"),
    ]


def test_decisions_wait_while_no_roster_is_in_force(world: World, consortium: Consortium) -> None:
    store = _relay_of(world, consortium)
    data = decide(world, Action.STOP)
    store.append_notices([relayed(read_signed(data), data)])
    late = FixedClock(world.roster.not_after_s + 1)
    watch = DecisionWatch(consortium.paths, CONFIG, clock=late)
    assert watch.look() == ()
    assert "no roster is in force" in watch.obstacle
    assert acted_decisions(consortium.database) == ()


def test_a_process_that_hangs_while_it_acts_on_decisions_does_not_hold_up_another(
    world: World, consortium: Consortium
) -> None:
    store, watch = _relay_of(world, consortium), DecisionWatch(consortium.paths, CONFIG)
    data = decide(world)
    store.append_notices([relayed(read_signed(data), data)])
    with (consortium.paths.home / "decisions.lock").open("a") as held:
        fcntl.flock(held.fileno(), fcntl.LOCK_EX)
        assert watch.look() == ()
        assert watch.obstacle == "another process is acting on them"
    assert [item.outcome for item in watch.look()] == ["recorded"]
    assert watch.obstacle == ""


def test_the_relay_keeps_a_decision_once_whoever_signed_it(
    world: World, consortium: Consortium
) -> None:
    store = _relay_of(world, consortium)
    two = decide(world)
    three = decisions.sign(two, name="cleo", key=world.deciders["cleo"])
    first, second = store.append_notices(
        [relayed(read_signed(item), item) for item in (two, three)]
    )
    assert first == second
    assert store.count_of(NoticeKind.DECISION) == 1


def test_the_coordinators_command_verifies_by_the_pinned_roster_acts_and_lists(
    world: World, consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    store = _relay_of(world, consortium)
    site = SITE_IDS[0]
    good = decide(world, Action.PAUSE_SITE, site_id=SiteId(site))
    bad = decide(world, Action.STOP, signers=("ada",))
    store.append_notices([relayed(read_signed(data), data) for data in (bad, good)])
    arguments = ["--home", str(consortium.paths.home), "decisions", "--json"]
    for _ in range(2):
        capsys.readouterr()
        assert run_command(app, name="cohortium-coordinator", arguments=arguments) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [(row["action"], row["outcome"]) for row in rows] == [
            ("stop", "refused"),
            ("pause-site", "done"),
        ]
    sites = SiteDirectory(consortium.database, consortium.clock)
    assert site not in {item.site_id for item in sites.active_sites()}
