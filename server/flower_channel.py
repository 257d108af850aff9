"""`SiteChannel` over Flower's Grid: our own polling, our own deadline, idempotent re-sending.

Flower delivers a message once: when a courier dies with it, it is lost, and the Grid later answers
with an error. Requests are idempotent at the agent, so the same envelope is sent again while the
deadline allows. Nodes are mapped by the public key that was enrolled, never by what a node claims.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from common.crypto.node_key import parse_node_public_key
from common.errors import EnrolmentError
from common.flower_content import pack_envelope
from common.ids import SiteId
from server.flower_replies import Reply
from server.site_channel import Arrived, Missing
from server.site_directory import Site

POLL_S: Final = 0.2
NODE_POLL_S: Final = 1.0
SITES_POLL_S: Final = 1.0
RESEND_WAIT_S: Final = 1.0
NONSENSE_MAX: Final = 5  # then a site is missing: it must not hold every round to its deadline
NOT_CONNECTED: Final = "the site's courier is not connected"
RESEND_UNANSWERED_S: Final = 15.0
"""After this long without an answer the same envelope is sent again, then after twice as long."""

logger = logging.getLogger("cohortium.coordinator")


class Replies(Protocol):
    """Where replies come from."""

    @property
    def arriving(self) -> AbstractSet[str]:
        """Ids of the messages whose reply is being uploaded."""
        ...

    def pull(self, message_ids: Sequence[str]) -> Iterator[Reply]:
        """Yield what has come for these messages."""
        ...


@dataclass
class _Asked:
    """Where one site is in one call of `ask`."""

    site_id: SiteId
    make: Callable[[], bytes]
    message_ids: list[str] = field(default_factory=list)
    node_id: int = 0
    send_at: float = 0.0
    nonsense: int = 0
    reason: str = NOT_CONNECTED


class FlowerChannel:
    """Ask sites through one Flower run.

    Args:
        grid: Flower's; sends, and knows who is connected.
        replies: what came back.
        sites: reads the enrolled sites; asked again all the time, for a site may join or be
            suspended while a study runs.
        should_stop: asked between polls; true ends the call, sites without answer are missing.
    """

    def __init__(
        self,
        grid: Grid,
        sites: Callable[[], Sequence[Site]],
        *,
        replies: Replies,
        should_stop: Callable[[], bool],
    ) -> None:
        self._grid = grid
        self._replies = replies
        self._sites = sites
        self._should_stop = should_stop
        self._site_of_key: dict[bytes, SiteId] = {}
        self._suspended: set[SiteId] = set()
        self._sites_at = float("-inf")
        self._nodes: dict[SiteId, int] = {}
        self._nodes_at = 0.0

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask sites at the same time and yield what comes, until all came or the deadline."""
        deadline = time.monotonic() + deadline_s
        waiting = {site_id: _Asked(site_id, make) for site_id, make in requests.items()}
        while waiting and time.monotonic() < deadline and not self._should_stop():
            self._look_at_sites()
            for site_id in self._suspended & set(waiting):
                del waiting[site_id]
                yield Missing(site_id, "the site was suspended")
            self._send_due(waiting, deadline)
            for event in self._pull(waiting):
                del waiting[event.site_id]
                yield event
            if waiting:
                time.sleep(POLL_S)
        for asked in waiting.values():
            yield Missing(asked.site_id, asked.reason)

    def _look_at_sites(self) -> None:
        now = time.monotonic()
        if now - self._sites_at < SITES_POLL_S:
            return
        sites = self._sites()
        self._site_of_key = {
            parse_node_public_key(site.node_public_key): site.site_id for site in sites
        }
        self._suspended = {site.site_id for site in sites if not site.is_active}
        self._sites_at = now

    def _send_due(self, waiting: Mapping[SiteId, _Asked], deadline: float) -> None:
        now = time.monotonic()
        due = [asked for asked in waiting.values() if asked.send_at <= now]
        if not due:
            return
        nodes = self._online_nodes()
        for asked in due:
            if not self._replies.arriving.isdisjoint(asked.message_ids):
                # A large answer over a slow line: to ask again would upload it a second time.
                asked.send_at = now + RESEND_UNANSWERED_S
                continue
            node_id = nodes.get(asked.site_id)
            if node_id is None:
                asked.send_at = now + NODE_POLL_S
                continue
            message = Message(
                content=pack_envelope(asked.make()),
                dst_node_id=node_id,
                message_type="train",
                ttl=max(1.0, deadline - now),
            )
            [message_id, *_] = [*self._grid.push_messages([message]), ""]
            if not message_id:  # the node has gone since it was listed
                asked.send_at = now + NODE_POLL_S
                continue
            asked.message_ids.append(message_id)
            asked.node_id = node_id
            # A reply that a courier sent while the SuperLink was down is lost without a word.
            asked.send_at = now + RESEND_UNANSWERED_S * 2 ** (len(asked.message_ids) - 1)
            if asked.reason == NOT_CONNECTED:
                asked.reason = "no answer before the deadline"

    def _pull(self, waiting: Mapping[SiteId, _Asked]) -> Iterator[Arrived | Missing]:
        asked_of = {
            message_id: asked for asked in waiting.values() for message_id in asked.message_ids
        }
        if not asked_of:
            return
        answered: set[SiteId] = set()
        for reply in self._replies.pull(list(asked_of)):
            # The id is the SuperLink's record of the answer: what the reply itself says proves
            # nothing, and Flower's own error replies come from no site.
            asked = asked_of.get(reply.reply_to)
            if asked is None or asked.site_id in answered:
                continue
            if reply.envelope is None:
                asked.message_ids.remove(reply.reply_to)
                asked.send_at = time.monotonic() + RESEND_WAIT_S
                if asked.reason != reply.reason:
                    logger.info("%s: %s", asked.site_id, reply.reason)
                asked.reason = reply.reason
                self._nodes_at = 0.0
                asked.nonsense += reply.is_nonsense
                if asked.nonsense >= NONSENSE_MAX:
                    answered.add(asked.site_id)
                    yield Missing(asked.site_id, asked.reason)
                continue
            answered.add(asked.site_id)
            yield Arrived(asked.site_id, reply.envelope)

    def _online_nodes(self) -> Mapping[SiteId, int]:
        now = time.monotonic()
        if now - self._nodes_at >= NODE_POLL_S:
            self._nodes = {}
            for node in self._grid.get_nodes():
                site_id = self._site_of_key.get(_key_bytes(node.public_key))
                if site_id is not None and node.status == "online":
                    self._nodes[site_id] = int(node.node_id)
            self._nodes_at = now
        return self._nodes


def _key_bytes(public_key: Any) -> bytes:
    text = public_key.decode() if isinstance(public_key, bytes) else str(public_key)
    if text.startswith("-----BEGIN"):
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            load_pem_public_key,
        )

        try:
            key = load_pem_public_key(text.encode())
        except ValueError:
            return b""
        return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    try:
        return parse_node_public_key(text)
    except EnrolmentError:
        return b""
