"""Sites' replies out of Flower's store: one at a time, bounded, and none can harm another.

`Grid.pull_messages` takes every waiting reply, fetches and parses them in one go and raises at the
first that does not parse; by then the SuperLink has forgotten all of them. It also waits up to two
hours for parts that a sender never uploads, and bounds neither their number nor their size. A site
that skips our courier could so end a study for all. Here each reply is fetched on its own, as far
as its parts have arrived, and what is wrong with it is that site's answer and nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from flwr.app import Message
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from common import limits
from common.flower_content import unpack_envelope
from server.object_trees import OBJECTS_MAX, object_ids

OBJECT_BYTES_MAX: Final = limits.ENVELOPE_BYTES_MAX + (1 << 20)  # of one reply, all its parts
TOO_MANY_PARTS: Final = f"its answer has more than {OBJECTS_MAX} parts"
NOT_AN_ENVELOPE: Final = "the courier's answer was not an envelope"


@dataclass(frozen=True)
class Reply:
    """What came of one message.

    Args:
        reply_to: id of the message, as the SuperLink stored it with the reply.
        envelope: of the reply, or None.
        reason: why there is no envelope, never in the other side's words.
        is_nonsense: whether somebody made it on purpose or by a fault; false for Flower's errors,
            which come of a courier that died and pass when it is asked again.
    """

    reply_to: str
    envelope: bytes | None
    reason: str = ""
    is_nonsense: bool = False


@dataclass
class _Arriving:
    """A reply whose parts are being fetched."""

    object_id: str
    missing: list[str]
    parts: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


class FlowerReplies:
    """The replies of one run.

    Args:
        grid: Flower's `HttpGrid`; its Runtime API client is used directly, because the Grid offers
            nothing between "tell me which replies there are" and "fetch and parse them all".
    """

    def __init__(self, grid: Any) -> None:
        self._grid = grid
        self._arriving: dict[str, _Arriving] = {}

    @property
    def arriving(self) -> AbstractSet[str]:
        """Ids of the messages whose reply is being uploaded: nobody needs to be asked again."""
        return self._arriving.keys()

    def pull(self, message_ids: Sequence[str]) -> Iterator[Reply]:
        """Yield what has come for these messages; a reply that is still uploaded comes later.

        Raises:
            httpx.TransportError: when the SuperLink does not answer at all.
        """
        asked = set(message_ids)
        self._arriving = {key: item for key, item in self._arriving.items() if key in asked}
        yield from self._claim(asked - set(self._arriving))
        for reply_to, arriving in list(self._arriving.items()):
            reply = self._fetch(reply_to, arriving)
            if reply is None:
                continue
            del self._arriving[reply_to]
            self._confirm(arriving.object_id)
            yield reply

    def _claim(self, message_ids: set[str]) -> Iterator[Reply]:
        """Take over the replies that are there; Flower hands out each once and then forgets it."""
        if not message_ids:
            return
        answer = self._grid._runtime_client.PullMessages(
            PullAppMessagesRequest(message_ids=sorted(message_ids))
        )
        for stored, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            reply_to = stored.metadata.reply_to_message_id
            if reply_to not in message_ids:
                continue
            ids = object_ids(tree)
            if ids is None:
                self._confirm(stored.metadata.message_id)
                yield _nonsense(reply_to, TOO_MANY_PARTS)
            else:
                self._arriving[reply_to] = _Arriving(stored.metadata.message_id, ids)

    def _fetch(self, reply_to: str, arriving: _Arriving) -> Reply | None:
        """Fetch the parts that are there; return the reply when it is whole or refused."""
        try:
            while arriving.missing:
                part = self._part(arriving.missing[-1])
                if part is None:
                    return None
                arriving.size += len(part)
                if arriving.size > OBJECT_BYTES_MAX:
                    return _nonsense(reply_to, f"its answer is above {OBJECT_BYTES_MAX} bytes")
                arriving.parts[arriving.missing.pop()] = part
            message = inflate_object_from_contents(arriving.object_id, arriving.parts)
            return _read(reply_to, message)
        except httpx.TransportError:
            raise
        # Flower's parsers raise many types on hostile bytes; one site's reply must end no run.
        except Exception:
            return _nonsense(reply_to, NOT_AN_ENVELOPE)

    def _part(self, object_id: str) -> bytes | None:
        """Return one part, or None while its upload goes on; raises when it will never come."""
        answer = self._grid._runtime_client.PullObject(
            PullObjectRequest(
                node=self._grid.node, run_id=self._grid.run.run_id, object_id=object_id
            )
        )
        if not answer.object_found:
            raise LookupError("the upload was given up")
        return bytes(answer.object_content) if answer.object_available else None

    def _confirm(self, object_id: str) -> None:
        # Lets Flower delete the parts. A refusal to delete is nothing that a study must end for.
        try:
            self._grid._runtime_client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(
                    node=self._grid.node,
                    run_id=self._grid.run.run_id,
                    message_object_id=object_id,
                )
            )
        except httpx.HTTPStatusError:
            return


def _read(reply_to: str, message: Any) -> Reply:
    if not isinstance(message, Message):
        return _nonsense(reply_to, NOT_AN_ENVELOPE)
    if message.has_error():
        code = int(message.error.code)
        return Reply(reply_to, None, f"the courier did not answer (Flower error {code})")
    envelope = unpack_envelope(message.content)
    if envelope is None:
        return _nonsense(reply_to, NOT_AN_ENVELOPE)
    return Reply(reply_to, envelope)


def _nonsense(reply_to: str, reason: str) -> Reply:
    return Reply(reply_to, None, reason, is_nonsense=True)
