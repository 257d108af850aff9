"""`cohortium-site features`: rows made from the source and kept at the site; build, show, drop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.command_line import print_json, table_width
from site_client.cli_context import Json, paths_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from common.errors import CohortiumError
    from site_client.feature_use import FeatureUse
    from site_client.features.store_entry import FeatureEntry

app = typer.Typer(help="Rows made from the source by a plan, kept at this site.")
_SHORT = 12
_ID_LENGTH_MIN = 4


@app.callback(invoke_without_command=True)
def features(context: typer.Context, json: Json = False) -> None:
    """Rows made from the source by a plan, kept at this site; without a further word: show."""
    if context.invoked_subcommand is None:
        show(context, json=json)


@app.command()
def build(
    context: typer.Context,
    plan: Annotated[Path, typer.Argument(help="A study plan, TOML.")],
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Read the source again even when nothing changed.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a plan's rows from the source as it is now; at once when nothing changed since."""
    import time

    from common.clock import SystemClock
    from common.ids import Digest
    from common.study.plan_file import plan_digest, read_plan
    from site_client.config import read_site_config
    from site_client.features.plan_files import PlanFiles
    from site_client.site_features import builder_of
    from site_client.sources.table_mapping import TableMapping

    began = time.monotonic()
    paths = paths_of(context)
    config, use = read_site_config(paths), _use(context)
    if isinstance(config.source, TableMapping):
        raise _is_a_table()
    dropped = use.drop_older()
    builder = builder_of(config.source, paths=paths, clock=SystemClock())
    files = PlanFiles(use.store.plan_files)
    content = plan.read_bytes() if plan.is_file() else b""
    known = None if fresh else files.find(content)
    built = None if known is None else builder.cached(known)
    if built is None:
        wanted = read_plan(plan)
        built = builder.build(wanted, fresh=fresh)
        files.remember(content, plan_digest(wanted))
    seconds = time.monotonic() - began
    if json:
        record = _record(built.entry, use.in_use())
        print_json(record | {"how": built.how, "dropped": [item.id for item in dropped]})
        return
    how = {
        "cached": "nothing changed since",
        "full": "made from the whole source",
        "increment": f"{built.entry.recomputed} patients made anew, the others kept",
    }[built.how]
    print(f"{built.entry.rows} rows of {built.entry.patients} patients: {how}; {seconds:.1f} s.")
    print(f"Entry {built.entry.id}; `cohortium-site features show {built.entry.id[:_SHORT]}`.")
    began_with = use.pins.find(Digest(built.entry.key.plan_digest))
    if began_with not in {None, built.entry.id}:
        print(f"The study began here with {began_with} and goes on with it.")
    if dropped:
        print(f"{len(dropped)} entries older than {config.features.keep_days} days were deleted.")


@app.command()
def show(
    context: typer.Context,
    what: Annotated[
        str, typer.Argument(help="A plan file, or the beginning of an entry's name.")
    ] = "",
    json: Json = False,
) -> None:
    """List the entries of all plans or of one; of a named entry, lineage and data sheet."""
    from site_client.features.data_sheet import data_sheet

    use = _use(context)
    in_use, whole = use.in_use(), use.store.entries()
    entries = whole
    if what and Path(what).is_file():
        entries = _of_plan(whole, Path(what))
    elif what:
        entry = use.store.entry(_full_name(what, use.store.names()))
        if json:
            print_json(entry.model_dump(mode="json") | _record(entry, in_use))
        else:
            sheet = data_sheet(entry, keep_days=use.keep_days, is_in_use=entry.id in in_use)
            print(sheet, end="")
        return
    if json:
        print_json([_record(entry, in_use) for entry in entries])
        return
    Console(width=table_width()).print(_table(entries, in_use, now_s=use.clock.now_s()))
    damaged = set(use.store.names()) - {entry.id for entry in whole}
    for name in sorted(damaged):
        print(f"Entry {name} is damaged: `cohortium-site features drop {name[:_SHORT]}`.")
    print(f"Entries that no running study uses are deleted after {use.keep_days} days.")


@app.command()
def drop(
    context: typer.Context,
    entries: Annotated[
        list[str] | None, typer.Argument(help="Beginnings of entries' names.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan file: every entry of this plan.")
    ] = None,
    older_than: Annotated[
        int | None, typer.Option(min=0, help="Days: entries built before, unless in use.")
    ] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="Every entry that no running study uses.")
    ] = False,
    in_use: Annotated[
        bool,
        typer.Option(
            "--in-use",
            help="Also what a running study uses: it goes on with the newest rows from then on.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Delete entries; the bytes on the disk are not overwritten."""
    if not entries and plan is None and older_than is None and not unused:
        raise typer.BadParameter("name entries, or give --plan, --older-than or --unused")
    use = _use(context)
    dropped: list[str] = []
    if older_than is not None:
        dropped += [item.id for item in use.drop_older(older_than)]
    used = use.in_use()
    kept = use.store.entries()
    chosen = [item.id for item in _of_plan(kept, plan)] if plan is not None else []
    chosen += [item.id for item in kept if unused and item.id not in used]
    known = {*use.store.names(), *use.pins.all_pins().values()}
    chosen += [_full_name(name, known) for name in entries or []]
    if not in_use and used.intersection(chosen):
        raise _is_in_use(sorted(used.intersection(chosen)))
    use.drop(chosen, moves_studies=in_use)
    dropped += chosen
    if json:
        print_json({"dropped": dropped})
        return
    word = "entry" if len(dropped) == 1 else "entries"
    print(f"{len(dropped)} {word} deleted. What lay on the disk is not overwritten.")


def _use(context: typer.Context) -> FeatureUse:
    # Not `open_records`: it brings training's libraries, which take seconds.
    from common.clock import SystemClock
    from common.crypto.keys import SigningKey
    from site_client.approvals import Approvals
    from site_client.config import read_site_config
    from site_client.feature_use import FeaturePins, FeatureUse
    from site_client.features.store import FeatureStore
    from site_client.site_database import SiteDatabase

    paths, clock = paths_of(context), SystemClock()
    key = SigningKey.read(paths.signing_key).verify_key
    database = SiteDatabase(paths.database)
    return FeatureUse(
        FeatureStore(paths.features),
        Approvals(database, clock, key),
        FeaturePins(database),
        clock,
        read_site_config(paths).features.keep_days,
    )


def _of_plan(entries: tuple[FeatureEntry, ...], plan: Path) -> tuple[FeatureEntry, ...]:
    from common.study.plan_file import plan_digest, read_plan

    digest = plan_digest(read_plan(plan))
    return tuple(entry for entry in entries if entry.key.plan_digest == digest)


def _full_name(beginning: str, names: Iterable[str]) -> str:
    from common.errors import DataSourceError

    found = sorted(name for name in names if name.startswith(beginning))
    if len(found) == 1 and len(beginning) >= _ID_LENGTH_MIN:
        return found[0]
    raise DataSourceError(
        "no such entry of the feature store",
        expected=f"a plan file, or at least {_ID_LENGTH_MIN} characters of one entry's name",
        arrived=f"{beginning[:64]!r}, with which {len(found)} begin",
        todo="look at `cohortium-site features show`",
    )


def _is_in_use(names: list[str]) -> CohortiumError:
    from common.errors import StudyStateError

    return StudyStateError(
        "an entry is in use by a running study",
        expected="entries that no running study uses",
        arrived=", ".join(names),
        todo="withdraw the study; or, to let it go on with the newest rows, add --in-use",
    )


def _is_a_table() -> CohortiumError:
    from common.errors import DataSourceError

    return DataSourceError(
        "a table needs no feature store",
        expected="a source of events in site.toml",
        arrived='kind = "table", whose rows are read as they are',
        todo="run `cohortium-site check PLAN`: it reads the table",
    )


def _record(entry: FeatureEntry, in_use: frozenset[str]) -> dict[str, Any]:
    from common.clock import utc_text

    return {
        "entry": entry.id,
        "study_id": entry.study_id,
        "plan_digest": entry.key.plan_digest,
        "fingerprint": entry.key.fingerprint,
        "software": entry.key.software,
        "built_at": utc_text(entry.built_at_s),
        "build": entry.build,
        "rows": entry.rows,
        "patients": entry.patients,
        "recomputed": entry.recomputed,
        "size_bytes": entry.size_bytes,
        "in_use": entry.id in in_use,
    }


def _table(entries: Iterable[FeatureEntry], in_use: frozenset[str], *, now_s: int) -> Table:
    from common.clock import utc_text

    table = Table()
    for name in ("entry", "study", "plan", "built", "age", "rows", "patients", "MB", "in use"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        table.add_row(
            entry.id[:8],
            escape(entry.study_id),
            entry.key.plan_digest[:8],
            utc_text(entry.built_at_s)[:10],
            f"{(now_s - entry.built_at_s) // 86_400} d",
            str(entry.rows),
            str(entry.patients),
            f"{entry.size_bytes / 1e6:.1f}",
            "yes" if entry.id in in_use else "",
        )
    return table
