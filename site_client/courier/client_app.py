"""The Flower `ClientApp`: an envelope in, an envelope out, and not a byte understood."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from common import limits
from common.errors import AgentUnavailable
from site_client.courier.agent_client import AgentClient

ENVELOPE_KEY: Final = "envelope"
SOCKET_VARIABLE: Final = "COHORTIUM_AGENT_SOCKET"

app = ClientApp()


@app.train()
def carry(message: Message, context: Context) -> Message:
    """Hand the envelope to the agent and return its answer.

    What goes wrong leaves as one of Flower's error numbers: the text of an exception is never sent.
    """
    del context
    envelope = read_envelope(message)
    if envelope is None:
        return _error(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "not an envelope")
    client = AgentClient(Path(os.environ[SOCKET_VARIABLE]))
    try:
        answer = client.carry(envelope)
    except AgentUnavailable:
        return _error(message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "no agent")
    finally:
        client.close()
    array = Array(np.frombuffer(answer, dtype=np.uint8))
    content = RecordDict({ENVELOPE_KEY: ArrayRecord({ENVELOPE_KEY: array})})
    return Message(content=content, reply_to=message)


def read_envelope(message: Message) -> bytes | None:
    """Return the envelope in a message, or None when there is none of at most the allowed size."""
    try:
        record = message.content[ENVELOPE_KEY]
        if not isinstance(record, ArrayRecord):
            return None
        array = record[ENVELOPE_KEY].numpy()
    except (KeyError, TypeError, ValueError):
        return None
    if array.dtype != np.uint8 or array.ndim != 1 or array.size > limits.ENVELOPE_BYTES_MAX:
        return None
    return bytes(array.tobytes())


def _error(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code=code, reason=reason), reply_to=message)
