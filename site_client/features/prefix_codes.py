"""A plan's codes as the codes that this site's events have: narrower ones, and those below a star.

Vocabulary tables know what is below a code; where a site has none, the codes as recorded are
compared letter by letter, without dots. Rule P32 says in which vocabularies that is sound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from common.study.code_lists import code_lists
from common.study.code_prefix import PREFIX_SYSTEMS, is_prefix, without_dots
from common.study.plan import StudyPlan
from site_client.features.from_plan import Narrower
from site_client.features.wanted_codes import put_table

if TYPE_CHECKING:
    import duckdb


def asked_of_source(plan: StudyPlan) -> frozenset[str]:
    """Return all codes of a plan as a source's vocabulary knows them, without stars."""
    return frozenset(code.removesuffix("*") if is_prefix(code) else code for code in _codes(plan))


def has_stars(plan: StudyPlan) -> bool:
    """Return whether any code of a plan stands for those that begin like it."""
    return any(is_prefix(code) for code in _codes(plan))


def narrower_of_plan(
    plan: StudyPlan, known: Mapping[str, frozenset[str]], connection: duckdb.DuckDBPyConnection
) -> Narrower:
    """Return a source's `descendants` for all of a plan's codes, stars among them.

    A code with a star has below it what the source knows of the code without it, and every code of
    the table `events` that begins so, dots left out.

    Args:
        plan: whose codes are asked for.
        known: of the source, for `asked_of_source`.
        connection: with `events`.
    """
    stars = {code: code.removesuffix("*") for code in _codes(plan) if is_prefix(code)}
    found = dict(known)
    if stars:
        recorded = _recorded(connection, stars)
        found |= {code: known[root] | recorded[code] for code, root in stars.items()}
    return lambda asked: {code: found[code] for code in asked}


def _codes(plan: StudyPlan) -> frozenset[str]:
    return frozenset(code for _, codes in code_lists(plan) for code in codes)


def _recorded(
    connection: duckdb.DuckDBPyConnection, stars: Iterable[str]
) -> Mapping[str, frozenset[str]]:
    """Return the events' codes that begin as each star says."""
    asked = sorted(stars)
    plain = [without_dots(code) for code in asked]
    put_table(
        connection, "prefix_asked", {"asked": ("VARCHAR", asked), "plain": ("VARCHAR", plain)}
    )
    put_table(connection, "prefix_system", {"system": ("VARCHAR", list(PREFIX_SYSTEMS))})
    rows = connection.execute(
        "WITH recorded AS (SELECT DISTINCT code, replace(code, '.', '') AS plain FROM events "
        "WHERE split_part(code, '/', 1) IN (SELECT system FROM prefix_system)) "
        "SELECT a.asked, r.code FROM prefix_asked a "
        "JOIN recorded r ON starts_with(r.plain, a.plain)"
    ).fetchall()
    found: dict[str, set[str]] = defaultdict(set)
    for code, recorded in rows:
        found[code].add(recorded)
    return {code: frozenset(found[code]) for code in asked}
