"""A plan's codes that end in a star, as the codes that this site's events have.

Vocabulary tables know what is below a code; where a site has none, the codes as recorded are
compared letter by letter, without dots. Rule P32 says in which vocabularies that is sound.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from common.study.code_prefix import PREFIX_SYSTEMS, is_prefix, without_dots
from site_client.features.from_plan import Narrower
from site_client.features.wanted_codes import put_table

if TYPE_CHECKING:
    import duckdb


def with_prefixes(narrower: Narrower, connection: duckdb.DuckDBPyConnection) -> Narrower:
    """Return a source's `descendants` that also answers for codes ending in a star.

    Such a code has below it what the source knows of the code without its star, and every code of
    the table `events` that begins so, dots left out.

    Args:
        narrower: of the source.
        connection: with `events`, whose codes are read at the first star and not before.
    """
    is_read = False

    def both(codes: frozenset[str]) -> Mapping[str, frozenset[str]]:
        nonlocal is_read
        stars = {code: code.removesuffix("*") for code in codes if is_prefix(code)}
        if not stars:
            return narrower(codes)
        if not is_read:
            _read_codes(connection)
            is_read = True
        known = narrower((codes - stars.keys()) | frozenset(stars.values()))
        found = {code: known[code] for code in codes - stars.keys()}
        recorded = _recorded(connection, stars)
        for code, root in stars.items():
            found[code] = known[root] | recorded[code]
        return found

    return both


def _read_codes(connection: duckdb.DuckDBPyConnection) -> None:
    put_table(connection, "prefix_system", pa.table({"system": list(PREFIX_SYSTEMS)}))
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE prefix_code AS "
        "SELECT DISTINCT code, replace(code, '.', '') AS plain FROM events "
        "WHERE split_part(code, '/', 1) IN (SELECT system FROM prefix_system)"
    )


def _recorded(
    connection: duckdb.DuckDBPyConnection, stars: Mapping[str, str]
) -> Mapping[str, frozenset[str]]:
    asked = sorted(stars)
    plain = [without_dots(code) for code in asked]
    put_table(connection, "prefix_asked", pa.table({"asked": asked, "plain": plain}))
    rows = connection.execute(
        "SELECT a.asked, c.code FROM prefix_asked a JOIN prefix_code c "
        "ON starts_with(c.plain, a.plain)"
    ).fetchall()
    found: dict[str, set[str]] = defaultdict(set)
    for code, recorded in rows:
        found[code].add(recorded)
    return {code: frozenset(found[code]) for code in asked}
