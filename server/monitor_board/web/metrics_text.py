"""Views as Prometheus text (exposition format 0.0.4): what the pages show, and nothing beneath."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from server.monitor_board.signal_types import State
from server.monitor_board.web.views import BoardView, StudyView

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
STATE_CODES: Final[Mapping[State, int]] = {
    State.OK: 0,
    State.WATCH: 1,
    State.ALERT: 2,
    State.SILENT: 3,
    State.INSUFFICIENT: -1,
}
_STATES: Final = "0 OK, 1 WATCH, 2 ALERT, 3 SILENT, -1 too few"
_HELP: Final[Mapping[str, str]] = {
    "cohortium_board_made_timestamp_seconds": "When the values below were computed.",
    "cohortium_board_site_state": f"Worst state of a site: {_STATES}.",
    "cohortium_board_signal_state": f"State of a signal: {_STATES}.",
    "cohortium_board_signal": "A signal's estimate and its 95 % interval, by bound.",
    "cohortium_board_epsilon_spent": "Epsilon spent on monitoring, as the site's reports state.",
    "cohortium_board_epsilon_remaining": "Epsilon left of the site's commitment.",
    "cohortium_board_last_report_timestamp_seconds": "When a site's newest report was received.",
    "cohortium_board_refused_envelopes": "Refused envelopes of a site.",
}


def metrics_text(view: BoardView) -> str:
    """Return all values of a view; a site without a value has no line for it."""
    found: dict[str, list[str]] = {name: [] for name in _HELP}
    found["cohortium_board_made_timestamp_seconds"].append(f" {view.made_at_s}")
    for study in view.studies.values():
        for name, labels, value in _values(study, view.made_at_s):
            written = ",".join(f'{key}="{_escaped(word)}"' for key, word in labels.items())
            found[name].append(f"{{{written}}} {value!r}")
    lines = []
    for name, values in found.items():
        lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
        lines += [f"{name}{value}" for value in values]
    return "\n".join(lines) + "\n"


def _values(study: StudyView, now_s: int) -> Iterator[tuple[str, dict[str, str], float]]:
    for row in study.rows:
        site = {"study": study.study_id, "site": row.site_id}
        yield "cohortium_board_site_state", site, STATE_CODES[row.state]
        for column, cell in zip(study.columns, row.cells, strict=True):
            signal = {**site, "signal": column.key}
            yield "cohortium_board_signal_state", signal, STATE_CODES[cell.state]
            if cell.number is None or cell.number.value is None:
                continue
            bounds = (cell.number.value, cell.number.low, cell.number.high)
            for bound, value in zip(("estimate", "low", "high"), bounds, strict=True):
                if value is not None:
                    yield "cohortium_board_signal", {**signal, "bound": bound}, value
    for account in study.privacy:
        site = {"study": study.study_id, "site": account.site_id}
        yield "cohortium_board_epsilon_spent", site, account.spent
        yield "cohortium_board_epsilon_remaining", site, account.remaining
    for chain in study.protocol.rows:
        site = {"study": study.study_id, "site": chain.site_id}
        yield "cohortium_board_refused_envelopes", site, chain.refusals
        if chain.age_s is not None:
            yield "cohortium_board_last_report_timestamp_seconds", site, now_s - chain.age_s


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
