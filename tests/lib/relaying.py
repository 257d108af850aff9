"""A relay as its own process over real mutual TLS, with sites that seal and boards that open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc

from common.clock import SystemClock
from common.crypto.certificates import Authority, TlsKey, board_name, make_certificate_request
from common.crypto.keys import OpeningKey, SigningKey
from common.ids import BoardId, Digest, SiteId, StudyId
from common.protocol import monitoring_pb2 as wire
from common.protocol import monitoring_pb2_grpc
from common.protocol.monitoring.report_content import join_content
from common.protocol.monitoring.report_envelope import report_digest, seal_report
from common.protocol.monitoring.report_header import ReportDraft, genesis
from common.protocol.monitoring.roster import (
    BoardRole,
    MonitoringRoster,
    RosterBoard,
    RosterDecider,
    RosterSite,
    Standing,
    roster_genesis,
)
from common.protocol.monitoring.roster_file import sign_roster
from server.books import open_books
from server.config import RelayConfig
from server.relay_rosters import pin_given_roster
from server.relay_store import RelayStore
from server.storage.database import Database
from simulations.deployment import free_port
from site_client.config import SitePaths
from tests.lib.enrolling import Enrolling
from tests.lib.plans import make_plan

STUDY = StudyId("stroke")
ANY_DIGEST = Digest("ab" * 32)
SITES = ("east", "north")
STUDIES = (STUDY, StudyId("small-study"))
"""Registered: this file's, and that of the plans and worlds beside it."""


@dataclass
class Board:
    """A monitor board's keys and client certificate."""

    board_id: BoardId
    opening_key: OpeningKey
    signing_key: SigningKey
    tls_key: TlsKey
    certificate: str


@dataclass
class ReportingSite:
    """A site that seals one report after another."""

    paths: SitePaths
    site_id: SiteId
    signing_key: SigningKey
    sequence: int = 0
    head: Digest = ANY_DIGEST

    def seal(
        self,
        under: MonitoringRoster,
        *,
        study_id: StudyId = STUDY,
        body: bytes = bytes(1024),
        **changes: Any,
    ) -> bytes:
        """Return the next report's envelope under a roster; `changes` replace draft fields."""
        previous = self.head if self.sequence else genesis(study_id, self.site_id)
        draft = ReportDraft(
            study_id=study_id,
            site_id=self.site_id,
            key_epoch=1,
            kind="case-mix",
            period="2026-02",
            sequence=self.sequence + 1,
            previous=previous,
            model_version=ANY_DIGEST,
            schema=ANY_DIGEST,
            roster=under.digest,
            sealed_at_s=int(time.time()),
        )
        draft = replace(draft, **changes)
        envelope = seal_report(
            join_content({"any": 1}, body),
            draft,
            signing_key=self.signing_key,
            recipients=[board.sealing_key for board in under.recipients(draft.kind)],
        )
        self.sequence, self.head = draft.sequence, report_digest(envelope)
        return envelope


class Relaying:
    """One consortium with a relay, its sites and boards."""

    def __init__(self, folder: Path, *, sites: tuple[str, ...] = SITES, **config: Any) -> None:
        port = free_port()
        relay = RelayConfig(port=free_port(), **config)
        self.enrolling = Enrolling(folder, port=port, relay=relay)
        self.paths = self.enrolling.paths
        self.address = f"127.0.0.1:{relay.port}"
        self.store = RelayStore(Database.of(self.paths, self.enrolling.config), SystemClock())
        for study_id in STUDIES:
            self.register(study_id)
        self.authority_key = SigningKey.generate()
        self.deciders = {name: SigningKey.generate() for name in ("dr-a", "dr-b", "dr-c")}
        self.boards = {name: self._board(name) for name in ("board-a", "board-b")}
        self.sites: Mapping[str, ReportingSite] = {name: self._site(name) for name in sites}
        self.roster = self._first_roster()
        pin_given_roster(
            self.store,
            sign_roster(self.roster, self.authority_key),
            fingerprint=self.authority_key.fingerprint,
            now_s=int(time.time()),
        )

    def register(self, study_id: StudyId) -> None:
        """Register a study at the coordinator, without starting it."""
        books = open_books(self.paths, self.enrolling.config)
        books.register.register(
            make_plan(study__id=study_id), SigningKey.read(self.paths.signing_key)
        )

    def next_roster(self, **changes: Any) -> MonitoringRoster:
        """Return the version that follows the newest one, not yet pinned."""
        return replace(
            self.roster, version=self.roster.version + 1, previous=self.roster.digest, **changes
        )

    def signed(self, roster: MonitoringRoster) -> bytes:
        """Return a roster's bytes, signed by the authority."""
        return sign_roster(roster, self.authority_key)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the relay as its own process and wait until it is ready."""
        process = self.start()
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start the relay's process, or one that dies as words say, and wait until it is ready."""
        module = "tests.lib.dying_relay" if words else "server.relay_main"
        log = self.paths.logs / "relay.log"
        log.write_bytes(b"")
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(self.paths.home), *words],
                stdout=stream,
                stderr=stream,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        deadline = time.monotonic() + 60
        while b"the relay is ready" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    def log(self) -> str:
        """Return what the relay wrote."""
        return (self.paths.logs / "relay.log").read_text()

    @contextmanager
    def as_site(self, site_id: str, **options: Any) -> Iterator[Any]:
        """Give the stub of a site's connection."""
        paths = self.sites[site_id].paths
        certificate = paths.certificate.read_bytes()
        with self.connected(paths.tls_key.read_bytes(), certificate, **options) as stub:
            yield stub

    @contextmanager
    def as_board(self, board_id: str = "board-a", **options: Any) -> Iterator[Any]:
        """Give the stub of a board's connection."""
        board = self.boards[board_id]
        path = self.paths.home / f"{board_id}.key"
        if not path.exists():
            board.tls_key.write(path)
        with self.connected(path.read_bytes(), board.certificate.encode(), **options) as stub:
            yield stub

    @contextmanager
    def connected(
        self, key: bytes | None, certificate: bytes | None, **options: Any
    ) -> Iterator[Any]:
        """Give a stub with this client certificate."""
        credentials = grpc.ssl_channel_credentials(
            self.paths.ca_certificate.read_bytes(), key, certificate
        )
        # Its own connection: channels of the same arguments would share one.
        arguments = [("grpc.use_local_subchannel_pool", 1), *options.items()]
        with grpc.secure_channel(self.address, credentials, arguments) as channel:
            make: Any = monitoring_pb2_grpc.MonitoringStub
            yield make(channel)

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """Ask the relay to stop and return its exit code."""
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=30)

    def _board(self, name: str) -> Board:
        tls_key = TlsKey.generate()
        authority = Authority.from_pem(
            self.paths.ca_certificate.read_text(), TlsKey.read(self.paths.ca_key)
        )
        request = make_certificate_request(tls_key, board_name(name))
        certificate = authority.issue_board_certificate(request, name, now_s=int(time.time()))
        return Board(
            BoardId(name), OpeningKey.generate(), SigningKey.generate(), tls_key, certificate
        )

    def _site(self, name: str) -> ReportingSite:
        paths = self.enrolling.joined(name)
        return ReportingSite(paths, SiteId(name), SigningKey.read(paths.signing_key))

    def _first_roster(self) -> MonitoringRoster:
        now_s = int(time.time())
        return MonitoringRoster(
            version=1,
            consortium="Heart network",
            authority=self.authority_key.verify_key,
            previous=roster_genesis("Heart network"),
            not_before_s=now_s - 60,
            not_after_s=now_s + 86_400,
            grace_s=3600,
            suites=(2,),
            sites=tuple(
                RosterSite(site.site_id, site.signing_key.verify_key, 1, Standing.ACTIVE)
                for site in self.sites.values()
            ),
            boards=tuple(
                RosterBoard(
                    board.board_id,
                    BoardRole.BOARD,
                    board.opening_key.sealing_key,
                    board.signing_key.verify_key,
                    Standing.ACTIVE,
                )
                for board in self.boards.values()
            ),
            deciders=tuple(
                RosterDecider(name, key.verify_key, Standing.ACTIVE)
                for name, key in self.deciders.items()
            ),
        )


def submit(stub: Any, envelope: bytes, *, timeout: float = 30) -> int:
    """Return the position that the relay gives a report."""
    reply = stub.Submit(wire.SubmitRequest(envelope=envelope), timeout=timeout)
    return int(reply.position)


def collected(stub: Any, *, after: int = 0) -> list[tuple[int, bytes]]:
    """Return every stored report with its position."""
    found: list[tuple[int, bytes]] = []
    while True:
        request = wire.CollectRequest(study_id="", after_position=after, limit=0)
        page = [(item.position, item.envelope) for item in stub.Collect(request, timeout=60)]
        if not page:
            return found
        found += page
        after = page[-1][0]
