"""Who takes part in monitoring, at one version of the list, as the consortium's authority signs it.

The roster alone says whose reports count, to whom they are sealed, and who decides; the coordinator
cannot change it. Record: docs/protocol.md, clauses O1 to O3.
"""

from __future__ import annotations

import base64
import enum
from dataclasses import dataclass
from functools import cached_property

from common.canonical import Canonical, canonical_bytes, digest_bytes
from common.crypto.keys import AnySealingKey, VerifyKey
from common.errors import ProtocolError
from common.ids import BoardId, Digest, SiteId
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B
from common.protocol.monitoring.signed_notice import NoticeKind, notice_record, record_digest


class Standing(enum.Enum):
    """What a member may do: all (active), nothing for now (suspended), no longer seal to a key
    that still opens what it received (retired), nothing ever again with this key (revoked)."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"
    REVOKED = "revoked"


class BoardRole(enum.Enum):
    """A monitor board opens whole reports; each aggregator opens one share of a secure sum."""

    BOARD = "board"
    AGGREGATOR_A = "aggregator-a"
    AGGREGATOR_B = "aggregator-b"


@dataclass(frozen=True)
class RosterSite:
    """One site.

    Args:
        verify_key: of its reports.
        key_epoch: 1 for the first key, one more for each next.
        status: active, suspended or revoked.
        countersignature: by the key of the epoch before, over the change to this one (O8).
    """

    site_id: SiteId
    verify_key: VerifyKey
    key_epoch: int
    status: Standing
    countersignature: bytes | None = None


@dataclass(frozen=True)
class RosterBoard:
    """One sealing key of a board or aggregator; an exchanged key stays as retired.

    Args:
        sealing_key: reports are sealed to it; its suite is the report's.
        verify_key: of its receipts and other notices.
        status: active, retired or revoked.
    """

    board_id: BoardId
    role: BoardRole
    sealing_key: AnySealingKey
    verify_key: VerifyKey
    status: Standing


@dataclass(frozen=True)
class RosterDecider:
    """A person whose signature counts towards a decision; `name` is a slug, active or revoked."""

    name: str
    verify_key: VerifyKey
    status: Standing


@dataclass(frozen=True)
class MonitoringRoster:
    """One version of the list.

    Args:
        version: 1, 2, ...
        consortium: its name.
        authority: the key that signs every version.
        previous: digest of the version before; `roster_genesis` before the first.
        not_before_s, not_after_s: when it is in force, seconds since 1970.
        grace_s: how long after `not_before_s` reports under the version before are taken.
        suites: which seals are allowed; nothing weaker is ever taken.
        receipts_required: of different boards, before a site sends its next report.
        sites, boards, deciders: the members, each rising by id (boards: then by fingerprint).
        decisions_required: signatures of different deciders that make a decision.
    """

    version: int
    consortium: str
    authority: VerifyKey
    previous: Digest
    not_before_s: int
    not_after_s: int
    grace_s: int
    suites: tuple[int, ...]
    sites: tuple[RosterSite, ...]
    boards: tuple[RosterBoard, ...]
    deciders: tuple[RosterDecider, ...]
    receipts_required: int = 1
    decisions_required: int = 2

    @cached_property
    def digest(self) -> Digest:
        """Names this version in report headers and in the next version."""
        record = notice_record(NoticeKind.ROSTER, roster_content(self))
        return record_digest(NoticeKind.ROSTER, canonical_bytes(record))

    def site(self, site_id: SiteId) -> RosterSite:
        """Return one site; raises `ProtocolError` B2 when it is not in the roster."""
        if site_id in self._site_of_id:
            return self._site_of_id[site_id]
        raise ProtocolError(
            "a site is not in the roster",
            expected=f"one of {len(self.sites)} sites",
            arrived=f"site {site_id}",
            todo="ask the consortium's authority to add it",
            number="B2",
        )

    @cached_property
    def _site_of_id(self) -> dict[SiteId, RosterSite]:
        return {site.site_id: site for site in self.sites}

    def active_boards(self) -> tuple[RosterBoard, ...]:
        """Return the keys of boards and aggregators that are in use."""
        return tuple(board for board in self.boards if board.status is Standing.ACTIVE)

    def recipients(self, kind: str) -> tuple[RosterBoard, ...]:
        """Return to whom reports of a kind (`report_header.KINDS`) are sealed."""
        roles = {SHARE_A: BoardRole.AGGREGATOR_A, SHARE_B: BoardRole.AGGREGATOR_B}
        role = roles.get(kind, BoardRole.BOARD)
        return tuple(board for board in self.active_boards() if board.role is role)

    def active_deciders(self) -> tuple[RosterDecider, ...]:
        """Return the persons whose signature counts."""
        return tuple(person for person in self.deciders if person.status is Standing.ACTIVE)


def roster_genesis(consortium: str) -> Digest:
    """Return what the first version of a roster names as the one before it."""
    return digest_bytes("monitoring-roster-genesis", consortium.encode())


def roster_content(roster: MonitoringRoster) -> dict[str, Canonical]:
    """Return a roster's content as canonical data."""
    return {
        "authority": roster.authority.to_text(),
        "boards": [
            {
                "board_id": board.board_id,
                "role": board.role.value,
                "sealing_key": board.sealing_key.to_text(),
                "status": board.status.value,
                "suite": board.sealing_key.suite,
                "verify_key": board.verify_key.to_text(),
            }
            for board in roster.boards
        ],
        "consortium": roster.consortium,
        "deciders": [
            {
                "name": person.name,
                "status": person.status.value,
                "verify_key": person.verify_key.to_text(),
            }
            for person in roster.deciders
        ],
        "decisions_required": roster.decisions_required,
        "grace_s": roster.grace_s,
        "not_after_s": roster.not_after_s,
        "not_before_s": roster.not_before_s,
        "previous": roster.previous,
        "receipts_required": roster.receipts_required,
        "roster_version": roster.version,
        "sites": [
            {
                "countersignature": None
                if site.countersignature is None
                else base64.b64encode(site.countersignature).decode(),
                "key_epoch": site.key_epoch,
                "site_id": site.site_id,
                "status": site.status.value,
                "verify_key": site.verify_key.to_text(),
            }
            for site in roster.sites
        ],
        "suites": list(roster.suites),
    }
