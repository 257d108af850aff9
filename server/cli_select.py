"""`cohortium-coordinator select`: rank candidate codes over all sites, propose a shorter plan."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.command_line import print_json
from server.cli_context import Json, open_config
from server.cli_run import start_study

if TYPE_CHECKING:
    from common.study.plan import StudyPlan
    from server.books import Books
    from server.relevance import Relevance
    from server.study_register import Study

_COLUMNS = (
    "feature",
    "codes",
    "kept",
    "why",
    "present_share",
    "information",
    "low",
    "high",
    "p_value",
    "told_from_noise",
    "joint_rank",
    "joint_information",
)


def select(
    context: typer.Context,
    plan: Annotated[Path, typer.Argument(help="A study plan that selects, TOML.")],
    out: Annotated[
        Path | None, typer.Option(help="New file for the shortened plan, for review.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="New file for the ranking, CSV.")] = None,
    study_id: Annotated[
        str | None, typer.Option(help="Study id of the shortened plan, instead of ID-short.")
    ] = None,
    json: Json = False,
) -> None:
    """Rank a plan's candidates over all sites; run it again when the sites have counted."""
    from common.crypto.keys import SigningKey
    from common.protocol.round_states import StudyState
    from common.study.plan_file import read_plan
    from server.books import open_books

    paths, config = open_config(context)
    checked = read_plan(plan)
    _check_selects(checked, plan.name)
    books = open_books(paths, config)
    study = books.register.register(checked, SigningKey.read(paths.signing_key))
    if study.state is StudyState.REGISTERED:
        start_study(context, study.study_id)
        study = books.register.find(study.study_id)
    if study.state is StudyState.FINISHED:
        _finish(books, study, checked, out=out, table=table, study_id=study_id, json=json)
    else:
        _tell_progress(books, study, json=json)


def _check_selects(plan: StudyPlan, name: str) -> None:
    from common.errors import PlanError

    if plan.selection is None:
        raise PlanError(
            f"{name} does not select",
            expected="a plan with [selection]",
            arrived="a plan that trains",
            todo="add [selection] (docs/study-plan.md), or `cohortium-coordinator launch` it",
        )


def _tell_progress(books: Books, study: Study, *, json: bool) -> None:
    from server.study_report import report_study

    report = report_study(books, study.study_id)
    if json:
        print_json(
            {
                "study_id": study.study_id,
                "digest": study.plan_digest,
                "state": study.state.value,
                "rounds_complete": report.rounds_complete,
            }
        )
        return
    print(f"{study.study_id} is {study.state.value} {study.reason}".rstrip() + ";")
    print(f"  {report.rounds_complete} of 2 counts are complete. Its plan's digest is")
    print(f"  {study.plan_digest}")
    if study.state.value in ("stopped", "failed"):
        print(f"Next: `cohortium-coordinator resume {study.study_id}`, then `select` again.")
    else:
        print(f"Next: `cohortium-coordinator watch {study.study_id}`, then `select` again.")


def _finish(
    books: Books,
    study: Study,
    plan: StudyPlan,
    *,
    out: Path | None,
    table: Path | None,
    study_id: str | None,
    json: bool,
) -> None:
    from common.errors import StudyStateError
    from common.ids import parse_study_id
    from server.relevance import rank_candidates
    from server.selection_rounds import read_counts
    from server.shortened_plan import shortened_text, write_new_file

    counts = read_counts(books, study)
    if counts is None:
        raise StudyStateError(
            f"{study.study_id} has no counts",
            expected="two complete counts",
            arrived="fewer, though the study is finished",
            todo="report this as a fault",
        )
    ranking = rank_candidates(plan, counts.singles, counts.joints)
    if table is not None:
        write_new_file(table, _csv(plan, ranking))
    if out is not None:
        text = shortened_text(
            plan,
            ranking,
            plan_digest=study.plan_digest,
            epsilon_spent=counts.epsilon_spent,
            study_id=None if study_id is None else parse_study_id(study_id),
        )
        write_new_file(out, text)
    if json:
        print_json(
            {
                "study_id": study.study_id,
                "digest": study.plan_digest,
                "state": study.state.value,
                "sites": list(counts.sites),
                "epsilon_spent": counts.epsilon_spent,
                "delta": plan.privacy.delta,
                "candidates": [_record(plan, item) for item in ranking],
            }
        )
        return
    Console().print(_render(ranking))
    _tell_end(plan, ranking, sites=len(counts.sites), epsilon=counts.epsilon_spent)
    if out is None:
        print("Write the shortened plan with `--out FILE`, the ranking with `--table FILE`.")
    else:
        _check_text(out)


def _tell_end(plan: StudyPlan, ranking: Sequence[Relevance], *, sites: int, epsilon: float) -> None:
    kept = sum(item.is_kept for item in ranking)
    print(
        f"{kept} of {len(ranking)} candidates are kept, over {sites} sites. The selection spent "
        f"epsilon {epsilon:.4f} at delta {plan.privacy.delta:g} at each; that stays in their "
        "ledgers. The shortened plan is a new study, with its own approval and budget."
    )
    if plan.selection is not None and kept < plan.selection.keep:
        print(
            f"Fewer than keep = {plan.selection.keep}: of the others nothing could be told from "
            "noise, or too few patients have them."
        )


def _check_text(out: Path) -> None:
    """Say at once what a person must correct before the shortened plan can be launched."""
    from common.study.plan_file import read_plan
    from common.study.problems import PlanProblems

    try:
        read_plan(out)
    except PlanProblems as error:
        print(f"{out} is written and needs corrections before it can be launched:")
        for problem in error.problems:
            print(f"  [{problem.number}] {problem.path}: {problem.found}; {problem.todo}")
        return
    print(f"{out} is written. Review it, then `cohortium-coordinator plan check {out}`.")


def _render(ranking: Sequence[Relevance]) -> Table:
    table = Table()
    for name in (
        "feature",
        "have it",
        "tells alone (95 %), nats",
        "tells with kept",
        "what and why",
    ):
        table.add_column(name, overflow="fold")
    for item in ranking:
        found = item.information
        mark = "" if item.is_told else " noise?"
        joint = "" if item.joint_information is None else f"{item.joint_information:.4f}"
        table.add_row(
            escape(item.name),
            f"{100 * item.present_share:.1f} %",
            f"{max(found.value, 0):.4f} ({found.low:.4f}–{found.high:.4f}){mark}",
            joint,
            item.fate.value,
        )
    return table


def _record(plan: StudyPlan, item: Relevance) -> dict[str, Any]:
    values = (
        item.name,
        list(plan.features[item.place].codes),
        item.is_kept,
        item.fate.value,
        item.present_share,
        item.information.value,
        item.information.low,
        item.information.high,
        item.information.p_value,
        item.is_told,
        item.joint_rank,
        item.joint_information,
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _csv(plan: StudyPlan, ranking: Sequence[Relevance]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for item in ranking:
        record = _record(plan, item)
        writer.writerow(record | {"codes": " ".join(record["codes"])})
    return stream.getvalue()
