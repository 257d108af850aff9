"""A site that monitors, in this process: real keys, SQLite, features, gate; and its consortium."""

from __future__ import annotations

import datetime
import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.clock import FixedClock
from common.crypto.keys import OpeningKey, SigningKey
from common.ids import BoardId, Digest, SiteId, StudyId
from common.protocol.arrays import encode_parameters, parameters_digest
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import (
    Action,
    Decision,
    Promotion,
    Receipt,
    decision_genesis,
)
from common.protocol.monitoring.report_content import ReportContent, decode_content
from common.protocol.monitoring.report_envelope import open_report, report_digest
from common.protocol.monitoring.report_header import ReportHeader
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
from common.study.report_tensors import ReportKind, report_tensors
from common.study.scaling import initial_model
from site_client.config import SiteConfig, SitePaths
from site_client.monitoring.mailbox import MonitoringMailbox
from site_client.monitoring.report import SiteMonitor
from site_client.open_monitoring import open_mailbox, open_monitor
from site_client.open_site import OpenSite, open_records
from site_client.tasks import SiteKeys
from tests.lib.plans import make_plan

CONSORTIUM = "Test consortium"
SITE = SiteId("northfield")
LIMITS = """
[limits]
epsilon_per_study = 8.0
epsilon_total = 20.0
delta_total = 1e-3
cohort_size_min = 20
"""
TABLE = """
[source]
kind = "table"
path = "patients.csv"
subject_id = "patient"
index_date_column = "seen"

[source.features]
age = { column = "age", unit = "a" }
systolic_bp = { column = "sbp", unit = "mm[Hg]" }
sex = { column = "sex", values = { f = "female", m = "male" } }

[source.label]
column = "stroke"
positive = ["1"]
negative = ["0"]
"""
DAY_S = 86_400


def seconds(text: str) -> int:
    """Return an ISO date as seconds since 1970, UTC."""
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp())


def monitored_plan(**changes: Any) -> StudyPlan:
    """Return a plan whose table is that of `write_visits`; see `make_plan`."""
    defaults: dict[str, Any] = {
        "label__prediction_window_days": 30,
        "monitoring": {
            "sentinel_features": ["age", "systolic_bp", "sex"],
            "bins": 6,
            "epsilon_per_report": 1.0,
            "patients_min": 20,
            "periods_max": 6,
        },
    }
    return make_plan(**{**defaults, **changes})


def write_visits(
    path: Path, *, months: int = 4, patients: int = 400, seed: int = 1, year: int = 2026
) -> None:
    """Write a table of visits: patients come back, some values and outcomes are not recorded."""
    rng = random.Random(seed)
    lines = ["patient,seen,age,sbp,sex,stroke"]
    for month in range(1, months + 1):
        for _ in range(patients):
            day = datetime.date(year, month, rng.randint(1, 28))
            age, sbp = rng.randint(18, 99), rng.randint(85, 210)
            lines.append(
                f"p{rng.randint(1, 3 * patients)},{day.isoformat()},{age},"
                f"{sbp if rng.random() < 0.9 else ''},{rng.choice(['f', 'm', '?'])},"
                f"{rng.choice(['0', '1']) if rng.random() < 0.95 else ''}"
            )
    path.write_text("\n".join(lines) + "\n")


@dataclass
class Members:
    """Everybody's keys."""

    authority: SigningKey = field(default_factory=SigningKey.generate)
    coordinator: SigningKey = field(default_factory=SigningKey.generate)
    coordinator_opening: OpeningKey = field(default_factory=OpeningKey.generate)
    board: SigningKey = field(default_factory=SigningKey.generate)
    board_opening: OpeningKey = field(default_factory=OpeningKey.generate)
    deciders: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in ("ada", "ben", "cem")}
    )


@dataclass
class MonitoredSite:
    """One site with its consortium's keys."""

    paths: SitePaths
    config: SiteConfig
    site: OpenSite
    plan: StudyPlan
    members: Members
    clock: FixedClock
    monitor: SiteMonitor
    mailbox: MonitoringMailbox

    @property
    def study_id(self) -> StudyId:
        """The study."""
        return StudyId(self.plan.study.id)

    def reopened(self) -> MonitoredSite:
        """Return the site as another process opens it: from its files alone."""
        return _opened(self.paths, self.config, self.plan, self.members, self.clock, self.site.keys)

    def roster(self, **changes: Any) -> MonitoringRoster:
        """Return the consortium's first roster, or one with other fields."""
        key = self.site.keys.signing.verify_key
        board = RosterBoard(
            BoardId("board-1"),
            BoardRole.BOARD,
            self.members.board_opening.sealing_key,
            self.members.board.verify_key,
            Standing.ACTIVE,
        )
        deciders = tuple(
            RosterDecider(name, key.verify_key, Standing.ACTIVE)
            for name, key in self.members.deciders.items()
        )
        roster = MonitoringRoster(
            version=1,
            consortium=CONSORTIUM,
            authority=self.members.authority.verify_key,
            previous=roster_genesis(CONSORTIUM),
            not_before_s=self.clock.seconds - DAY_S,
            not_after_s=self.clock.seconds + 2000 * DAY_S,
            grace_s=30 * DAY_S,
            suites=(2,),
            sites=(RosterSite(SITE, key, 1, Standing.ACTIVE),),
            boards=(board,),
            deciders=deciders,
        )
        return replace(roster, **changes)

    def signed(self, roster: MonitoringRoster) -> bytes:
        """Return a roster as the authority signs it."""
        return sign_roster(roster, self.members.authority)

    def promotion(self, parameters: bytes, **changes: Any) -> bytes:
        """Return the coordinator's signed promotion of these parameters."""
        fields: dict[str, Any] = {
            "study_id": self.study_id,
            "plan_digest": plan_digest(self.plan),
            "model_version": parameters_digest(parameters),
            "sequence": 1,
            "at_s": self.clock.seconds,
        }
        return sign_notice(
            Promotion(**{**fields, **changes}), {"coordinator": self.members.coordinator}
        )

    def receipt(self, envelope: bytes, *, head: Digest | None = None, sequence: int = 0) -> bytes:
        """Return the board's receipt of an envelope."""
        header, _ = self.opened(envelope)
        return sign_notice(
            Receipt(
                study_id=header.study_id,
                site_id=header.site_id,
                sequence=sequence or header.sequence,
                head=head or report_digest(envelope),
                board_id=BoardId("board-1"),
                at_s=self.clock.seconds,
            ),
            {"board-1": self.members.board},
        )

    def decision(
        self, action: Action, *, by: tuple[str, ...] = ("ada", "ben"), **changes: Any
    ) -> bytes:
        """Return a decision signed by some deciders."""
        fields: dict[str, Any] = {
            "study_id": self.study_id,
            "number": 1,
            "previous": decision_genesis(CONSORTIUM, self.study_id),
            "action": action,
            "site_id": SITE if action is Action.PAUSE_SITE else None,
            "model_version": None,
            "reason": "Creatinine drifted",
            "period": "2026-02",
            "opened_at_s": self.clock.seconds,
        }
        keys = {name: self.members.deciders[name] for name in by}
        return sign_notice(Decision(**{**fields, **changes}), keys)

    def opened(self, envelope: bytes) -> tuple[ReportHeader, ReportContent]:
        """Return what the board reads of an envelope."""
        header, plaintext = open_report(
            envelope,
            verify_key=self.site.keys.signing.verify_key,
            opening_key=self.members.board_opening,
        )
        kind = ReportKind(header.kind)
        cells = sum(tensor.cells for tensor in report_tensors(self.plan, kind))
        return header, decode_content(plaintext, cells=cells)

    def begin(self, parameters: bytes | None = None) -> None:
        """Trust the authority, take the first roster, and take a promoted model."""
        content = parameters or some_model(self.plan)
        self.mailbox.pin.trust(self.members.authority.verify_key)
        assert self.mailbox.deliver(self.signed(self.roster())) == "taken"
        assert self.mailbox.deliver(self.promotion(content), content) == "taken"


def some_model(plan: StudyPlan, *, seed: int = 3) -> bytes:
    """Return parameters with which scores differ."""
    rng = np.random.default_rng(seed)
    model = {
        name: rng.normal(0, 1.2, array.shape).astype(np.float32)
        for name, array in initial_model(plan).items()
    }
    return encode_parameters(model)


def make_monitored_site(
    folder: Path,
    *,
    plan: StudyPlan | None = None,
    source: str = TABLE,
    write_data: Callable[[Path], None] | None = None,
    limits: str = LIMITS,
    now: str = "2026-01-15",
    extra: str = "",
) -> MonitoredSite:
    """Make a site with data, an approved plan and a clock that stands."""
    folder.mkdir(parents=True, exist_ok=True)
    (write_data or (lambda place: write_visits(place / "patients.csv")))(folder)
    clock, members = FixedClock(seconds(now)), Members()
    config = SiteConfig.model_validate(
        tomllib.loads(
            f'[site]\nid = "{SITE}"\ndeclared_cohort_size = 400\n{limits}\n{source}\n{extra}'
        )
    )
    keys = SiteKeys(
        signing=SigningKey.generate(),
        opening=OpeningKey.generate(),
        salt=b"s" * 32,
        coordinator_verify=members.coordinator.verify_key,
        coordinator_sealing=members.coordinator_opening.sealing_key,
    )
    made = _opened(SitePaths(folder), config, plan or monitored_plan(), members, clock, keys)
    made.site.records.approvals.approve(
        made.plan,
        person="A Steward",
        until_s=clock.seconds + 3000 * DAY_S,
        signing_key=keys.signing,
    )
    return made


def _opened(
    paths: SitePaths,
    config: SiteConfig,
    plan: StudyPlan,
    members: Members,
    clock: FixedClock,
    keys: SiteKeys,
) -> MonitoredSite:
    records, database = open_records(paths, clock=clock, key=keys.signing.verify_key)
    site = OpenSite(keys, records, None, database)  # type: ignore[arg-type]  # nobody enrolled it
    return MonitoredSite(
        paths,
        config,
        site,
        plan,
        members,
        clock,
        open_monitor(config, site, paths, clock),
        open_mailbox(config, site, clock),
    )
