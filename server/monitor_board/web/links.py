"""Where a page's links lead: to the server's paths, or to parts of the one report file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol
from urllib.parse import quote, urlencode

from server.monitor_board.web.selection import Query


class Links(Protocol):
    """What templates ask of links.

    Attributes:
        is_live: whether a server answers queries.
        here: the address of the page itself.
    """

    is_live: ClassVar[bool]

    @property
    def here(self) -> str:
        """The page's own address."""

    def page(self, study_id: str, page: str) -> str:
        """Return where a page of a study is."""

    def site(self, study_id: str, site_id: str) -> str:
        """Return where a site's page is."""

    def part(self, query: Query, page: int) -> str:
        """Return where another part of this page's table is."""


@dataclass(frozen=True)
class ServerLinks:
    """Links of the server; `here` is the page's path without its query."""

    here: str
    is_live: ClassVar[bool] = True

    def page(self, study_id: str, page: str) -> str:
        """Return where a page of a study is."""
        return f"/study/{quote(study_id, safe='')}/{quote(page, safe='')}"

    def site(self, study_id: str, site_id: str) -> str:
        """Return where a site's page is."""
        return f"/study/{quote(study_id, safe='')}/site/{quote(site_id, safe='')}"

    def part(self, query: Query, page: int) -> str:
        """Return where another part of this page's table is."""
        asked = {
            "words": query.words,
            "state": query.state.name.lower() if query.state else "",
            "order": "name" if query.by_name else "",
            "page": str(page),
        }
        return f"{self.here}?{urlencode({key: text for key, text in asked.items() if text})}"


@dataclass(frozen=True)
class ReportLinks:
    """Links inside the report file; a site without its part there leads to the overview."""

    sites: frozenset[str]
    here: str = ""
    is_live: ClassVar[bool] = False

    def page(self, study_id: str, page: str) -> str:
        """Return where a page of a study is."""
        return f"#{quote(f'{study_id}-{page}')}"

    def site(self, study_id: str, site_id: str) -> str:
        """Return where a site's page is."""
        place = f"site-{site_id}" if site_id in self.sites else "overview"
        return f"#{quote(f'{study_id}-{place}')}"

    def part(self, query: Query, page: int) -> str:
        """Return where the table is: a file has one part."""
        return self.here
