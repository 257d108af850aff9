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
from flwr.proto.message_pb2 import Message as StoredMessage
from flwr.proto.message_pb2 import Metadata, ObjectTree, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.task_identity import TaskIdentity

from common.crypto.node_key import make_node_key, node_public_pem
from common.flower_content import ENVELOPE_KEY, unpack_envelope
from common.ids import SiteId, parse_site_id
from server import flower_channel, flower_replies
from server.flower_channel import FlowerChannel
from server.flower_replies import FlowerReplies
from server.site_channel import Arrived, Missing

NORTH, SOUTH = parse_site_id("north"), parse_site_id("south")


@dataclass
class Upload:
    """A reply that no courier of ours would make: its parts (None: not there yet) and its tree."""

    objects: dict[str, bytes | None]
    tree: ObjectTree


Answer = Callable[[Message, int], Message | Upload | None]


def _echo(message: Message, _: int) -> Message:
    return Message(message.content, reply_to=message)


@dataclass
class _Grid:
    """Flower's Grid with couriers that answer as a test says; messages and records are Flower's."""

    nodes: dict[int, tuple[bytes, str]]
    answers: dict[int, Answer]
    pushed: list[Message] = field(default_factory=list)
    claimed: set[str] = field(default_factory=set)
    objects: dict[str, bytes | None] = field(default_factory=dict)
    confirmed: list[str] = field(default_factory=list)
    slow: dict[str, bytes] = field(default_factory=dict)

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

    # What HttpGrid offers to `FlowerReplies`: the Runtime API's client, the node and the run.

    node = Node(node_id=1)
    run = SimpleNamespace(run_id=1)

    @property
    def _runtime_client(self) -> Any:
        return self

    def PullMessages(self, request: Any) -> Any:
        answer = PullAppMessagesResponse()
        for name in request.message_ids:
            if name in self.claimed:
                continue
            message = self.pushed[int(name) - 1]
            node_id = message.metadata.dst_node_id
            times = sum(item.metadata.dst_node_id == node_id for item in self.pushed)
            reply = self.answers[node_id](message, times)
            if reply is None:
                continue
            self.claimed.add(name)
            if isinstance(reply, Upload):
                objects, tree = reply.objects, reply.tree
            else:
                reply.metadata.__dict__["_message_id"] = reply.object_id
                objects = {key: it.deflate() for key, it in get_all_nested_objects(reply).items()}
                tree = get_object_tree(reply)
            self.objects.update(objects)
            answer.messages_list.append(
                StoredMessage(
                    metadata=Metadata(message_id=tree.object_id, reply_to_message_id=name)
                )
            )
            answer.message_object_trees.append(tree)
        return answer

    def PullObject(self, request: Any) -> Any:
        if request.object_id not in self.objects:
            return PullObjectResponse(object_found=False)
        content = self.objects[request.object_id]
        if content is None:
            return PullObjectResponse(object_found=True, object_available=False)
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> None:
        self.confirmed.append(request.message_object_id)

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
            replies=FlowerReplies(self.grid),
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


def _object(kind: str, body: bytes, children: tuple[str, ...] = ()) -> bytes:
    """Return an object as the SuperLink takes it: it looks at the head only."""
    head = HEAD_VALUE_DIVIDER.join([kind, ",".join(children), str(len(body))])
    content = head.encode() + HEAD_BODY_DIVIDER + body
    validate_object_content(content)
    return content


def _upload(*contents: bytes, root: bytes | None = None) -> Upload:
    root = contents[0] if root is None else root
    children = [ObjectTree(object_id=get_object_id(item)) for item in contents if item != root]
    return Upload(
        {get_object_id(item): item for item in contents},
        ObjectTree(object_id=get_object_id(root), children=children),
    )


def _hostile_uploads() -> dict[str, Upload]:
    absent = "a" * 64
    record = _object("ConfigRecord", b"\xff\xff not protobuf")
    nested: Any = ObjectTree(object_id=absent)
    for _ in range(90):
        nested = ObjectTree(object_id=absent, children=[nested])
    many = [ObjectTree(object_id=f"{number:064x}") for number in range(5000)]
    return {
        "a message that is no protobuf": _upload(_object("Message", b"\xff\xff\xff not protobuf")),
        "an empty message": _upload(_object("Message", b"")),
        "a record for a message": _upload(record),
        "a child that is not there": _upload(_object("Message", b"", (absent,))),
        "itself for a child": Upload(
            {absent: _object("RecordDict", b"", (absent,))}, ObjectTree(object_id=absent)
        ),
        "a class that nobody knows": _upload(_object("CustomDataClass", b"")),
        "an id that was never uploaded": Upload({}, ObjectTree(object_id=absent)),
        "five thousand parts": Upload({}, ObjectTree(object_id=absent, children=many)),
        "ninety levels": Upload({absent: record}, nested),
    }


@pytest.mark.parametrize("name", list(_hostile_uploads()))
def test_a_malformed_reply_is_that_sites_answer_and_the_others_arrive(
    name: str, federation: _Federation, caplog: pytest.LogCaptureFixture
) -> None:
    federation.grid.answers[11] = lambda *_: _hostile_uploads()[name]
    with caplog.at_level("INFO", logger="cohortium.coordinator"):
        events = federation.ask()
    assert events[SOUTH] == Arrived(SOUTH, b"south")
    north = events[NORTH]
    assert isinstance(north, Missing)
    assert north.reason in (
        flower_replies.NOT_AN_ENVELOPE,
        flower_replies.TOO_MANY_PARTS,
    )
    assert any(line.startswith("north: ") for line in caplog.messages)
    assert federation.grid.confirmed  # Flower may delete what was uploaded


def test_a_site_that_sends_nonsense_once_is_asked_again_and_counts(
    federation: _Federation,
) -> None:
    nonsense = _upload(_object("Message", b"\xff"))
    federation.grid.answers[11] = lambda message, times: (
        nonsense if times == 1 else _echo(message, times)
    )
    assert federation.ask(5.0)[NORTH] == Arrived(NORTH, b"north")


def test_a_site_that_keeps_sending_nonsense_holds_no_round_to_its_deadline(
    federation: _Federation,
) -> None:
    federation.grid.answers[11] = lambda *_: _upload(_object("Message", b"\xff"))
    events = federation.ask(600.0)
    assert events[NORTH] == Missing(NORTH, flower_replies.NOT_AN_ENVELOPE)
    assert len(federation.grid.sent_to(11)) == flower_channel.NONSENSE_MAX


def test_an_answer_above_the_bound_is_let_go_before_it_is_parsed(
    federation: _Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [_object("ArrayChunk", bytes([number]) * 400) for number in range(3)]
    federation.grid.answers[11] = lambda *_: _upload(*parts)
    monkeypatch.setattr(flower_replies, "OBJECT_BYTES_MAX", 1000)
    event = federation.ask()[NORTH]
    assert event == Missing(NORTH, "its answer is above 1000 bytes")


def test_a_part_that_is_never_uploaded_keeps_nobody_else_waiting(federation: _Federation) -> None:
    stuck = _object("Message", b"x")
    federation.grid.answers[11] = lambda *_: Upload(
        {get_object_id(stuck): None}, ObjectTree(object_id=get_object_id(stuck))
    )
    events = federation.ask()
    assert list(events) == [SOUTH, NORTH]
    assert events[NORTH] == Missing(NORTH, "no answer before the deadline")


def test_while_an_answer_is_uploaded_the_site_is_not_asked_for_it_again(
    federation: _Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_channel, "RESEND_UNANSWERED_S", 0.05)
    grid = federation.grid
    looks = 0

    def slow(message: Message, _: int) -> Upload:
        reply = _echo(message, 0)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        whole = {key: item.deflate() for key, item in get_all_nested_objects(reply).items()}
        grid.slow = whole
        return Upload(dict.fromkeys(whole), get_object_tree(reply))

    pull = grid.PullObject

    def after_a_while(request: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 12:
            grid.objects.update(grid.slow)
        return pull(request)

    grid.answers[11] = slow
    monkeypatch.setattr(grid, "PullObject", after_a_while)
    assert federation.ask(10.0)[NORTH] == Arrived(NORTH, b"north")
    assert grid.sent_to(11) == [b"north"]
