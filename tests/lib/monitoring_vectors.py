"""Make the frozen bytes of monitoring; `python -m tests.lib.monitoring_vectors FOLDER`.

As the other vectors of protocol 1 they are never made again: what was sealed once must open.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from common.crypto.keys import HYBRID_SUITE, X25519_SUITE
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.report_content import encode_content
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.report_header import genesis
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.roster_file import sign_roster
from common.study.report_tensors import ReportKind
from tests.lib.monitoring import (
    AUTHORITY,
    BOARD,
    BOARD_KEYS,
    COORDINATOR,
    DECIDER_KEYS,
    NORTH,
    STUDY,
    make_content,
    make_notices,
    make_report,
    make_roster,
    rotated,
    signing_key,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "protocol-1" / "monitoring.json"
NEW_SITE_KEY = signing_key(12)


def rosters() -> dict[str, MonitoringRoster]:
    """Return the rosters of the vectors; in the next one, site north has a new key."""
    first = make_roster()
    return {
        "roster": first,
        "next_roster": rotated(first, NEW_SITE_KEY),
        "x25519_roster": make_roster(suite=X25519_SUITE),
    }


def notices() -> dict[str, bytes]:
    """Return the signed notices of the vectors; Ed25519 signs the same bytes the same way."""
    made = make_notices()
    board = {BOARD: BOARD_KEYS[BOARD]}
    return {
        "receipt": sign_notice(made.receipt, board),
        "decision": sign_notice(
            made.decision, {name: DECIDER_KEYS[name] for name in ("ada", "ben")}
        ),
        "promotion": sign_notice(made.promotion, {"coordinator": COORDINATOR}),
        "closing": sign_notice(made.closing, board),
        "partial_sum": sign_notice(made.partial_sum, board),
    }


def make(folder: Path) -> None:
    """Write `monitoring.json` into a folder."""
    made = rosters()
    first = make_report(made["roster"])
    second = make_content(kind=ReportKind.CASE_MIX, period="2026-03")
    reports = {
        "report": first,
        "next_report": make_report(
            made["next_roster"],
            key=NEW_SITE_KEY,
            content=encode_content(second),
            key_epoch=2,
            kind="case-mix",
            period="2026-03",
            sequence=2,
            previous=report_digest(first),
        ),
        "x25519_report": make_report(made["x25519_roster"]),
    }
    vectors = {
        "suites": {"report": HYBRID_SUITE, "x25519_report": X25519_SUITE},
        "content": encode_content(make_content()).hex(),
        "genesis": genesis(STUDY, NORTH),
        "report_digest": report_digest(first),
        **{name: report.hex() for name, report in reports.items()},
        **{f"{name}_digest": roster.digest for name, roster in made.items()},
        **{name: sign_roster(roster, AUTHORITY).decode() for name, roster in made.items()},
        **{name: data.decode() for name, data in notices().items()},
    }
    text = json.dumps(vectors, indent=2, sort_keys=True) + "\n"
    (folder / VECTORS.name).write_text(text, encoding="ascii")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
