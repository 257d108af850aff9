"""A board believes no relay: what a hostile one streams is cut off or refused, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from common.errors import TransportError
from common.ids import StudyId
from common.protocol import monitoring_pb2 as wire
from server.monitor_board.relay_connection import (
    PAGE_BYTES,
    PAGE_NOTICES,
    PAGE_REPORTS,
    POSITION_MAX,
    RelayConnection,
)

Said = Callable[[], Iterator[Any]]
STUDY = StudyId("stroke")


@contextmanager
def _relay(say: Said) -> Iterator[RelayConnection]:
    """Run a relay that answers every question with the same messages."""

    def answer(_request: bytes, _context: Any) -> Iterator[bytes]:
        for message in say():
            yield message.SerializeToString()

    handler = grpc.unary_stream_rpc_method_handler(answer)
    calls = {"Collect": handler, "Notices": handler}
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("cohortium.v1.Monitoring", calls),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    options = [("grpc.max_receive_message_length", 16 << 20)]
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            yield RelayConnection(channel, "a relay")
    finally:
        server.stop(0)


def _reports(*positions: int, at_s: int = 1, envelope: bytes = b"any") -> Said:
    return lambda: (
        wire.StoredReport(position=position, envelope=envelope, received_at_s=at_s)
        for position in positions
    )


@pytest.mark.parametrize(
    "say",
    [
        _reports(5),  # not behind what was asked for
        _reports(6, 6),
        _reports(7, 6),
        _reports(-1),
        _reports(POSITION_MAX + 1),
        _reports(6, at_s=-1),
        _reports(6, at_s=2**41),
        _reports(6, envelope=b""),
        _reports(*range(6, 6 + PAGE_REPORTS + 1)),
    ],
)
def test_a_page_that_no_relay_says_is_refused(say: Said) -> None:
    with _relay(say) as connection, pytest.raises(TransportError):
        connection.reports(STUDY, after=5)


def test_a_full_page_is_taken_whole() -> None:
    with _relay(_reports(*range(6, 6 + PAGE_REPORTS))) as connection:
        assert len(connection.reports(STUDY, after=5)) == PAGE_REPORTS


def test_a_relay_that_never_ends_fills_no_memory() -> None:
    sent: list[int] = []

    def endless() -> Iterator[Any]:
        for position in range(1, PAGE_NOTICES):
            sent.append(position)
            yield wire.StoredNotice(position=position, notice=bytes(4 << 20))

    with _relay(endless) as connection:
        page = connection.notices(after=0)
    assert sum(len(item.notice) for item in page) == PAGE_BYTES
    assert [item.position for item in page] == list(range(1, len(page) + 1))
    assert len(sent) < PAGE_NOTICES - 1


def test_what_came_before_a_line_broke_is_taken_and_a_break_at_once_is_none() -> None:
    def breaking(*positions: int) -> Said:
        def say() -> Iterator[Any]:
            yield from _reports(*positions)()
            message = "the line breaks"
            raise OSError(message)

        return say

    with _relay(breaking(6, 7)) as connection:
        assert [item.position for item in connection.reports(STUDY, after=5)] == [6, 7]
    with _relay(breaking()) as connection, pytest.raises(TransportError):
        connection.reports(STUDY, after=5)
