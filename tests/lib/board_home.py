"""A board's folder beside a real relay, and reports whose periods fit today's clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from common.clock import SystemClock
from common.crypto.keys import SigningKey
from common.ids import SiteId, parse_study_id
from common.protocol.board_certificate import write_board_certificate
from common.protocol.enrolment_records import BoardCertificate
from common.protocol.monitoring.notice_checks import COORDINATOR
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import Promotion
from common.protocol.monitoring.signed_notice import read_signed
from common.study.plan_file import plan_digest
from common.study.report_periods import period_at
from server.durable_file import write_durably
from server.monitor_board.collecting import open_collector
from server.monitor_board.collector import Collector
from server.monitor_board.config import BoardConfig, BoardPaths, config_text, read_config
from server.monitor_board.plan_book import add_plan
from server.monitor_board.roster_book import take_roster
from server.monitor_board.setup import read_certificate
from server.monitor_board.storage.database import BoardDatabase
from server.monitor_board.store import BoardStore
from server.relay_notices import relayed
from tests.lib.board_world import MODEL, SiteSide, World
from tests.lib.plans import make_plan
from tests.lib.relaying import Relaying

PLAN: Final = make_plan(
    monitoring={
        "sentinel_features": ["age"],
        "epsilon_per_report": 2.0,
        "every": "week",
        "periods_max": 400,
        "late_days": 366,
    }
)
STUDY: Final = parse_study_id(PLAN.study.id)


def past_weeks(count: int) -> list[str]:
    """Return the labels of the last full weeks, the oldest first."""
    now_s, week_s = int(time.time()), 7 * 86_400
    return [period_at(now_s - back * week_s, "week").label for back in range(count, 0, -1)]


def world_of(relaying: Relaying) -> World:
    """Return the relay's consortium as reports are made for it."""
    world = World(plan=PLAN, authority=relaying.authority_key)
    world.clock.seconds = int(time.time())
    world.rosters.append(relaying.roster)
    for site in relaying.sites.values():
        world.sites[SiteId(site.site_id)] = SiteSide(SiteId(site.site_id), site.signing_key)
    return world


def promote(relaying: Relaying) -> None:
    """Store the promotion of the tests' model at the relay, as the coordinator does."""
    key = SigningKey.read(relaying.paths.signing_key)
    promotion = Promotion(STUDY, plan_digest(PLAN), MODEL, 1, int(time.time()))
    data = sign_notice(promotion, {COORDINATOR: key})
    relaying.store.append_notices([relayed(read_signed(data), data)])


def board_home(
    relaying: Relaying, name: str, folder: Path, *, url: str | None = None
) -> BoardPaths:
    """Return a board's folder that has keys, certificate, roster and plan."""
    board = relaying.boards[name]
    paths = BoardPaths(folder / name)
    for made in (paths.home, paths.keys, paths.opening_keys):
        made.mkdir()
    fingerprint = board.opening_key.fingerprint.replace(" ", "")
    board.opening_key.write(paths.opening_keys / f"2-{fingerprint}.key")
    board.signing_key.write(paths.signing_key)
    board.tls_key.write(paths.tls_key)
    coordinator = SigningKey.read(relaying.paths.signing_key)
    record = BoardCertificate(
        version=1,
        consortium="Heart network",
        board_id=name,
        relay_address=relaying.address,
        coordinator_verify_key=coordinator.verify_key.to_text(),
        ca_certificate=relaying.paths.ca_certificate.read_text(),
        certificate=board.certificate,
        issued_at_s=int(time.time()),
    )
    write_board_certificate(paths.certificate, record, coordinator)
    config = BoardConfig(
        consortium="Heart network",
        board_id=name,
        authority=relaying.authority_key.verify_key.to_text(),
        database_url=url,
        poll_s=1,
    )
    write_durably(paths.config, config_text(config).encode())
    database = BoardDatabase.of(paths, config)
    database.migrate()
    with database.transaction() as connection:
        take_roster(
            connection,
            relaying.signed(relaying.roster),
            authority=relaying.authority_key.verify_key,
            now_s=int(time.time()),
        )
        add_plan(connection, PLAN, now_s=int(time.time()))
    database.close()
    return paths


def collector_of(paths: BoardPaths) -> Collector:
    """Return the collector of a board's folder."""
    config = read_config(paths)
    database = BoardDatabase.of(paths, config)
    return open_collector(paths, config, database, read_certificate(paths), clock=SystemClock())


def store_of(paths: BoardPaths) -> BoardStore:
    """Return what a board knows."""
    return BoardStore(BoardDatabase.of(paths, read_config(paths)))
