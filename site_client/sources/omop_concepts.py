"""Concept ids to codes of standard concepts, by the site's own vocabulary tables.

A non-standard concept stands for the standard ones that 'Maps to' leads to, one event each; nothing
is mapped by name or by a code that looks alike. Source: OHDSI, "The Book of OHDSI", chapter 5.
"""

# Names and paths are quoted by us; SQL has no parameters where they stand.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from site_client.sources.events import VisitClass
from site_client.sources.omop_staging import STAGED
from site_client.sources.source_files import run_sql

if TYPE_CHECKING:
    import duckdb

LOCAL: Final = "omop_local"
"""Temporary table `id, vocabulary, code, is_standard`: the concepts that this site's rows reach."""
STANDARD: Final = "omop_standard"
"""Temporary table `source, target, vocabulary, code`: each concept's standard ones."""
CODES: Final = "omop_codes"
"""Temporary table `source, code`: for events, `vocabulary/code`."""
VISITS: Final = "omop_visits"
"""Temporary table `source, code`: for visits, the class or the standard concept's code."""
ANSWERS: Final = "omop_answers"
"""Temporary table `source, code`: for values, one row a concept."""
UNITS: Final = "omop_units"
"""Temporary table `source, code`: for units, one row a concept, UCUM only."""
TABLES: Final = (LOCAL, STANDARD, CODES, VISITS, ANSWERS, UNITS)

_VISIT_CLASSES: Final = {
    9201: VisitClass.INPATIENT,
    9203: VisitClass.EMERGENCY,
    262: VisitClass.EMERGENCY_AND_INPATIENT,
    9202: VisitClass.OUTPATIENT,
    32037: VisitClass.INTENSIVE_CARE,
}


def write_mapping(
    connection: duckdb.DuckDBPyConnection,
    *,
    concept: str,
    maps_to: str | None,
    used: Iterable[str],
) -> None:
    """Create the temporary tables above for the concepts in use.

    Args:
        connection: DuckDB.
        concept: the staged concept table.
        maps_to: the staged relationships; None: only standard concepts map.
        used: SELECTs of one column of concept ids.
    """
    edges = maps_to or "(SELECT NULL::BIGINT AS source, NULL::BIGINT AS target)"
    # UNION, not UNION ALL: what was reached before ends the walk, so a cycle does.
    run_sql(
        connection,
        f"""
        CREATE OR REPLACE TEMP TABLE {LOCAL} AS
        WITH RECURSIVE used AS (SELECT DISTINCT id FROM ({" UNION ALL ".join(used)}) AS u(id)),
        reached AS (
            SELECT id FROM used
            UNION
            SELECT edge.target FROM reached JOIN {edges} edge ON edge.source = reached.id
        )
        SELECT id, any_value(vocabulary) AS vocabulary, any_value(code) AS code,
            bool_or(is_standard) AS is_standard
        FROM {concept} AS concept SEMI JOIN reached USING (id)
        WHERE id <> 0 AND vocabulary IS NOT NULL AND code IS NOT NULL
        GROUP BY id HAVING count(DISTINCT (vocabulary, code)) = 1
        """,
        place=STAGED,
    )
    run_sql(
        connection,
        f"""
        CREATE OR REPLACE TEMP TABLE {STANDARD} AS
        WITH RECURSIVE edge AS (
            SELECT DISTINCT edge.source, edge.target FROM {edges} AS edge
            JOIN {LOCAL} AS local ON local.id = edge.source WHERE NOT local.is_standard
        ),
        walk AS (
            SELECT source, target FROM edge
            UNION
            SELECT walk.source, edge.target FROM walk JOIN edge ON edge.source = walk.target
        )
        SELECT pair.source, pair.target, local.vocabulary, local.code
        FROM (
            SELECT source, target FROM walk
            UNION SELECT id, id FROM {LOCAL} WHERE is_standard
        ) AS pair
        JOIN {LOCAL} AS local ON local.id = pair.target WHERE local.is_standard
        """,
        place=STAGED,
    )
    _write_codes(connection)


def _write_codes(connection: duckdb.DuckDBPyConnection) -> None:
    full = "vocabulary || '/' || code"
    run_sql(
        connection,
        f"CREATE OR REPLACE TEMP TABLE {CODES} AS SELECT source, {full} AS code FROM {STANDARD}",
        place=STAGED,
    )
    classes = ", ".join(f"({number}, '{name}')" for number, name in _VISIT_CLASSES.items())
    run_sql(
        connection,
        f"""
        CREATE OR REPLACE TEMP TABLE {VISITS} AS
        WITH class(id, name) AS (VALUES {classes})
        SELECT source, coalesce(class.name, code) AS code
        FROM {STANDARD} AS standard LEFT JOIN class ON class.id = standard.target
        WHERE source NOT IN (SELECT id FROM class)
        UNION ALL SELECT id, name FROM class
        """,
        place=STAGED,
    )
    # An answer or a unit is one fact: where 'Maps to' splits it in two, the site's own code stays.
    run_sql(
        connection,
        f"""
        CREATE OR REPLACE TEMP TABLE {ANSWERS} AS
        SELECT local.id AS source,
            coalesce(one.code, local.vocabulary || '/' || local.code) AS code
        FROM {LOCAL} AS local LEFT JOIN (
            SELECT source, min({full}) AS code FROM {STANDARD} GROUP BY source HAVING count(*) = 1
        ) AS one ON one.source = local.id
        """,
        place=STAGED,
    )
    run_sql(
        connection,
        f"""
        CREATE OR REPLACE TEMP TABLE {UNITS} AS
        SELECT source, min(code) AS code FROM {STANDARD} WHERE vocabulary = 'UCUM'
        GROUP BY source HAVING count(*) = 1
        """,
        place=STAGED,
    )


def descendants(
    connection: duckdb.DuckDBPyConnection,
    codes: frozenset[str],
    *,
    concept: str,
    ancestor: str,
) -> dict[str, frozenset[str]]:
    """Return each code's narrower codes by `concept_ancestor`, itself included.

    Args:
        connection: DuckDB.
        codes: `vocabulary/code`.
        concept: the staged concept table.
        ancestor: the staged concept_ancestor table.
    """
    rows = run_sql(
        connection,
        f"""
        SELECT DISTINCT asked.code, narrow.vocabulary || '/' || narrow.code
        FROM (SELECT unnest(?) AS code) AS asked
        JOIN {concept} AS broad ON broad.vocabulary || '/' || broad.code = asked.code
        JOIN {ancestor} AS ancestor ON ancestor.ancestor = broad.id
        JOIN {concept} AS narrow ON narrow.id = ancestor.descendant
        WHERE narrow.vocabulary IS NOT NULL AND narrow.code IS NOT NULL
        """,
        place=STAGED,
        parameters=[sorted(codes)],
    )
    found = {code: {code} for code in codes}
    for code, narrower in rows:
        found[code].add(narrower)
    return {code: frozenset(narrow) for code, narrow in found.items()}
