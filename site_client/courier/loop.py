"""The courier's loop over Flower's SuperNode connection: receive, check the bundle, carry, reply.

The connection, its login, its heartbeat and its objects are Flower's (`fleet_http_connection`). The
loop is ours, for two reasons (docs/decisions/0003): Flower's own unpacks and runs the bundle that
the coordinator sends and starts a process for each message, which takes seconds. Here the bundle is
compared with the pinned one and thrown away; nothing received is ever unpacked, imported or run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    push_object_contents_from_iterable,
)
from flwr.supercore.run import RunNotRunningException

from site_client.courier.bundle_pin import is_pinned
from site_client.courier.client_app import app

POLL_S: Final = 0.2
IDLE_POLL_S: Final = 1.0
IDLE_AFTER_S: Final = 60.0
_REMEMBERED_RUNS_MAX: Final = 1000

logger = logging.getLogger("cohortium.courier")


@dataclass
class CourierLoop:
    """One connection's work.

    Args:
        connection: what `http_request_response` yields: node id and seven callables.
        is_bundle_allowed: the pin; replaced only in tests.
    """

    connection: tuple[Any, ...]
    is_bundle_allowed: Callable[[bytes], bool] = is_pinned
    _allowed_runs: dict[int, bool] = field(default_factory=dict)

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Carry messages until told to stop."""
        busy_at = time.monotonic()
        while not should_stop():
            if self._step():
                busy_at = time.monotonic()
                continue
            is_idle = time.monotonic() - busy_at > IDLE_AFTER_S
            time.sleep(IDLE_POLL_S if is_idle else POLL_S)

    def _step(self) -> bool:
        """Carry one message if there is one, and return whether there was."""
        _, receive, _, _, _, pull_object, _, confirm = self.connection
        try:
            received = receive()
            if received is None:
                return False
            envelope_message, tree = received
            run_id = envelope_message.metadata.run_id
            if self._is_allowed(run_id):
                message = pull_and_inflate_object_from_tree(
                    tree,
                    lambda object_id: pull_object(run_id, object_id),
                    lambda object_id: confirm(run_id, object_id),
                    return_type=Message,
                )
                message.metadata.__dict__["_message_id"] = envelope_message.metadata.message_id
                reply = self._carry(message)
            else:
                error = Error(code=ErrorCode.INVALID_FAB, reason="bundle not pinned")
                reply = Message(error, reply_to=envelope_message)
            self._send(reply)
        except RunNotRunningException:
            logger.info("the run has ended; its message is dropped")
        return True

    def _is_allowed(self, run_id: int) -> bool:
        if run_id not in self._allowed_runs:
            _, _, _, get_run, get_fab, *_ = self.connection
            bundle = get_fab(get_run(run_id).fab_hash, run_id)
            if len(self._allowed_runs) >= _REMEMBERED_RUNS_MAX:
                self._allowed_runs.clear()
            self._allowed_runs[run_id] = self.is_bundle_allowed(bundle.content)
            if not self._allowed_runs[run_id]:
                logger.error("the bundle is not the pinned one: its messages are refused")
        return self._allowed_runs[run_id]

    def _carry(self, message: Message) -> Message:
        context = Context(
            run_id=message.metadata.run_id,
            node_id=self.connection[0],
            node_config={},
            state=RecordDict(),
            run_config={},
        )
        try:
            return app(message, context)
        except Exception as error:
            # The text of an exception is never sent; its type tells enough to hospital IT.
            logger.error("a message was not carried: %s", type(error).__name__)  # noqa: TRY400
            reason = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason="not carried")
            return Message(reason, reply_to=message)

    def _send(self, reply: Message) -> None:
        _, _, send, _, _, _, push_object, _ = self.connection
        run_id = reply.metadata.run_id
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            tree = get_object_tree(reply)
            contents = {
                object_id: item.deflate()
                for object_id, item in get_all_nested_objects(reply).items()
            }
        wanted, session = send(reply, tree, 0.0)
        push_object_contents_from_iterable(
            ((object_id, contents[object_id]) for object_id in contents if object_id in wanted),
            push_object_fn=lambda object_id, content: push_object(
                run_id, session, object_id, content
            ),
        )


def is_connection_lost(error: Exception) -> bool:
    """Return whether an error means that the coordinator cannot be reached just now."""
    return isinstance(error, httpx.HTTPError | OSError | RuntimeError)
