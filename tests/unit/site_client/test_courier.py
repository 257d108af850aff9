"""The courier: bytes in, bytes out, one pinned bundle, no call home, no text of an exception."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common import limits
from common.crypto.certificates import Authority, TlsKey
from common.errors import AgentUnavailable, ConfigError, TransportError
from common.flower_content import ENVELOPE_KEY, pack_envelope, unpack_envelope
from server.bundle import BUNDLE_NAME
from site_client.courier import agent_client
from site_client.courier.agent_client import AgentClient
from site_client.courier.bundle_pin import is_pinned
from site_client.courier.client_app import app
from site_client.courier.loop import CourierLoop
from site_client.courier.main import CourierConfig, prepare_environment, read_courier_config
from tests.lib.raw_agent import RawAgent

BUNDLE = Path(__file__).parents[3] / "server" / "bundle" / BUNDLE_NAME
CONTEXT = Context(run_id=7, node_id=1, node_config={}, state=RecordDict(), run_config={})


def _message(content: RecordDict) -> Message:
    return Message(content=content, dst_node_id=1, message_type="train")


def _carrying(envelope: bytes) -> Message:
    return _message(pack_envelope(envelope))


@pytest.fixture(autouse=True)
def _flower_task(monkeypatch: pytest.MonkeyPatch) -> None:
    # Flower makes a message only inside a task; these are the coordinator's.
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawAgent]:
    made = RawAgent(tmp_path / "agent.sock")
    monkeypatch.setenv("COHORTIUM_AGENT_SOCKET", str(tmp_path / "agent.sock"))
    yield made
    made.stop()


def test_an_envelope_goes_to_the_agent_and_its_answer_comes_back_byte_for_byte(
    agent: RawAgent,
) -> None:
    envelope = secrets.token_bytes(5000)
    agent.answer = lambda asked: bytes(reversed(asked))
    reply = app(_carrying(envelope), CONTEXT)
    assert agent.asked == [envelope]
    assert unpack_envelope(reply.content) == bytes(reversed(envelope))


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({ENVELOPE_KEY: ConfigRecord({"a": 1})}),
        RecordDict({ENVELOPE_KEY: ArrayRecord({"other": Array(np.zeros(3, np.uint8))})}),
        RecordDict({ENVELOPE_KEY: ArrayRecord({ENVELOPE_KEY: Array(np.zeros(3, np.float32))})}),
        RecordDict({ENVELOPE_KEY: ArrayRecord({ENVELOPE_KEY: Array(np.zeros((3, 3), np.uint8))})}),
    ],
)
def test_what_is_no_envelope_never_reaches_the_agent(agent: RawAgent, content: RecordDict) -> None:
    reply = app(_message(content), CONTEXT)
    assert reply.has_error()
    assert reply.error.reason == "not an envelope"
    assert agent.asked == []


def test_an_envelope_above_the_bound_is_not_carried(
    agent: RawAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ENVELOPE_BYTES_MAX", 100)
    assert app(_carrying(bytes(101)), CONTEXT).has_error()
    assert agent.asked == []
    assert not app(_carrying(bytes(100)), CONTEXT).has_error()


def test_no_text_of_an_agents_exception_travels(
    agent: RawAgent, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: bytes) -> bytes:
        raise ValueError("MARKED-VALUE")

    agent.answer = fails
    agent.code = grpc.StatusCode.INTERNAL
    with caplog.at_level(logging.DEBUG):
        reply = app(_carrying(b"envelope"), CONTEXT)
    assert reply.has_error()
    assert "MARKED" not in str(reply.error.reason)
    assert "MARKED" not in caplog.text


def test_an_agent_that_restarts_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "agent.sock"
    monkeypatch.setenv("COHORTIUM_AGENT_SOCKET", str(socket))
    started: list[RawAgent] = []

    def start() -> None:
        time.sleep(0.7)
        started.append(RawAgent(socket))

    thread = threading.Thread(target=start)
    thread.start()
    reply = app(_carrying(b"envelope"), CONTEXT)
    thread.join()
    started[0].stop()
    assert unpack_envelope(reply.content) == b"envelope"


def test_an_agent_that_stays_away_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_client, "RESTART_WAIT_S", 0.3)
    client = AgentClient(tmp_path / "none.sock")
    with pytest.raises(AgentUnavailable) as caught:
        client.carry(b"envelope")
    client.close()
    assert caught.value.exit_code == 61


def test_only_the_shipped_bundle_is_the_pinned_one() -> None:
    content = BUNDLE.read_bytes()
    assert is_pinned(content)
    assert not is_pinned(content + b"\0")
    assert not is_pinned(b"")


def test_another_bundle_is_answered_with_an_error_and_nothing_is_fetched(agent: RawAgent) -> None:
    sent: list[Message] = []

    def never(*_: object) -> None:
        raise AssertionError("an object of an unpinned bundle's run was fetched")

    class Run:
        fab_hash = "hash"

    class Fab:
        content = b"another bundle with its own site_client"

    message = _carrying(b"envelope")
    message.metadata.__dict__["_message_id"] = "1"
    pending = [(message, None)]
    connection = (
        1,
        lambda: pending.pop() if pending else None,
        lambda reply, *_: (sent.append(reply), (set(), ""))[1],
        lambda _: Run,
        lambda *_: Fab,
        never,
        lambda *_: None,
        never,
    )
    loop = CourierLoop(connection)
    assert loop._step()
    assert not loop._step()
    assert [reply.error.reason for reply in sent] == ["bundle not pinned"]
    assert agent.asked == []


def test_flowers_calls_home_are_off_before_flower_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(Authority.make("Test", TlsKey.generate(), now_s=1).certificate_pem)
    for name in ("FLWR_TELEMETRY_ENABLED", "HTTPS_PROXY", "COHORTIUM_AGENT_SOCKET"):
        monkeypatch.setenv(name, "before")
    config = CourierConfig(
        "127.0.0.1:1", ca_file, tmp_path / "node.key", tmp_path / "s", "http://p:3128"
    )
    prepare_environment(config)
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert os.environ["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert os.environ["HTTPS_PROXY"] == "http://p:3128"
    ca_file.write_text("no certificate")
    with pytest.raises(TransportError, match="authority"):
        prepare_environment(config)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"address": 1}', "\udcff"])
def test_a_courier_without_its_file_says_how_to_get_it(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "courier.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match="not configured") as caught:
        read_courier_config(tmp_path)
    assert "join" in caught.value.todo
