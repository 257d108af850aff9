"""A real gRPC server on a Unix socket in an agent's place, which answers as a test says."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

from common import limits
from common.protocol import agent_pb2, agent_pb2_grpc


class RawAgent(agent_pb2_grpc.AgentServicer):
    """Serves until `stop`.

    Args:
        socket: where it listens.
        answer: what it does with an envelope; returns it unchanged by default.
    """

    def __init__(
        self, socket: Path, answer: Callable[[bytes], bytes] = lambda envelope: envelope
    ) -> None:
        self.asked: list[bytes] = []
        self.answer = answer
        self.code = grpc.StatusCode.INTERNAL
        self._server = grpc.server(
            futures.ThreadPoolExecutor(max_workers=2),
            options=[
                ("grpc.max_send_message_length", limits.ENVELOPE_BYTES_MAX),
                ("grpc.max_receive_message_length", limits.ENVELOPE_BYTES_MAX),
            ],
        )
        agent_pb2_grpc.add_AgentServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def stop(self) -> None:
        """Stop to listen."""
        self._server.stop(None).wait()

    def Carry(self, request: Any, context: Any) -> Any:
        """Answer one envelope; an exception becomes `code` with its text, as a fault would be."""
        self.asked.append(bytes(request.envelope))
        try:
            return agent_pb2.CarryReply(envelope=self.answer(self.asked[-1]))
        except ValueError as error:
            context.abort(self.code, str(error))

    def Health(self, request: Any, context: Any) -> Any:
        """Say that it is there."""
        return agent_pb2.HealthReply(site_id="raw", state="ready", software_version="0")
