"""What members of monitoring tell each other in signed notices, as frozen data."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from common.canonical import digest_bytes
from common.ids import BoardId, Digest, SiteId, StudyId
from common.protocol.monitoring.check_key import SealedCheckKey
from common.protocol.monitoring.closing import Closing
from common.protocol.monitoring.partial_sum import PartialSum


class Action(enum.Enum):
    """What the deciders decide."""

    CONTINUE = "continue"
    WATCH = "watch"
    RETRAIN = "retrain"
    RECALIBRATE = "recalibrate"
    ROLL_BACK = "roll-back"
    PAUSE_SITE = "pause-site"
    STOP = "stop"


@dataclass(frozen=True)
class Receipt:
    """A board's word that it holds a site's chain up to a report; signed by the board.

    Args:
        sequence, head: of the newest report of the site without a gap before it, and its digest.
        at_s: seconds since 1970, the board's clock.
    """

    study_id: StudyId
    site_id: SiteId
    sequence: int
    head: Digest
    board_id: BoardId
    at_s: int


@dataclass(frozen=True)
class Decision:
    """What several deciders decided about a study; signed by each.

    Args:
        number: 1, 2, ... per study.
        previous: digest of the decision before; `decision_genesis` before the first.
        action: what is to be done.
        site_id: which site; only and always when a site is paused.
        model_version: which model; always when it is rolled back to.
        reason: for people, of one line or more.
        period: whose reports led to it.
        opened_at_s: when it was proposed, seconds since 1970.
    """

    study_id: StudyId
    number: int
    previous: Digest
    action: Action
    site_id: SiteId | None
    model_version: Digest | None
    reason: str
    period: str
    opened_at_s: int


@dataclass(frozen=True)
class Promotion:
    """Which model sites are to use and report about; signed by the coordinator.

    Args:
        model_version: digest of the parameters that travel beside the notice.
        sequence: 1, 2, ... per study; a lower one is never taken again.
    """

    study_id: StudyId
    plan_digest: Digest
    model_version: Digest
    sequence: int
    at_s: int


def decision_genesis(consortium: str, study_id: StudyId) -> Digest:
    """Return what the first decision of a study names as the one before it.

    So a whole chain is of one consortium: the same people may decide in another one, about a study
    of the same id.
    """
    return digest_bytes("decision-genesis", consortium.encode(), study_id.encode())


NoticeContent: TypeAlias = Receipt | Decision | Promotion | Closing | PartialSum | SealedCheckKey
