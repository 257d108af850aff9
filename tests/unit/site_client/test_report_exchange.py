"""The courier's exchange: a real relay, a real agent's socket, and a real proxy between."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from common.canonical import digest_bytes
from common.crypto.keys import SigningKey
from common.errors import AgentUnavailable, KeyFileError, TransportError
from common.ids import Digest
from common.protocol import agent_pb2_grpc
from common.protocol import monitoring_pb2 as wire
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import Promotion, Receipt
from common.protocol.monitoring.roster_file import sign_roster
from server.relay_notices import admit_promotion
from site_client.agent_server import AgentService
from site_client.courier.agent_client import AgentClient
from site_client.courier.main import read_courier_config, start_exchange
from site_client.courier.report_exchange import AGAIN_S, RelayAccess, ReportExchange
from site_client.enrolment import join
from tests.lib.https_server import running_proxy
from tests.lib.relaying import ANY_DIGEST, STUDY, Relaying, collected


@dataclass
class Outbox:
    """A site's outbox and letter box in memory."""

    envelopes: list[bytes] = field(default_factory=list)
    notices: list[tuple[bytes, bytes]] = field(default_factory=list)
    is_broken: bool = False

    def outbox(self) -> Sequence[bytes]:
        return list(self.envelopes)

    def deliver(self, notice: bytes, body: bytes) -> str:
        if self.is_broken:
            message = "a text that must not leave"
            raise RuntimeError(message)
        self.notices.append((notice, body))
        return "taken"


@dataclass
class Clock:
    """Monotonic seconds that move when told."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


class Site:
    """One site's exchange with everything around it."""

    def __init__(self, relaying: Relaying, site_id: str, folder: Path, socket: Path) -> None:
        self.relaying, self.site = relaying, relaying.sites[site_id]
        self.outbox, self.clock, self.folder = Outbox(), Clock(), folder
        self.agent = AgentClient(socket)
        self.socket = socket

    def exchange(self, *, proxy: str = "", **changes: Any) -> ReportExchange:
        courier = self.site.paths.courier
        files = {
            "address": self.relaying.address,
            "ca_file": courier / "relay-ca.pem",
            "certificate": courier / "site.crt",
            "tls_key": courier / "tls.key",
            "proxy": proxy,
        }
        access = RelayAccess(**{**files, **changes})
        return ReportExchange(access, self.agent, folder=self.folder, clock_s=self.clock)

    def seal(self) -> bytes:
        envelope = self.site.seal(self.relaying.roster)
        self.outbox.envelopes.append(envelope)
        return envelope


@contextmanager
def _site(relaying: Relaying, site_id: str, folder: Path) -> Iterator[Site]:
    """Run the agent's real service on a socket, over an outbox in memory."""
    socket = folder / "agent.sock"
    site = Site(relaying, site_id, folder, socket)
    service = AgentService(None, site_id, site.outbox)  # type: ignore[arg-type]
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=2),
        options=[("grpc.max_receive_message_length", 256 << 20)],
    )
    register: Any = agent_pb2_grpc.add_AgentServicer_to_server
    register(service, server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        yield site
    finally:
        site.agent.close()
        server.stop(0).wait()


@pytest.fixture(scope="module")
def relaying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relaying]:
    built = Relaying(tmp_path_factory.mktemp("r"), calls_per_minute_max=100_000)
    with built.running():
        yield built


@pytest.fixture
def site(relaying: Relaying, tmp_path: Path) -> Iterator[Site]:
    with _site(relaying, "north", tmp_path) as built:
        yield built


def _stored(relaying: Relaying) -> list[bytes]:
    with relaying.as_board() as board:
        return [envelope for _, envelope in collected(board)]


def _receipt(relaying: Relaying, site_id: str, *, at_s: int) -> bytes:
    board = relaying.boards["board-a"]
    receipt = Receipt(STUDY, relaying.sites[site_id].site_id, 1, ANY_DIGEST, board.board_id, at_s)
    return sign_notice(receipt, {board.board_id: board.signing_key})


def _publish(relaying: Relaying, notice: bytes) -> None:
    with relaying.as_board() as board:
        board.Publish(wire.NoticeRequest(notice=notice), timeout=30)


def test_reports_reach_the_relay_once_and_the_roster_reaches_the_agent(site: Site) -> None:
    envelopes = [site.seal(), site.seal()]
    exchange = site.exchange()
    moved = exchange.once()
    assert moved.acknowledged == 2
    assert [envelope in _stored(site.relaying) for envelope in envelopes] == [True, True]
    roster = sign_roster(site.relaying.roster, site.relaying.authority_key)
    assert site.outbox.notices[0] == (roster, b"")
    # Acknowledged: not sent again, not even by a restarted courier's second turn.
    assert exchange.once() == type(moved)()
    assert site.exchange().once().acknowledged == 2
    assert _stored(site.relaying).count(envelopes[0]) == 1


def test_a_report_that_the_agent_still_wants_there_is_sent_again_after_an_hour(site: Site) -> None:
    site.seal()
    exchange = site.exchange()
    assert exchange.once().acknowledged == 1
    site.clock.seconds += AGAIN_S - 1
    assert exchange.once().acknowledged == 0
    site.clock.seconds += 2
    assert exchange.once().acknowledged == 1


def test_a_refused_report_stops_no_other_and_is_tried_again_after_a_notice(site: Site) -> None:
    site.outbox.envelopes.append(b"not an envelope")
    good = site.seal()
    exchange = site.exchange()
    moved = exchange.once()
    assert (moved.acknowledged, moved.refused) == (1, ["B1"])
    assert good in _stored(site.relaying)
    assert exchange.once().refused == []
    _publish(site.relaying, _receipt(site.relaying, "north", at_s=11))
    assert exchange.once().refused == ["B1"]


def test_notices_come_in_order_and_once_whatever_is_restarted(site: Site) -> None:
    site.exchange().once()
    site.outbox.notices.clear()
    receipts = [_receipt(site.relaying, "north", at_s=at_s) for at_s in (21, 22, 23)]
    for receipt in receipts:
        _publish(site.relaying, receipt)
    _publish(site.relaying, _receipt(site.relaying, "east", at_s=24))  # another site's
    site.exchange().once()
    site.exchange().once()
    assert [notice for notice, _ in site.outbox.notices] == receipts


def test_a_notice_that_the_agent_could_not_take_comes_again(site: Site) -> None:
    site.exchange().once()
    site.outbox.notices.clear()
    _publish(site.relaying, _receipt(site.relaying, "north", at_s=31))
    site.outbox.is_broken = True
    with pytest.raises(AgentUnavailable) as caught:
        site.exchange().once()
    assert "text that must not leave" not in str(caught.value)
    site.outbox.is_broken = False
    assert site.exchange().once().delivered == ["taken"]


def test_another_relay_in_its_place_gives_all_its_notices_again(site: Site) -> None:
    count = len(site.exchange().once().delivered)
    place = site.folder / "relay-place.json"
    record = json.loads(place.read_text())
    place.write_text(json.dumps({**record, "digest": "0" * 64}))
    assert len(site.exchange().once().delivered) == count
    place.write_text("junk")
    assert len(site.exchange().once().delivered) == count


def test_the_parameters_beside_a_promotion_come_whole(site: Site) -> None:
    site.exchange().once()
    site.outbox.notices.clear()
    parameters = bytes(range(256)) * 11_000  # 2.8 MB: three parts
    coordinator = SigningKey.read(site.relaying.paths.signing_key)
    version = Digest(digest_bytes("parameters", parameters))
    promotion = sign_notice(
        Promotion(STUDY, ANY_DIGEST, version, 1, 1_790_000_000), {"coordinator": coordinator}
    )
    notice = admit_promotion(promotion, parameters, coordinator=coordinator.verify_key)
    site.relaying.store.append_notices([notice])
    site.exchange().once()
    assert site.outbox.notices == [(promotion, parameters)]
    with site.relaying.as_board() as board:  # a board wants no parameters, and gets none
        messages = list(board.Notices(wire.NoticesRequest(), timeout=30))
    assert all(not message.body for message in messages)


def test_everything_passes_through_a_proxy_that_only_knows_connect(site: Site) -> None:
    envelope = site.seal()
    with running_proxy() as proxy:
        exchange = site.exchange(proxy=f"http://127.0.0.1:{proxy.server_address[1]}")
        assert exchange.once().acknowledged == 1
        exchange.close()
        assert proxy.tunnels == [site.relaying.address]
    assert envelope in _stored(site.relaying)


def test_a_proxy_that_refuses_is_a_relay_that_cannot_be_reached(site: Site) -> None:
    site.seal()
    with running_proxy(refuses=True) as proxy, pytest.raises(TransportError):
        site.exchange(proxy=f"http://127.0.0.1:{proxy.server_address[1]}").once()


def test_without_certificate_it_says_what_to_do(site: Site) -> None:
    with pytest.raises(KeyFileError, match="site's certificate"):
        site.exchange(certificate=site.folder / "none").once()


def test_a_relay_of_another_authority_gets_nothing(
    site: Site, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Relaying(tmp_path_factory.mktemp("o"), sites=())
    with pytest.raises(TransportError):
        site.exchange(ca_file=other.paths.ca_certificate).once()


@pytest.mark.slow
def test_the_courier_carries_in_a_thread_and_comes_back_after_the_relay_did(
    tmp_path: Path,
) -> None:
    relaying = Relaying(tmp_path / "r", sites=("north",))
    paths = relaying.sites["north"].paths
    answer = tmp_path / "r" / "north.request.answer.json"
    join(paths, answer, fingerprint=relaying.enrolling.fingerprint, relay=relaying.address)
    config_file = paths.courier / "courier.json"
    record = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**record, "relay_poll_s": 0.1}))
    stop = threading.Event()
    with _site(relaying, "north", paths.run) as site:
        thread = start_exchange(read_courier_config(paths.courier), stop)
        assert thread is not None
        envelope = site.seal()
        with relaying.running():
            _wait(lambda: _stored(relaying) == [envelope])
        second = site.seal()
        with relaying.running():
            _wait(lambda: _stored(relaying) == [envelope, second])
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def _wait(is_true: Any) -> None:
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
