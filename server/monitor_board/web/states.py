"""How states look on every page: a word, a symbol of its own, and a place in the order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from server.monitor_board.signal_types import State

WORDS: Final[Mapping[State, str]] = {
    State.ALERT: "ALERT",
    State.SILENT: "SILENT",
    State.WATCH: "WATCH",
    State.OK: "OK",
    State.INSUFFICIENT: "TOO FEW",
}
"""The worst first; too few patients come last, because they say nothing."""
SYMBOLS: Final[Mapping[State, str]] = {
    State.ALERT: "▲",
    State.SILENT: "■",
    State.WATCH: "◆",
    State.OK: "✓",
    State.INSUFFICIENT: "○",
}
RANKS: Final[Mapping[State, int]] = {state: place for place, state in enumerate(WORDS)}
UNTESTED: Final = "not tested"
