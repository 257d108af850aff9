"""The courier's other way: sealed reports to the relay, the relay's notices to the agent.

A report is handed in with the same bytes until the relay has acknowledged it, and again now and
then while the agent still wants it there: a relay restored from a backup has forgotten it. Notices
go to the agent in order; the place is remembered when the agent has answered.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from common import limits
from common.errors import AgentUnavailable, KeyFileError, TransportError
from common.protocol import monitoring_pb2 as wire
from common.protocol import monitoring_pb2_grpc
from common.whole_file import write_whole
from site_client.courier.agent_client import AgentClient

BACK_OFF_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
SUBMIT_WAIT_S: Final = 120.0
NOTICES_WAIT_S: Final = 900.0
AGAIN_S: Final = 3600.0  # an acknowledged report that the agent still wants there
REFUSED_AGAIN_S: Final = 900.0  # a refused one: a new roster may let it in
SOON_S: Final = 2.0  # after something moved, more may follow: a receipt, the next report
_BUSY_S_MAX: Final = 60.0
_REMEMBERED_MAX: Final = 10_000
_REFUSED: Final = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
)

logger = logging.getLogger("cohortium.courier")


@dataclass(frozen=True)
class RelayAccess:
    """How the relay is reached.

    Args:
        address: host:port.
        ca_file: the consortium's authority alone.
        certificate, tls_key: the site's.
        proxy: URL of the hospital's HTTP proxy, or empty.
    """

    address: str
    ca_file: Path
    certificate: Path
    tls_key: Path
    proxy: str


@dataclass
class Moved:
    """What one turn did.

    Args:
        acknowledged: reports that the relay has acknowledged.
        refused: numbers of its refusals.
        delivered: what the agent said to each notice.
    """

    acknowledged: int = 0
    refused: list[str] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)


class ReportExchange:
    """Carries reports and notices of one site.

    Args:
        access: to the relay.
        agent: its socket.
        folder: the courier's, where the place in the notices is remembered.
        clock_s: monotonic seconds; replaced only in tests.
    """

    def __init__(
        self,
        access: RelayAccess,
        agent: AgentClient,
        *,
        folder: Path,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._agent = agent
        self._place_file = folder / "relay-place.json"
        self._clock_s = clock_s
        # By digest: when to hand a report in again.
        self._acknowledged: dict[bytes, float] = {}
        self._refused: dict[bytes, float] = {}
        self._channel: Any = None
        self._is_place_checked = False

    def run(self, *, stop: threading.Event, poll_s: float) -> None:
        """Carry until told to stop; whatever breaks is tried again with back-off."""
        failures = 0
        while not stop.is_set():
            try:
                moved = self.once()
                failures = 0
                has_moved = moved.acknowledged or moved.delivered
                wait_s = min(SOON_S, poll_s) if has_moved else poll_s
            except Busy as busy:
                wait_s = busy.wait_s
            except (TransportError, AgentUnavailable, KeyFileError) as error:
                logger.warning("%s (%s); trying again", error.refused, error.arrived)
                wait_s = BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)]
                failures += 1
            except Exception as error:
                logger.error("the exchange broke: %s", type(error).__name__)  # noqa: TRY400
                wait_s = BACK_OFF_S[-1]
                self.close()
            # Sites that were cut off together must not come back together.
            stop.wait(wait_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, no secret
        self.close()

    def once(self) -> Moved:
        """Deliver what waits at the relay, then hand in what the agent wants there.

        In this order, because a new roster decides how the next report must be sealed.

        Raises:
            TransportError: the relay cannot be reached.
            KeyFileError: the site's certificate or its key is not there.
            AgentUnavailable: the agent does not answer.
            Busy: the relay wants to be left alone for a while.
        """
        moved = Moved()
        try:
            stub = self._connected()
            self._deliver_notices(stub, moved)
            self._submit_reports(stub, moved)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise Busy(_pushback_s(error)) from None
            self.close()
            raise _unreachable(error.code().name) from None
        return moved

    def close(self) -> None:
        """Close the connection; the next turn opens another."""
        if self._channel is not None:
            self._channel.close()
        self._channel, self._is_place_checked = None, False

    def _connected(self) -> Any:
        if self._channel is None:
            self._channel = open_channel(self._access)
        make: Any = monitoring_pb2_grpc.MonitoringStub
        return make(self._channel)

    def _submit_reports(self, stub: Any, moved: Moved) -> None:
        for envelope in self._agent.outbox():
            digest = hashlib.sha256(envelope).digest()
            now = self._clock_s()
            if now < max(self._acknowledged.get(digest, now), self._refused.get(digest, now)):
                continue
            try:
                stub.Submit(wire.SubmitRequest(envelope=envelope), timeout=SUBMIT_WAIT_S)
            except grpc.RpcError as error:
                moved.refused.append(_number(error, "a report"))
                _remember(self._refused, digest, now + REFUSED_AGAIN_S)
            else:
                moved.acknowledged += 1
                _remember(self._acknowledged, digest, now + AGAIN_S)

    def _deliver_notices(self, stub: Any, moved: Moved) -> None:
        after = self._place(stub)
        request = wire.NoticesRequest(after_position=after, with_bodies=True)
        try:
            for position, notice, body in _whole(stub.Notices(request, timeout=NOTICES_WAIT_S)):
                outcome = self._agent.deliver(notice, body)
                self._keep_place(position, notice)
                logger.info("notice %d: %s", position, outcome)
                moved.delivered.append(outcome)
        except grpc.RpcError as error:
            moved.refused.append(_number(error, "to give notices"))
        if moved.delivered:
            self._refused.clear()  # a new roster may let in what was refused

    def _place(self, stub: Any) -> int:
        """Return after which position to go on; 0 when the relay no longer has what we had."""
        try:
            record = json.loads(self._place_file.read_text(encoding="ascii"))
            position, digest = int(record["position"]), str(record["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        if not self._is_place_checked:
            request = wire.NoticesRequest(after_position=position - 1, limit=1)
            found = list(stub.Notices(request, timeout=NOTICES_WAIT_S))
            is_same = bool(found) and (found[0].position, _digest(found[0].notice)) == (
                position,
                digest,
            )
            if not is_same:
                logger.warning("the relay's notices are not those that we had: all again")
                self._place_file.unlink(missing_ok=True)
                return 0
            self._is_place_checked = True
        return position

    def _keep_place(self, position: int, notice: bytes) -> None:
        record = {"position": position, "digest": _digest(notice)}
        write_whole(self._place_file, json.dumps(record).encode("ascii"))
        self._is_place_checked = True


class Busy(Exception):
    """The relay wants to be left alone for a while.

    Args:
        wait_s: for how long.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.wait_s = wait_s


def open_channel(access: RelayAccess) -> Any:
    """Return a gRPC channel to the relay, through the proxy if there is one; `KeyFileError`."""
    try:
        credentials = grpc.ssl_channel_credentials(
            access.ca_file.read_bytes(),
            access.tls_key.read_bytes(),
            access.certificate.read_bytes(),
        )
    except OSError as error:
        raise KeyFileError(
            "the relay cannot be reached without the site's certificate",
            expected=f"{access.certificate.name}, {access.tls_key.name} and {access.ca_file.name} "
            f"in {access.ca_file.parent}",
            arrived=error.strerror or type(error).__name__,
            todo="run `cohortium-site join` again",
        ) from None
    options: list[tuple[str, str | int]] = [
        ("grpc.max_receive_message_length", limits.NOTICE_BYTES_MAX + (1 << 16)),
        ("grpc.max_send_message_length", limits.NOTICE_BYTES_MAX + (1 << 16)),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_reconnect_backoff_ms", 60_000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if access.proxy:
        options.append(("grpc.http_proxy", access.proxy))
    return grpc.secure_channel(access.address, credentials, options)


def _whole(messages: Any) -> Iterator[tuple[int, bytes, bytes]]:
    """Join the parts of bodies: position, notice and body of each notice.

    Raises:
        TransportError: for parts that do not fit together.
    """
    position, notice, parts, missing = 0, b"", [b""], 0
    for message in messages:
        if missing == 0:
            position, notice = message.position, bytes(message.notice)
            missing, parts = message.body_bytes, []
            is_right = message.body_bytes <= limits.PARAMETERS_BYTES_MAX
        else:
            is_right = message.position == position and 0 < len(message.body) <= missing
        if not is_right:
            raise _unreachable("parts of a notice that do not fit together")
        parts.append(bytes(message.body))
        missing -= len(message.body)
        if missing == 0:
            yield position, notice, b"".join(parts)
    if missing:
        raise _unreachable("half a notice")


def _number(error: Any, what: str) -> str:
    """Return the number of a refusal; raises any other failure again."""
    if error.code() not in _REFUSED:
        raise error
    number = str(error.details())[:20]
    logger.warning("the relay refuses %s: %s", what, number)
    return number


def _remember(again_at: dict[bytes, float], digest: bytes, at: float) -> None:
    if len(again_at) >= _REMEMBERED_MAX:
        again_at.clear()
    again_at[digest] = at


def _digest(notice: bytes) -> str:
    return hashlib.sha256(notice).hexdigest()


def _pushback_s(error: Any) -> float:
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-retry-pushback-ms" and value.isdecimal():
            return min(_BUSY_S_MAX, max(0.1, int(value) / 1000))
    return SOON_S


def _unreachable(arrived: str) -> TransportError:
    return TransportError(
        "the relay of monitoring reports cannot be reached",
        expected="the coordinator's relay, which has admitted this site's certificate",
        arrived=arrived,
        todo="check address, proxy and firewall; TLS inspection must let this connection be",
    )
