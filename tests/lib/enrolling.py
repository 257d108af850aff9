"""A consortium's real enrolment without processes: the coordinator's half and the sites' halves."""

from __future__ import annotations

from pathlib import Path

from common.clock import SystemClock
from common.crypto.keys import VerifyKey
from common.protocol.enrolment import read_request
from server.config import CoordinatorPaths, RelayConfig, ServerConfig
from server.consortium import found_consortium
from server.site_directory import SiteDirectory
from server.storage.database import Database
from site_client.config import SitePaths
from site_client.enrolment import SiteIdentity, join, make_request

CLOCK = SystemClock()


class Enrolling:
    """A consortium, and sites that ask to join."""

    def __init__(
        self, folder: Path, *, port: int = 18443, relay: RelayConfig | None = None
    ) -> None:
        self.folder = folder
        self.paths = CoordinatorPaths(folder / "coordinator")
        self.config = ServerConfig(
            consortium="Heart network",
            host="127.0.0.1",
            listen_host="127.0.0.1",
            port=port,
            operator_port=port + 1,
            relay=relay,
        )
        self.fingerprint = found_consortium(self.paths.home, self.config, clock=CLOCK)

    def request(self, site_id: str) -> tuple[SitePaths, Path]:
        """Let a site make its keys and its request."""
        paths, out = SitePaths(self.folder / site_id), self.folder / f"{site_id}.request.json"
        make_request(paths, SiteIdentity(site_id, "A hospital", "it@example"), out=out, clock=CLOCK)
        return paths, out

    def admit(self, request: Path) -> Path:
        """Let the coordinator admit it, after the call in which the site read its fingerprint."""
        answer = request.with_suffix(".answer.json")
        database = Database.of(self.paths, self.config)
        record = read_request(request)
        SiteDirectory(database, CLOCK).admit(
            record,
            fingerprint=VerifyKey.from_text(record.verify_key).fingerprint,
            cohort_size_max=1000,
            paths=self.paths,
            config=self.config,
            answer=answer,
        )
        return answer

    def joined(self, site_id: str, *, proxy: str = "", extra_ca: Path | None = None) -> SitePaths:
        """Enrol a site to the end."""
        paths, request = self.request(site_id)
        answer = self.admit(request)
        join(paths, answer, fingerprint=self.fingerprint, proxy=proxy, extra_ca=extra_ca)
        return paths
