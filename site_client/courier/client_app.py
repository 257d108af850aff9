"""The Flower `ClientApp`: an envelope in, an envelope out, and not a byte understood."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from common.errors import AgentUnavailable
from common.flower_content import pack_envelope, unpack_envelope
from site_client.courier.agent_client import AgentClient

SOCKET_VARIABLE: Final = "COHORTIUM_AGENT_SOCKET"

app = ClientApp()


@app.train()
def carry(message: Message, context: Context) -> Message:
    """Hand the envelope to the agent and return its answer.

    What goes wrong leaves as one of Flower's error numbers: the text of an exception is never sent.
    """
    del context
    envelope = unpack_envelope(message.content)
    if envelope is None:
        return _error(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "not an envelope")
    client = AgentClient(Path(os.environ[SOCKET_VARIABLE]))
    try:
        answer = client.carry(envelope)
    except AgentUnavailable:
        return _error(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "no agent")
    finally:
        client.close()
    return Message(content=pack_envelope(answer), reply_to=message)


def _error(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code=code, reason=reason), reply_to=message)
