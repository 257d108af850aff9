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
            return tuple(
                Arrived(item.position, item.envelope, item.received_at_s)
                for item in self._stub.Collect(request, timeout=CALL_S)
            )

    def notices(self, *, after: int) -> tuple[ArrivedNotice, ...]:
        """Return the next notices behind a position, at most one page."""
        request = wire.NoticesRequest(after_position=after, limit=PAGE_NOTICES)
        with self._failures():
            return tuple(
                ArrivedNotice(item.position, item.notice)
                for item in self._stub.Notices(request, timeout=CALL_S)
                if item.notice
            )

    def publish(self, notice: bytes) -> None:
        """Give the relay a notice; raises `NoticeRefused`."""
        try:
            self._stub.Publish(wire.NoticeRequest(notice=notice), timeout=CALL_S)
        except grpc.RpcError as error:
            if error.code() in _LATER:
                raise _unreachable(self._address, error) from None
            raise NoticeRefused(str(error.details())[:20]) from None

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise _unreachable(self._address, error) from None


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


def _unreachable(address: str, error: Any) -> CohortiumError:
    # The text of a status may come from anywhere; its code is one of seventeen words.
    number = str(error.details())[:20] if error.code() not in _LATER else ""
    return TransportError(
        "the relay does not answer",
        expected=f"the consortium's relay at {address}",
        arrived=f"{error.code().name} {number}".strip(),
        todo="check network, proxy and certificate; nothing is lost, `collect` goes on later",
    )
