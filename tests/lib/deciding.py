"""Decisions as a world's deciders sign them, one after another."""

from __future__ import annotations

from typing import Any

from common.protocol.monitoring.notices import Action
from server.monitor_board import decisions
from server.monitor_board.decision_book import KeptDecision
from tests.lib.board_world import STUDY, World


def decide(
    world: World,
    action: Action = Action.CONTINUE,
    *,
    held: tuple[KeptDecision, ...] = (),
    signers: tuple[str, ...] = ("ada", "ben"),
    **changes: Any,
) -> bytes:
    """Return a study's next decision, signed by these deciders; `changes` replace its words."""
    first, *others = signers
    words: dict[str, Any] = {
        "consortium": world.roster.consortium,
        "study_id": STUDY,
        "action": action,
        "reason": "AUROC fell at two hospitals",
        "period": "2026-02",
        "site_id": None,
        "model_version": None,
        "held": held,
        "now_s": world.clock.seconds,
        "name": first,
        "key": world.deciders[first],
    }
    data = decisions.propose(**{**words, **changes})
    for name in others:
        data = decisions.sign(data, name=name, key=world.deciders[name])
    return data
