"""The board's side of monitoring.proto: four calls over mutual TLS, and what their failures mean.

A proxy is taken from the environment (`https_proxy`, `grpc_proxy`, `no_proxy`), as gRPC does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from common import limits
from common.crypto.key_files import read_secret
from common.errors import CohortiumError, TransportError
from common.ids import StudyId
from common.protocol import monitoring_pb2 as wire
from common.protocol import monitoring_pb2_grpc
from common.protocol.enrolment_records import BoardCertificate
from server.monitor_board.report_chain import Arrived

CALL_S: Final = 300.0
PAGE_REPORTS: Final = 200
PAGE_NOTICES: Final = 1000
PAGE_BYTES: Final = 64 << 20  # of one page; what is behind it comes with the next
POSITION_MAX: Final = 2**53
TIME_S_MAX: Final = 2**40
_OPTIONS: Final = [
    ("grpc.max_receive_message_length", limits.REPORT_BYTES_MAX + (1 << 20)),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]
_LATER: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
)


@dataclass(frozen=True)
class ArrivedNotice:
    """A notice as the relay gave it, without its body."""

    position: int
    notice: bytes


class NoticeRefused(Exception):
    """The relay does not take a notice.

    Args:
        number: its reason, T and O numbers as for every reader.
    """

    def __init__(self, number: str) -> None:
        super().__init__(number)
        self.number = number


class RelayConnection:
    """Calls one relay. Every call raises `TransportError` when the relay cannot be reached."""

    def __init__(self, channel: grpc.Channel, address: str) -> None:
        make: Any = monitoring_pb2_grpc.MonitoringStub
        self._stub = make(channel)
        self._address = address

    def reports(self, study_id: StudyId, *, after: int) -> tuple[Arrived, ...]:
        """Return the next reports of a study behind a position, at most one page."""
        request = wire.CollectRequest(study_id=study_id, after_position=after, limit=PAGE_REPORTS)
        with self._failures():
            page = self._page(self._stub.Collect(request, timeout=CALL_S), after, PAGE_REPORTS)
        return tuple(Arrived(item.position, item.envelope, item.received_at_s) for item in page)

    def has_report(self, study_id: StudyId, position: int) -> bool:
        """Return whether the relay has a report of a study at a position; it never deletes one."""
        request = wire.CollectRequest(study_id=study_id, after_position=position - 1, limit=1)
        with self._failures():
            page = self._page(self._stub.Collect(request, timeout=CALL_S), position - 1, 1)
        return any(item.position == position for item in page)

    def notices(self, *, after: int) -> tuple[ArrivedNotice, ...]:
        """Return the next notices behind a position, at most one page."""
        request = wire.NoticesRequest(after_position=after, limit=PAGE_NOTICES)
        with self._failures():
            page = self._page(self._stub.Notices(request, timeout=CALL_S), after, PAGE_NOTICES)
        return tuple(ArrivedNotice(item.position, item.notice) for item in page)

    def publish(self, notice: bytes) -> None:
        """Give the relay a notice; raises `NoticeRefused`."""
        try:
            self._stub.Publish(wire.NoticeRequest(notice=notice), timeout=CALL_S)
        except grpc.RpcError as error:
            if error.code() in _LATER:
                raise _unreachable(self._address, error) from None
            raise NoticeRefused(str(error.details())[:20]) from None

    def _page(self, call: Any, after: int, count_max: int) -> list[Any]:
        """Return what a relay streams, as far as one page goes.

        A relay is not believed: positions rise behind the asked one, times are times, and neither
        number nor size of what it says can fill our memory. What came before a line broke, or a
        call took too long, is taken: over a slow line the same page would never come whole.

        Raises:
            TransportError: it says what no relay says; nothing of the page is taken.
        """
        page: list[Any] = []
        left = PAGE_BYTES
        for item in _until_it_breaks(call, page):
            received_at_s = getattr(item, "received_at_s", 0)
            content = item.envelope if hasattr(item, "envelope") else item.notice
            is_right = (
                after < item.position <= POSITION_MAX
                and 0 <= received_at_s <= TIME_S_MAX
                and content
                and len(page) < count_max
            )
            if not is_right:
                call.cancel()
                raise _odd(self._address, item.position, after)
            page.append(item)
            after, left = item.position, left - len(content)
            if left <= 0:
                call.cancel()
                break
        return page

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise _unreachable(self._address, error) from None


def _until_it_breaks(call: Any, page: list[Any]) -> Iterator[Any]:
    """Yield what a relay streams; a break behind something that was taken is an end."""
    try:
        yield from call
    except grpc.RpcError:
        if not page:
            raise


@contextmanager
def connected(
    tls_key: Path, certificate: BoardCertificate, *, address: str | None = None
) -> Iterator[RelayConnection]:
    """Give a connection to the relay; raises `KeyFileError`.

    Args:
        address: another than the certificate's.
    """
    credentials = grpc.ssl_channel_credentials(
        certificate.ca_certificate.encode("ascii"),
        read_secret(tls_key),
        certificate.certificate.encode("ascii"),
    )
    address = address or certificate.relay_address
    with grpc.secure_channel(address, credentials, _OPTIONS) as channel:
        yield RelayConnection(channel, address)


def _odd(address: str, position: int, after: int) -> TransportError:
    return TransportError(
        "the relay says what no relay says",
        expected=f"from {address} at most a page, positions rising behind {after}, with content",
        arrived=f"position {position}, an odd time, nothing, or more than was asked for",
        todo="ask the coordinator; nothing of it was taken, `collect` goes on later",
    )


def _unreachable(address: str, error: Any) -> CohortiumError:
    # The text of a status may come from anywhere; its code is one of seventeen words.
    number = str(error.details())[:20] if error.code() not in _LATER else ""
    return TransportError(
        "the relay does not answer",
        expected=f"the consortium's relay at {address}",
        arrived=f"{error.code().name} {number}".strip(),
        todo="check network, proxy and certificate; nothing is lost, `collect` goes on later",
    )
