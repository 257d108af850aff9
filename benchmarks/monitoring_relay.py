"""The relay under load: reports a second with mutual TLS and durable writes, and its memory.

`python -m benchmarks.monitoring_relay --sites 1000 --reports 100000`: so many sites, each with its
own certificate and its own connection, hand in one report after another, the next when the last is
acknowledged. Reports have a real header and signature and the size of large ones (20 kB of counts)
with two receivers; their sealed parts are random bytes, which the relay cannot tell from sealed
ones. Relay and sites share the machine: processor seconds say what the relay alone takes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from common.clock import SystemClock
from common.crypto.certificates import (
    Authority,
    TlsKey,
    make_certificate_request,
)
from common.crypto.keys import HYBRID_SUITE, OpeningKey, SigningKey
from common.crypto.signing import sign
from common.ids import BoardId, Digest, SiteId, StudyId
from common.protocol import monitoring_pb2 as wire
from common.protocol import monitoring_pb2_grpc
from common.protocol.frames import join_frames
from common.protocol.monitoring.report_envelope import MAGIC, STANZA_BYTES, report_digest
from common.protocol.monitoring.report_header import ReportHeader, encode_header, genesis
from common.protocol.monitoring.roster import (
    BoardRole,
    MonitoringRoster,
    RosterBoard,
    RosterSite,
    Standing,
    roster_genesis,
)
from common.protocol.monitoring.roster_file import sign_roster
from server.books import open_books
from server.config import CoordinatorPaths, RelayConfig, ServerConfig
from server.consortium import found_consortium
from server.relay_rosters import pin_given_roster
from server.relay_store import RelayStore
from server.storage.database import Database
from server.storage.tables import sites as sites_table
from simulations.deployment import free_port
from tests.lib.plans import make_plan

STUDY = StudyId("stroke")
DIGEST = Digest("ab" * 32)
PLAINTEXT_BYTES = 20_480
STEP = 10_000


@dataclass
class BenchSite:
    """One site: keys, certificate, connection, and where its chain is."""

    site_id: SiteId
    signing_key: SigningKey
    tls_key: bytes
    certificate: bytes
    sequence: int = 0
    head: Digest = DIGEST
    stub: Any = None

    def report(self, roster: MonitoringRoster) -> bytes:
        """Return the next report: a real header and signature, random sealed parts."""
        recipients = tuple(sorted(board.sealing_key.fingerprint for board in roster.boards))
        header = ReportHeader(
            version=1,
            suite=HYBRID_SUITE,
            study_id=STUDY,
            site_id=self.site_id,
            key_epoch=1,
            kind="case-mix",
            period="2026-02",
            sequence=self.sequence + 1,
            previous=self.head if self.sequence else genesis(STUDY, self.site_id),
            model_version=DIGEST,
            schema=DIGEST,
            roster=roster.digest,
            sealed_at_s=1_790_000_000,
            recipients=recipients,
            body_bytes=PLAINTEXT_BYTES,
            commitment=DIGEST,
        )
        head = encode_header(header)
        body = secrets.token_bytes(header.body_bytes + 16)
        stanzas = secrets.token_bytes(len(recipients) * STANZA_BYTES[HYBRID_SUITE])
        signature = sign(self.signing_key, "report", head, body, stanzas)
        envelope = join_frames([head, body, stanzas, signature], magic=MAGIC)
        self.sequence, self.head = header.sequence, report_digest(envelope)
        return envelope


def found(folder: Path, count: int) -> tuple[CoordinatorPaths, ServerConfig, list[BenchSite]]:
    """Make a consortium with a relay and so many enrolled sites."""
    port = free_port()
    relay = RelayConfig(
        port=free_port(),
        calls_per_minute_max=1_000_000,
        reports_per_day_max=10_000_000,
        report_bytes_per_day_max=1 << 50,
    )
    config = ServerConfig(
        consortium="Benchmark",
        host="127.0.0.1",
        listen_host="127.0.0.1",
        port=port,
        operator_port=port + 1,
        relay=relay,
    )
    paths = CoordinatorPaths(folder / "coordinator")
    found_consortium(paths.home, config, clock=SystemClock())
    authority = Authority.from_pem(paths.ca_certificate.read_text(), TlsKey.read(paths.ca_key))
    made = [_site(SiteId(f"site-{number:04d}"), authority, folder) for number in range(count)]
    books = open_books(paths, config)
    books.register.register(make_plan(study__id=STUDY), SigningKey.read(paths.signing_key))
    with Database.of(paths, config).transaction() as connection:
        for site in made:
            text = site.signing_key.verify_key.to_text()
            connection.execute(
                sites_table.insert().values(
                    site_id=site.site_id,
                    organisation="A hospital",
                    contact="it@example",
                    verify_key=text,
                    sealing_key=text,
                    node_public_key=text,
                    certificate="",
                    is_active=True,
                    admitted_at_s=0,
                )
            )
    return paths, config, made


def _site(site_id: SiteId, authority: Authority, folder: Path) -> BenchSite:
    key, path = TlsKey.generate(), folder / f"{site_id}.key"
    key.write(path)
    request = make_certificate_request(key, site_id)
    certificate = authority.issue_site_certificate(request, site_id, now_s=int(time.time()))
    return BenchSite(site_id, SigningKey.generate(), path.read_bytes(), certificate.encode())


def pin(paths: CoordinatorPaths, config: ServerConfig, made: list[BenchSite]) -> MonitoringRoster:
    """Pin a roster of these sites and two boards."""
    authority, now_s = SigningKey.generate(), int(time.time())
    roster = MonitoringRoster(
        version=1,
        consortium=config.consortium,
        authority=authority.verify_key,
        previous=roster_genesis(config.consortium),
        not_before_s=now_s - 60,
        not_after_s=now_s + 86_400,
        grace_s=3600,
        suites=(HYBRID_SUITE,),
        sites=tuple(
            RosterSite(site.site_id, site.signing_key.verify_key, 1, Standing.ACTIVE)
            for site in made
        ),
        boards=tuple(
            RosterBoard(
                BoardId(name),
                BoardRole.BOARD,
                OpeningKey.generate().sealing_key,
                SigningKey.generate().verify_key,
                Standing.ACTIVE,
            )
            for name in ("board-a", "board-b")
        ),
        deciders=(),
    )
    store = RelayStore(Database.of(paths, config), SystemClock())
    content = sign_roster(roster, authority)
    pin_given_roster(store, content, fingerprint=authority.fingerprint, now_s=now_s)
    return roster


def processor_s(pid: int) -> float:
    """Return a process's processor seconds."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Return a process's resident memory, without what it maps of files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


async def connect(made: list[BenchSite], address: str, authority: bytes) -> float:
    """Connect every site and return the seconds that it took."""
    started_at = time.perf_counter()
    channels = []
    for site in made:
        credentials = grpc.ssl_channel_credentials(authority, site.tls_key, site.certificate)
        channel = grpc.aio.secure_channel(
            address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        make: Any = monitoring_pb2_grpc.MonitoringStub
        site.stub = make(channel)
        channels.append(channel)
    for start in range(0, len(channels), 50):
        await asyncio.gather(*(item.channel_ready() for item in channels[start : start + 50]))
    return time.perf_counter() - started_at


async def load(
    made: list[BenchSite], roster: MonitoringRoster, total: int, pid: int
) -> list[tuple[int, float, float, float, list[float]]]:
    """Hand in so many reports; return for each step count, seconds, CPU, memory, waits."""
    left, done, waits = total, 0, list[float]()
    steps: list[tuple[int, float, float, float, list[float]]] = []
    step_at, step_cpu = time.perf_counter(), processor_s(pid)

    async def hand_in(site: BenchSite) -> None:
        nonlocal left, done, waits, step_at, step_cpu
        while left > 0:
            left -= 1
            envelope = site.report(roster)
            sent_at = time.perf_counter()
            await site.stub.Submit(wire.SubmitRequest(envelope=envelope), timeout=300)
            waits.append(time.perf_counter() - sent_at)
            done += 1
            if done % min(STEP, total) == 0:
                now, cpu = time.perf_counter(), processor_s(pid)
                steps.append((done, now - step_at, cpu - step_cpu, memory_mib(pid), waits))
                waits, step_at, step_cpu = [], now, cpu

    await asyncio.gather(*(hand_in(site) for site in made))
    return steps


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--reports", type=int, default=100_000)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, config, made = found(folder, words.sites)
        roster = pin(paths, config, made)
        size = len(made[0].report(roster))
        made[0].sequence = 0
        print(f"load {os.getloadavg()[0]:.1f}; a report has {size} bytes", flush=True)
        relay = start(paths)
        try:
            asyncio.run(run(made, roster, words.reports, relay.pid, config, paths))
        finally:
            relay.terminate()
            relay.wait()


def start(paths: CoordinatorPaths) -> subprocess.Popen[bytes]:
    """Start the relay's process and wait until it is ready."""
    log = paths.logs / "relay.log"
    with log.open("ab") as stream:
        relay = subprocess.Popen(
            [sys.executable, "-m", "server.relay_main", str(paths.home)],
            stdout=stream,
            stderr=stream,
        )
    while b"the relay is ready" not in log.read_bytes():
        if relay.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    return relay


async def run(
    made: list[BenchSite],
    roster: MonitoringRoster,
    total: int,
    pid: int,
    config: ServerConfig,
    paths: CoordinatorPaths,
) -> None:
    before = memory_mib(pid)
    seconds = await connect(made, config.relay_address, paths.ca_certificate.read_bytes())
    print(f"{len(made)} sites connected in {seconds:.1f} s; ", end="")
    print(f"memory {before:.0f} MiB before, {memory_mib(pid):.0f} MiB after")
    print("| reports | a second | relay's CPU ms a report | median and 99th ms | memory MiB |")
    print("|---|---|---|---|---|")
    for count, took, cpu, memory, waits in await load(made, roster, total, pid):
        size = min(STEP, total)
        quantiles = statistics.quantiles(waits, n=100)
        print(
            f"| {count} | {size / took:.0f} | {cpu / size * 1000:.2f} | "
            f"{quantiles[49] * 1000:.0f}, {quantiles[98] * 1000:.0f} | {memory:.0f} |"
        )
    size_mb = sum(path.stat().st_size for path in paths.home.glob("coordinator.db*")) / 1e6
    print(f"store {size_mb:.0f} MB; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
