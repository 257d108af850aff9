"""From views to HTML: one template for each page, shared by the server and the report file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from server.monitor_board.signal_types import State
from server.monitor_board.web import charts
from server.monitor_board.web.definitions import DEFINITIONS
from server.monitor_board.web.links import Links, ServerLinks
from server.monitor_board.web.numbers import age_text, count_text, figure_text, number_text
from server.monitor_board.web.selection import Part, Query, select
from server.monitor_board.web.states import RANKS, SYMBOLS, UNTESTED, WORDS
from server.monitor_board.web.views import (
    ALL_SITES,
    BoardView,
    Column,
    FairnessRow,
    SiteView,
    StudyView,
)

PAGES: Final = (
    ("overview", "Overview"),
    ("pooled", "All sites together"),
    ("model", "Model"),
    ("fairness", "Fairness"),
    ("privacy", "Privacy"),
    ("protocol", "Protocol"),
    ("decisions", "Decisions"),
)
REFUSALS_SHOWN: Final = 100
_RAISED: Final = (State.ALERT, State.WATCH)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the templates, with escaping on and unknown names refused."""
    found = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "number": number_text,
        "figure": figure_text,
        "count": count_text,
        "age": age_text,
    }
    found.globals |= {
        "charts": charts,
        "definitions": DEFINITIONS,
        "symbols": SYMBOLS,
        "words": WORDS,
        "untested": UNTESTED,
        "refusals_shown": REFUSALS_SHOWN,
        "pages": PAGES,
    }
    return found


def render_page(view: BoardView, study: StudyView, page: str, query: Query, *, stale: bool) -> str:
    """Return one page of a study for the server.

    Args:
        page: a key of `PAGES`.
        stale: whether newer reports than the view's are being computed.
    """
    links = ServerLinks(f"/study/{study.study_id}/{page}")
    return _whole(view, study, page, links, stale, content(study, page, query))


def render_site(
    view: BoardView, study: StudyView, site: SiteView, *, stale: bool, whole: bool = False
) -> str:
    """Return one site's page for the server; `whole` with every quantity's course over time."""
    links = ServerLinks(f"/study/{study.study_id}/site/{site.site_id}")
    return _whole(view, study, "site", links, stale, site_content(site, whole=whole))


def render_plain(template: str, *, title: str, inside: bool, **values: Any) -> str:
    """Return a page outside a study: login, the list of studies, a problem."""
    return (
        environment()
        .get_template(template)
        .render(title=title, heading="Monitor board", is_inside=inside, **values)
    )


def render_section(
    study: StudyView, page: str, links: Links, *, prefix: str, values: Mapping[str, Any]
) -> Markup:
    """Return one page's content without its frame, for the report file.

    Args:
        prefix: of each id, so that studies in one file do not share any.
    """
    template = environment().get_template(f"{page}.html")
    html = template.render(study=study, links=links, prefix=prefix, **values)
    return Markup(html)  # noqa: S704 (the template escaped every value)


def content(study: StudyView, page: str, query: Query | None) -> dict[str, Any]:
    """Return what a page's template needs beside the study.

    Without a query, for the report file: every row, of the gaps those of all sites together and
    those that are raised.
    """
    if page == "overview":
        part = _part(study.rows, query, name=lambda row: row.site_id, state=lambda row: row.state)
        return {"part": part, "summary": summary(study)}
    if page == "fairness":
        rows = study.fairness.rows
        if query is None:
            rows = tuple(row for row in rows if row.where == ALL_SITES or row.state in _RAISED)
        return {"part": _part(rows, query, name=_gap_name, state=_gap_state)}
    if page == "pooled":
        return {
            "site": study.pooled,
            "anchor": "pooled",
            "heading_of_site": "All sites together",
            "is_whole": query is not None and query.is_whole,
        }
    if page == "privacy":
        by_name = Query(words=query.words, by_name=True, page=query.page) if query else None
        return {
            "part": _part(
                study.privacy, by_name, name=lambda row: row.site_id, state=lambda _: State.OK
            )
        }
    if page == "protocol":
        rows_of = study.protocol.rows
        return {
            "part": _part(rows_of, query, name=lambda row: row.site_id, state=lambda row: row.state)
        }
    return {}


def site_content(site: SiteView, *, whole: bool) -> dict[str, Any]:
    """Return what the template of a site's page needs."""
    return {
        "site": site,
        "anchor": f"site-{site.site_id}",
        "heading_of_site": f"Site {site.site_id}",
        "is_whole": whole,
    }


def summary(study: StudyView) -> list[tuple[Column, Mapping[State, int]]]:
    """Return for each signal how many sites are in each state."""
    return [
        (column, Counter(row.cells[place].state for row in study.rows))
        for place, column in enumerate(study.columns)
    ]


def _part(rows: Any, query: Query | None, *, name: Any, state: Any) -> Part[Any]:
    if query is not None:
        return select(rows, query, name=name, state=state)
    ordered = tuple(sorted(rows, key=lambda row: RANKS[state(row)]))
    return Part(ordered, Query(), 1, 1, len(ordered), len(ordered))


def _gap_state(row: FairnessRow) -> State:
    return row.state or State.INSUFFICIENT


def _gap_name(row: Any) -> str:
    return f"{row.where} {row.feature} {row.level} {row.metric}"


def _whole(
    view: BoardView,
    study: StudyView,
    page: str,
    links: Links,
    stale: bool,
    values: Mapping[str, Any],
) -> str:
    words = dict(PAGES).get(page, "Site")
    return (
        environment()
        .get_template("page.html")
        .render(
            view=view,
            study=study,
            page=page,
            links=links,
            prefix="",
            is_stale=stale,
            is_inside=True,
            title=f"{words}: {study.title}",
            heading=f"Monitor board of {view.board}",
            **values,
        )
    )
