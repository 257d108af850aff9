"""All pages as one HTML file, for people without the server: no script, nothing is loaded."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup

from common.errors import ConfigError
from server.monitor_board.web.access import write_private
from server.monitor_board.web.assets import STATIC
from server.monitor_board.web.links import ReportLinks
from server.monitor_board.web.pages import PAGES, content, environment, render_section, site_content
from server.monitor_board.web.states import RANKS
from server.monitor_board.web.views import BoardView, StudyView

SITES_MAX: Final = 20


@dataclass(frozen=True)
class StudyPart:
    """One study in the file.

    Args:
        parts: HTML of its pages and of its worst sites.
    """

    study: StudyView
    anchor: str
    parts: tuple[Markup, ...]
    sites_shown: int
    sites_left_out: int


def report_html(view: BoardView) -> str:
    """Return the file's text: pages of every study and the page of its worst 20 sites."""
    style = (STATIC / "board.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        environment()
        .get_template("report.html")
        .render(
            view=view,
            title=f"Monitor board of {view.board}",
            heading=f"Monitor board of {view.board}",
            is_inside=True,
            style=Markup(style),  # noqa: S704 (our own file)
            policy=policy,
            studies=[_study_part(study) for study in view.studies.values()],
        )
    )


def write_report(view: BoardView, path: Path) -> None:
    """Write the file, readable by its owner alone: it holds what only the board may see.

    Raises:
        ConfigError: when something is there already or it cannot be written.
    """
    if path.exists():
        raise ConfigError(
            f"{path} is there already",
            expected="a name that is not taken",
            arrived="an existing file",
            todo="give another name",
        )
    write_private(path, report_html(view))


def _study_part(study: StudyView) -> StudyPart:
    prefix = f"{study.study_id}-"
    worst = sorted(study.rows, key=lambda row: RANKS[row.state])[:SITES_MAX]
    shown = [row.site_id for row in worst if row.site_id in study.sites]
    links = ReportLinks(frozenset(shown))
    parts = [
        render_section(study, page, links, prefix=prefix, values=content(study, page, None))
        for page, _ in PAGES
    ]
    for site_id in shown:
        values = site_content(study.sites[site_id], whole=False)
        parts.append(render_section(study, "site", links, prefix=prefix, values=values))
    return StudyPart(
        study, f"{prefix}study", tuple(parts), len(shown), len(study.sites) - len(shown)
    )
