"""The channel over Flower's Grid: by enrolled key, until the deadline, the same envelope again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common.crypto.node_key import make_node_key, node_public_pem
from common.flower_content import ENVELOPE_KEY, unpack_envelope
from common.ids import SiteId, parse_site_id
from server import flower_channel
from server.flower_channel import FlowerChannel
from server.site_channel import Arrived, Missing

NORTH, SOUTH = parse_site_id("north"), parse_site_id("south")
Answer = Callable[[Message, int], Message | None]


def _echo(message: Message, _: int) -> Message:
    return Message(message.content, reply_to=message)


@dataclass
class _Grid:
    """Flower's Grid with couriers that answer as a test says; messages and records are Flower's."""

    nodes: dict[int, tuple[bytes, str]]
    answers: dict[int, Answer]
    pushed: list[Message] = field(default_factory=list)

    def get_nodes(self) -> list[Any]:
        return [
            SimpleNamespace(node_id=node_id, public_key=key, status=status)
            for node_id, (key, status) in self.nodes.items()
        ]

    def push_messages(self, messages: list[Message]) -> list[str]:
        ids = []
        for message in messages:
            self.pushed.append(message)
            message.metadata.__dict__["_message_id"] = str(len(self.pushed))
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, ids: list[str]) -> list[Message]:
        replies = []
        for name in ids:
            message = self.pushed[int(name) - 1]
            node_id = message.metadata.dst_node_id
            times = sum(item.metadata.dst_node_id == node_id for item in self.pushed)
            reply = self.answers[node_id](message, times)
            if reply is not None:
                replies.append(reply)
        return replies

    def sent_to(self, node_id: int) -> list[bytes]:
        return [
            unpack_envelope(item.content) or b""
            for item in self.pushed
            if item.metadata.dst_node_id == node_id
        ]


@dataclass
class _Federation:
    grid: _Grid
    sites: list[Any]
    should_stop: bool = False

    def ask(self, deadline_s: float = 0.6) -> dict[SiteId, Arrived | Missing]:
        channel = FlowerChannel(
            self.grid,  # type: ignore[arg-type]
            lambda: self.sites,
            should_stop=lambda: self.should_stop,
        )
        requests = {site.site_id: lambda name=site.site_id: name.encode() for site in self.sites}
        return {event.site_id: event for event in channel.ask(requests, deadline_s=deadline_s)}


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Federation]:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    for name in ("POLL_S", "NODE_POLL_S", "SITES_POLL_S", "RESEND_WAIT_S"):
        monkeypatch.setattr(flower_channel, name, 0.02)
    keys = {name: make_node_key(tmp_path / name) for name in (NORTH, SOUTH)}
    sites = [
        SimpleNamespace(site_id=name, node_public_key=key, is_active=True)
        for name, key in keys.items()
    ]
    grid = _Grid(
        {11: (node_public_pem(keys[NORTH]), "online"), 12: (keys[SOUTH].encode(), "online")},
        {11: _echo, 12: _echo},
    )
    yield _Federation(grid, sites)


def test_each_site_is_asked_at_the_node_of_its_enrolled_key(federation: _Federation) -> None:
    events = federation.ask()
    assert events == {NORTH: Arrived(NORTH, b"north"), SOUTH: Arrived(SOUTH, b"south")}
    assert federation.grid.sent_to(11) == [b"north"]
    assert federation.grid.sent_to(12) == [b"south"]


def test_a_node_with_a_key_that_is_not_enrolled_is_never_asked(
    federation: _Federation, tmp_path: Path
) -> None:
    stranger = make_node_key(tmp_path / "stranger")
    federation.grid.nodes[11] = (stranger.encode(), "online")
    federation.grid.nodes[13] = (b"not a key", "online")
    assert federation.ask()[NORTH] == Missing(NORTH, "the site's courier is not connected")
    assert {message.metadata.dst_node_id for message in federation.grid.pushed} == {12}


def test_a_courier_that_comes_late_is_asked_when_it_comes(federation: _Federation) -> None:
    key, _ = federation.grid.nodes[11]
    federation.grid.nodes[11] = (key, "offline")

    def then_north_comes(message: Message, _: int) -> Message:
        federation.grid.nodes[11] = (key, "online")
        return _echo(message, 0)

    federation.grid.answers[12] = then_north_comes
    assert isinstance(federation.ask(5.0)[NORTH], Arrived)


def test_an_error_or_what_is_no_envelope_is_answered_by_the_same_request_again(
    federation: _Federation,
) -> None:
    wrong = [
        RecordDict(),
        RecordDict({ENVELOPE_KEY: ConfigRecord({"a": 1})}),
        RecordDict({ENVELOPE_KEY: ArrayRecord({ENVELOPE_KEY: Array(np.zeros(2, np.float32))})}),
    ]

    def bad_at_first(message: Message, times: int) -> Message:
        if times == 1:
            return Message(Error(code=3, reason="MARKED-VALUE"), reply_to=message)
        if times <= 1 + len(wrong):
            return Message(wrong[times - 2], reply_to=message)
        return _echo(message, times)

    federation.grid.answers[11] = bad_at_first
    assert federation.ask(5.0)[NORTH] == Arrived(NORTH, b"north")
    assert federation.grid.sent_to(11) == [b"north"] * (2 + len(wrong))


def test_what_went_wrong_is_told_by_number_and_never_in_the_others_words(
    federation: _Federation,
) -> None:
    federation.grid.answers[11] = lambda message, _: Message(
        Error(code=3, reason="MARKED-VALUE"), reply_to=message
    )
    event = federation.ask()[NORTH]
    assert event == Missing(NORTH, "the courier did not answer (Flower error 3)")


def test_silence_until_the_deadline_is_missing_and_the_others_are_not_kept_waiting(
    federation: _Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_channel, "RESEND_UNANSWERED_S", 0.1)
    federation.grid.answers[11] = lambda *_: None
    events = federation.ask(0.5)
    assert list(events) == [SOUTH, NORTH]
    assert events[NORTH] == Missing(NORTH, "no answer before the deadline")
    # Sent at 0, 0.1 and 0.3 s: each wait is twice as long.
    assert federation.grid.sent_to(11) == [b"north"] * 3


def test_a_site_that_is_suspended_meanwhile_is_waited_for_no_longer(
    federation: _Federation,
) -> None:
    federation.grid.answers[11] = lambda *_: None

    def then_north_is_suspended(message: Message, _: int) -> Message:
        federation.sites[0].is_active = False
        return _echo(message, 0)

    federation.grid.answers[12] = then_north_is_suspended
    assert federation.ask(60.0)[NORTH] == Missing(NORTH, "the site was suspended")


def test_a_stop_ends_the_waiting_at_once(federation: _Federation) -> None:
    federation.should_stop = True
    events = federation.ask(60.0)
    assert {type(event) for event in events.values()} == {Missing}
    assert federation.grid.pushed == []


def test_a_second_reply_of_one_site_is_left_alone(
    federation: _Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_channel, "RESEND_UNANSWERED_S", 0.05)
    federation.grid.answers[11] = lambda message, times: _echo(message, 0) if times == 2 else None
    assert federation.ask(5.0)[NORTH] == Arrived(NORTH, b"north")
