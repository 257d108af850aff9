"""Which rows of a long table a page shows: filtered by words and state, sorted, in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from server.monitor_board.signal_types import State
from server.monitor_board.web.states import RANKS

ROWS_PER_PAGE: Final = 50
WORDS_MAX: Final = 64

Row = TypeVar("Row")


@dataclass(frozen=True)
class Query:
    """What the address asks for; anything that is not understood is as if not asked.

    Args:
        words: part of a row's name; small letters.
        state: only rows of this state, or None.
        by_name: sorted by name and not worst first.
        page: from 1.
        is_whole: with every quantity's course over time.
    """

    words: str = ""
    state: State | None = None
    by_name: bool = False
    page: int = 1
    is_whole: bool = False

    @classmethod
    def parse(cls, words: str, state: str, order: str, page: str, courses: str = "") -> Query:
        """Read the query's texts as they came."""
        known = {item.name.lower(): item for item in State}
        number = int(page) if page.isascii() and page.isdigit() and len(page) <= 6 else 1
        return cls(
            words[:WORDS_MAX].strip().lower(),
            known.get(state),
            order == "name",
            max(1, number),
            courses == "all",
        )


@dataclass(frozen=True)
class Part(Generic[Row]):
    """One page of the rows that fit a query."""

    rows: tuple[Row, ...]
    query: Query
    page: int
    pages: int
    found: int
    total: int


def select(
    rows: Sequence[Row], query: Query, *, name: Callable[[Row], str], state: Callable[[Row], State]
) -> Part[Row]:
    """Return the part of the rows that a query asks for, worst first unless it says by name.

    Rows of equal state keep their order.
    """
    fitting = [
        row
        for row in rows
        if query.words in name(row).lower() and (query.state is None or state(row) is query.state)
    ]
    if query.by_name:
        fitting.sort(key=name)
    else:
        fitting.sort(key=lambda row: RANKS[state(row)])
    pages = max(1, -(-len(fitting) // ROWS_PER_PAGE))
    page = min(query.page, pages)
    shown = fitting[(page - 1) * ROWS_PER_PAGE : page * ROWS_PER_PAGE]
    return Part(tuple(shown), query, page, pages, len(fitting), len(rows))
