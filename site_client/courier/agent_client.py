"""The courier's end of the agent's socket: hand in an envelope, carry the answer away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from common import limits
from common.errors import AgentUnavailable
from common.protocol import agent_pb2, agent_pb2_grpc

RESTART_WAIT_S: Final = 120.0
OUTBOX_WAIT_S: Final = 60.0
DELIVER_WAIT_S: Final = 300.0  # a model of 200 MiB is verified and kept
_RETRY_S: Final = 0.2


class AgentClient:
    """Calls of one agent; the same bytes are sent again while it restarts.

    Args:
        socket: the agent's.
    """

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(
            f"unix:{socket}",
            options=[
                ("grpc.max_receive_message_length", limits.ENVELOPE_BYTES_MAX + (1 << 16)),
                ("grpc.max_send_message_length", limits.ENVELOPE_BYTES_MAX + (1 << 16)),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )
        stub: Any = agent_pb2_grpc.AgentStub
        self._stub = stub(self._channel)

    def carry(self, envelope: bytes) -> bytes:
        """Return the agent's answer; raises `AgentUnavailable` when it stays away or refuses."""
        deadline = time.monotonic() + RESTART_WAIT_S
        while True:
            try:
                reply = self._stub.Carry(agent_pb2.CarryRequest(envelope=envelope))
                return bytes(reply.envelope)
            except grpc.RpcError as error:
                code = error.code()
                is_restarting = code in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.CANCELLED,
                    grpc.StatusCode.UNKNOWN,
                )
                if not is_restarting or time.monotonic() > deadline:
                    raise _refuse(code.name) from None
            time.sleep(_RETRY_S)

    def outbox(self) -> Sequence[bytes]:
        """Return the sealed reports that should be at the relay; raises `AgentUnavailable`."""
        try:
            reply = self._stub.Outbox(agent_pb2.OutboxRequest(), timeout=OUTBOX_WAIT_S)
        except grpc.RpcError as error:
            raise _refuse(error.code().name) from None
        return [bytes(envelope) for envelope in reply.envelopes]

    def deliver(self, notice: bytes, body: bytes) -> str:
        """Hand over one notice and return what became of it; raises `AgentUnavailable`."""
        request = agent_pb2.DeliverRequest(notice=notice, body=body)
        try:
            return str(self._stub.Deliver(request, timeout=DELIVER_WAIT_S).outcome)
        except grpc.RpcError as error:
            raise _refuse(error.code().name) from None

    def health(self, *, timeout_s: float) -> str:
        """Return the agent's site id; raises `AgentUnavailable`."""
        try:
            return str(self._stub.Health(agent_pb2.HealthRequest(), timeout=timeout_s).site_id)
        except grpc.RpcError as error:
            raise _refuse(error.code().name) from None

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _refuse(arrived: str) -> AgentUnavailable:
    return AgentUnavailable(
        "the agent does not answer on its socket",
        expected="a running `cohortium-site agent` that shares the socket's folder",
        arrived=arrived,
        todo="start the agent; look at its log",
    )
