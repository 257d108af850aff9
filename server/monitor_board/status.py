"""The board's state in one record, for `status` and for scripts."""

from __future__ import annotations

from typing import Any

from common.clock import utc_text
from server.monitor_board.store import BoardStore


def board_status(store: BoardStore) -> dict[str, Any]:
    """Return chains, gaps, refusals, flags, waiting reports, decisions and what is unpublished."""
    roster = store.newest_roster()
    return {
        "roster": None
        if roster is None
        else {
            "version": roster.version,
            "digest": roster.digest,
            "ends": utc_text(roster.not_after_s),
        },
        "studies": [
            {
                "study": study_id,
                "models": [item.model_version for item in on_board.promotions],
                "decisions": len(store.decisions(study_id)),
            }
            for study_id, on_board in store.plans().items()
        ],
        "sums": [
            {
                "study": study_id,
                "period": item.closing.period,
                "kind": item.closing.kind.value,
                "sites": len(item.closing.sites),
                "answers": item.answers,
                "joined": item.is_joined,
                "number": item.number,
                "words": item.words,
            }
            for study_id in store.plans()
            for item in store.sum_states(study_id)
        ],
        "chains": [
            {
                "study": end.study_id,
                "site": end.site_id,
                "sequence": end.sequence,
                "head": end.digest,
                "received": utc_text(end.received_at_s),
                "key_epoch": end.key_epoch,
            }
            for end in store.chain_ends()
        ],
        "missing": [
            {
                "study": gap.study_id,
                "site": gap.site_id,
                "sequence": gap.sequence,
                "since": utc_text(gap.opened_at_s),
            }
            for gap in store.gaps()
        ],
        "waiting": [
            {
                "study": item.study_id,
                "site": item.site_id,
                "sequence": item.sequence,
                "number": item.number,
            }
            for item in store.waiting()
        ],
        "refused": [
            {
                "study": item.study_id,
                "site": item.site_id,
                "sequence": item.sequence,
                "digest": item.digest,
                "number": item.number,
                "expected": item.expected,
                "arrived": item.arrived,
                "at": utc_text(item.at_s),
            }
            for item in store.refusals()
        ],
        "implausible": [
            {
                "study": item.study_id,
                "site": item.site_id,
                "sequence": item.sequence,
                "check": item.check,
                "words": item.words,
            }
            for item in store.flagged()
        ],
        "refused_notices": [
            {"position": position, "reason": reason} for position, reason in store.refused_notices()
        ],
        "unpublished": store.count_unpublished(),
    }
