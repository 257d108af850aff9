"""A consortium as a monitor board sees it: real keys, rosters, and reports with noise."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common.canonical import digest_bytes
from common.clock import FixedClock
from common.crypto.keys import AnySealingKey, OpeningKey, SigningKey
from common.ids import BoardId, Digest, SiteId, StudyId
from common.protocol.monitoring.notices import Promotion
from common.protocol.monitoring.report_content import ReportContent, encode_content
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
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest
from common.study.report_tensors import (
    ReportKind,
    report_mechanisms,
    report_tensors,
    schema_digest,
)
from server.monitor_board.inbox import Inbox, Taken
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.plan_book import add_plan, take_promotion
from server.monitor_board.report_chain import Arrived
from server.monitor_board.roster_book import take_roster
from server.monitor_board.storage.database import BoardDatabase
from server.monitor_board.store import BoardStore
from tests.lib.plans import make_plan

STUDY: Final = StudyId("small-study")
CONSORTIUM: Final = "Heart network"
MODEL: Final = digest_bytes("test", b"model 1")
DAY_S: Final = 86_400


def utc_s(*parts: int) -> int:
    """Return a UTC date or time as seconds since 1970."""
    year, month, day, *rest = parts
    moment = datetime.datetime(year, month, day, *rest, tzinfo=datetime.UTC)
    return int(moment.timestamp())


FOUNDED_S: Final = utc_s(2026, 1, 1)
NOW_S: Final = utc_s(2026, 3, 5)
"""February's case mix is due."""
PLAN: Final = make_plan(
    monitoring={
        "sentinel_features": ["age", "systolic_bp", "sex"],
        "epsilon_per_report": 2.0,
        "late_days": 14,
    },
    label__prediction_window_days=30,
)


@dataclass
class SiteSide:
    """One site: its key and its chain."""

    site_id: SiteId
    key: SigningKey
    key_epoch: int = 1
    sequence: int = 0
    previous: Digest | None = None


@dataclass
class World:
    """The consortium; its newest roster is `rosters[-1]`."""

    plan: StudyPlan = PLAN
    authority: SigningKey = field(default_factory=SigningKey.generate)
    coordinator: SigningKey = field(default_factory=SigningKey.generate)
    opening: dict[BoardId, OpeningKey] = field(default_factory=dict)
    signing: dict[BoardId, SigningKey] = field(default_factory=dict)
    deciders: dict[str, SigningKey] = field(default_factory=dict)
    sites: dict[SiteId, SiteSide] = field(default_factory=dict)
    rosters: list[MonitoringRoster] = field(default_factory=list)
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOW_S))
    draws: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))

    @property
    def roster(self) -> MonitoringRoster:
        """The newest roster."""
        return self.rosters[-1]

    @property
    def roster_bytes(self) -> bytes:
        """The newest roster, signed."""
        return sign_roster(self.roster, self.authority)

    def next_roster(self, **changes: Any) -> bytes:
        """Make the next version, in force now; return its signed bytes."""
        before = self.roster
        self.rosters.append(
            replace(
                before,
                version=before.version + 1,
                previous=before.digest,
                not_before_s=self.clock.seconds,
                **changes,
            )
        )
        return self.roster_bytes

    def sites_with(self, site_id: SiteId, **changes: Any) -> tuple[RosterSite, ...]:
        """Return the roster's sites, one of them changed."""
        return tuple(
            replace(site, **changes) if site.site_id == site_id else site
            for site in self.roster.sites
        )

    def promotion(self, *, model: Digest = MODEL, sequence: int = 1) -> Promotion:
        """Return the coordinator's promotion of a model."""
        return Promotion(STUDY, plan_digest(self.plan), model, sequence, FOUNDED_S)

    def report(self, site_id: SiteId, kind: str = "case-mix", **changes: Any) -> bytes:
        """Return the site's next report and move its chain on."""
        site = self.sites[site_id]
        envelope = self.envelope(site_id, kind, **changes)
        site.sequence += 1
        site.previous = report_digest(envelope)
        return envelope

    def envelope(
        self,
        site_id: SiteId,
        kind: str = "case-mix",
        period: str = "2026-02",
        *,
        counts: npt.NDArray[np.int64] | None = None,
        content: bytes | None = None,
        content_changes: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
        recipients: Sequence[AnySealingKey] | None = None,
        patients: int = 400,
        **changes: Any,
    ) -> bytes:
        """Return an envelope without moving the site's chain; `changes` are the header's."""
        site = self.sites[site_id]
        roster = self.roster
        draft = ReportDraft(
            study_id=STUDY,
            site_id=site_id,
            key_epoch=site.key_epoch,
            kind=kind,
            period=period,
            sequence=site.sequence + 1,
            previous=site.previous or genesis(STUDY, site_id),
            model_version=MODEL,
            schema=digest_bytes("test", b"a share's schema")
            if kind.startswith("share")
            else schema_digest(self.plan, ReportKind(kind)),
            roster=roster.digest,
            sealed_at_s=self.clock.seconds,
        )
        draft = replace(draft, **changes)
        if content is None:
            content = self.content(kind, period, counts, patients, content_changes or {})
        if recipients is None:
            recipients = [item.sealing_key for item in roster.recipients(kind)]
        return seal_report(content, draft, signing_key=key or site.key, recipients=recipients)

    def content(
        self,
        kind: str,
        period: str,
        counts: npt.NDArray[np.int64] | None,
        patients: int,
        changes: Mapping[str, Any],
    ) -> bytes:
        """Return a report's plaintext; counts with the plan's noise unless they are given."""
        told = ReportKind(kind)
        record = ReportContent(
            kind=told,
            period=period,
            mechanisms=report_mechanisms(self.plan, told),
            epsilon_spent=2.0,
            epsilon_remaining=20.0,
            delta=self.plan.privacy.delta,
            ledger_head=digest_bytes("test", b"ledger"),
            software_version="0.1.0",
            counts=self.noisy(told, patients) if counts is None else counts,
        )
        return encode_content(replace(record, **changes))

    def noisy(self, kind: ReportKind, patients: int) -> npt.NDArray[np.int64]:
        """Return counts of patients spread evenly, with the plan's noise."""
        parts = []
        for tensor in report_tensors(self.plan, kind):
            exact = self.draws.multinomial(patients, np.full(tensor.cells, 1 / tensor.cells))
            noise = self.draws.normal(0, tensor.noise_multiplier, tensor.cells)
            parts.append(exact + np.rint(noise).astype(np.int64))
        return np.concatenate(parts)


def make_world(
    *,
    sites: Sequence[str] = ("north", "south"),
    boards: Sequence[str] = ("board",),
    plan: StudyPlan = PLAN,
) -> World:
    """Return a consortium with version 1 of its roster."""
    world = World(plan=plan)
    for name in sites:
        world.sites[SiteId(name)] = SiteSide(SiteId(name), SigningKey.generate())
    for name in boards:
        world.opening[BoardId(name)] = OpeningKey.generate()
        world.signing[BoardId(name)] = SigningKey.generate()
    for name in ("ada", "ben", "cleo"):
        world.deciders[name] = SigningKey.generate()
    world.rosters.append(
        MonitoringRoster(
            version=1,
            consortium=CONSORTIUM,
            authority=world.authority.verify_key,
            previous=roster_genesis(CONSORTIUM),
            not_before_s=FOUNDED_S,
            not_after_s=FOUNDED_S + 365 * DAY_S,
            grace_s=7 * DAY_S,
            suites=(2,),
            sites=tuple(
                RosterSite(site.site_id, site.key.verify_key, 1, Standing.ACTIVE)
                for site in sorted(world.sites.values(), key=lambda item: item.site_id)
            ),
            boards=tuple(
                RosterBoard(
                    board_id,
                    BoardRole.BOARD,
                    world.opening[board_id].sealing_key,
                    world.signing[board_id].verify_key,
                    Standing.ACTIVE,
                )
                for board_id in sorted(world.opening)
            ),
            deciders=tuple(
                RosterDecider(name, key.verify_key, Standing.ACTIVE)
                for name, key in sorted(world.deciders.items())
            ),
        )
    )
    return world


@dataclass
class BoardSide:
    """One board over a store of its own."""

    world: World
    board_id: BoardId
    database: BoardDatabase
    folder: Path
    received: int = 0

    @property
    def inbox(self) -> Inbox:
        """Its inbox, with the keys that are in its folder now."""
        return Inbox(
            self.database,
            OpeningKeys.read(self.folder),
            board_id=self.board_id,
            signing_key=self.world.signing[self.board_id],
            clock=self.world.clock,
        )

    @property
    def store(self) -> BoardStore:
        """What it knows."""
        return BoardStore(self.database)

    def take(self, *envelopes: bytes, at_s: int | None = None) -> list[tuple[str, str]]:
        """Take envelopes in one batch; return outcome and number of each."""
        batch = []
        for envelope in envelopes:
            self.received += 1
            received_at_s = self.world.clock.seconds if at_s is None else at_s
            batch.append(Arrived(self.received, envelope, received_at_s))
        return told(self.inbox.take(batch, stream=f"reports/{STUDY}"))

    def take_roster(self, data: bytes) -> MonitoringRoster:
        """Take a roster as from the relay."""
        with self.database.transaction() as connection:
            return take_roster(
                connection,
                data,
                authority=self.world.authority.verify_key,
                now_s=self.world.clock.seconds,
            )


def told(taken: Sequence[Taken]) -> list[tuple[str, str]]:
    """Return outcomes and numbers as plain words."""
    return [(item.outcome.value, item.number) for item in taken]


def make_board(world: World, folder: Path, name: str = "board", *, url: str = "") -> BoardSide:
    """Return a board that has the roster, the plan, the promotion and its keys."""
    keys = folder / name
    keys.mkdir()
    opening = world.opening[BoardId(name)]
    opening.write(keys / f"2-{opening.fingerprint.replace(' ', '')}.key")
    database = BoardDatabase(url or f"sqlite:///{folder / name}.db")
    database.migrate()
    side = BoardSide(world, BoardId(name), database, keys)
    side.take_roster(world.roster_bytes)
    with database.transaction() as connection:
        add_plan(connection, world.plan, now_s=world.clock.seconds)
        take_promotion(connection, world.promotion())
    return side
