"""What a sweep writes: tables as Parquet and JSON, figures, and a report in Markdown and HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from common.errors import StoreError
from common.privacy.unit import UNIT_SENTENCE
from simulations.baselines import FEDERATED, WORDS
from simulations.figures import written
from simulations.report_page import Facts, Part, Picture, Report, Section, Words
from simulations.run_folder import MARK, MARK_TEXT, RunFolder
from simulations.sweep_cache import software
from simulations.sweep_figures import BOUGHT, Drawn, draw, varied
from simulations.varied_plans import EPSILON, in_words

if TYPE_CHECKING:
    from simulations.sweep import Sweep

_SUMMARY: Final = (
    "seeds", "auroc", "auroc_low", "auroc_high", "auroc_of_sites", "brier", "calibration_slope",
    "epsilon_spent", "accepted",
)  # fmt: skip
_ROWS_MAX: Final = 60
"""Rows of a table that the report shows; the files have all of them."""


def write_sweep(found: Sweep, *, words: str, left_out: Sequence[str] = ()) -> Path:
    """Write all tables, figures and both reports into the sweep's folder.

    Args:
        found: finished.
        words: on which patients it ran, for the reader.
        left_out: which patients it did not run on, and why, one sentence each.

    Returns:
        The report as a page.

    Raises:
        StoreError: the folder cannot be written.
    """
    home = RunFolder(found.folder)
    home.write_text(MARK, MARK_TEXT)
    drawn = draw(found)
    for item in drawn:
        _write_table(home, item.name, item.table)
        for name, content in written(item.name, item.figure).items():
            home.write_bytes(f"{home.figures.name}/{name}", content)
    for name in ("table", "by_seed", "summary", "cost", "baselines"):
        _write_table(home, name, getattr(found, name))
    record = json.dumps(
        sweep_record(found, words=words, left_out=left_out), indent=1, allow_nan=False
    )
    home.write_text("sweep.json", record + "\n")
    report = _report(found, drawn, words, left_out)
    home.write_text("report.md", report.markdown())
    home.write_text("report.html", report.html(home.figures))
    return found.folder / "report.html"


def _write_table(home: RunFolder, name: str, table: pd.DataFrame) -> None:
    """Write a table twice; an infinite number is "infinity" in JSON, which has no other word."""
    try:
        home.write_bytes(f"tables/{name}.parquet", table.to_parquet(index=False))
    except OSError as error:  # of Parquet's own files
        raise StoreError(
            f"{name}.parquet cannot be written",
            expected="a folder with free space",
            arrived=type(error).__name__,
            todo="free disk space, or name another folder",
        ) from None
    text = json.dumps(rows_of(table), indent=1, allow_nan=False)
    home.write_text(f"tables/{name}.json", text + "\n")


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as JSON values."""
    return [
        {str(key): _json_value(value) for key, value in row.items()}
        for row in table.to_dict(orient="records")
    ]


def _json_value(value: Any) -> Any:
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return "infinity" if math.isinf(value) else value
    return value


def sweep_record(found: Sweep, *, words: str, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Return what was run, on what and with which software, and the summary, as JSON values."""
    return {
        "sweep_version": 1,
        "study": found.plan.study.id,
        "population": words,
        "left_out": list(left_out),
        "varied": varied(found),
        "seeds": _seeds(found),
        "runs": len(found.runs),
        "stopped": dict(found.stopped),
        "software": dict(software()),
        "baselines": rows_of(found.bought),
        "summary": rows_of(found.summary),
    }


def beside_federation(found: Sweep) -> list[str]:
    """Return the names of the baselines that were trained, in their order."""
    return [name for name in found.bought["baseline"].unique() if name != FEDERATED]


def interval_text(row: Any, name: str) -> str:
    """Return a figure of a row with its interval over seeds; a difference with its sign."""
    sign = "+" if name == "federated_minus" else ""
    middle, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if math.isnan(middle):
        return "–"
    ends = "" if math.isnan(low) else f" ({low:{sign}.3f} to {high:{sign}.3f})"
    return f"{middle:{sign}.3f}{ends}"


def _seeds(found: Sweep) -> list[int]:
    return sorted({run.seed for run in found.runs})


def _report(found: Sweep, drawn: Sequence[Drawn], words: str, left_out: Sequence[str]) -> Report:
    figures = [
        Section(item.title, list(_figure_parts(item))) for item in drawn if item.name != BOUGHT
    ]
    pictures = [
        Picture(item.name, item.title, f"{item.words} The tables below have its numbers.")
        for item in drawn
        if item.name == BOUGHT
    ]
    software_rows = [[name, version] for name, version in software()]
    return Report(
        title=f"A sweep: {found.plan.study.title}",
        sections=[
            Section("How to read this", list(_reading(found, words, left_out))),
            Section("Summary", list(_summary(found))),
            Section("What federation bought", list(_bought(found, pictures))),
            *figures,
            Section("Software", [Facts("What computed this", ["name", "version"], software_rows)]),
        ],
    )


def _reading(found: Sweep, words: str, left_out: Sequence[str]) -> Iterator[Part]:
    yield Words(MARK_TEXT, is_warning=True)
    yield Words(
        f"{len(found.runs)} simulated runs of the whole study on {words}: {len(found.cells)} "
        f"plans, seeds {', '.join(map(str, _seeds(found)))}. A simulation shows how the study "
        "would run on these patients and what privacy would cost there; it proves nothing about "
        "others."
    )
    for sentence in left_out:
        yield Words(f"Left out: {sentence}.")
    yield Words(UNIT_SENTENCE)
    if any(path != EPSILON for path in found.cells[0].values):
        yield Words(
            "Whoever takes the best cell of these tables has chosen it by the seeds and the "
            "held-out patients of its own figure, which flatters it. Choose on public or invented "
            "patients, and report a run with fresh seeds.",
            is_warning=True,
        )
    if found.stopped:
        cut = "; ".join(f"{name} after {seeds} seeds" for name, seeds in found.stopped.items())
        yield Words(
            f"Stopped early, clearly below the best cell of the same epsilon: {cut}. Its figures "
            "are of fewer seeds."
        )
    raised = [cell.name for cell in found.cells if cell.norm_bound_raised]
    if raised:
        yield Words(f"training.update_norm_max was raised for the noise of: {'; '.join(raised)}.")


def _summary(found: Sweep) -> Iterator[Part]:
    yield Words(
        "AUROC of all sites' held-out patients together with its 95 % interval over seeds, and the "
        "mean of the sites' own AUROCs. epsilon_spent is the most that any site's ledger states."
    )
    yield _facts("Each plan", found.summary[[*found.cells[0].values, *_SUMMARY]])


def _bought(found: Sweep, pictures: Sequence[Picture]) -> Iterator[Part]:
    names = beside_federation(found)
    if not names:
        yield Words("No baselines were trained, so this sweep cannot say what federation bought.")
        return
    yield Words(
        "Each baseline trains the cell's own model for the same rounds and steps from the same "
        "start with the same seed, and is scored on the same held-out patients; what differs is "
        "who trains together and whether noise is added. Without noise means that each patient's "
        "gradient is still clipped as the plan says. In a cell without noise no baseline has any."
    )
    yield from pictures
    for caption, column in (
        ("AUROC, mean of the sites' own, with its 95 % interval over seeds", "auroc"),
        ("The federation's AUROC minus each baseline's: above 0 the federation is better",
         "federated_minus"),
    ):  # fmt: skip
        yield _by_baseline(found, caption, column)
    if (found.bought["sites"] < found.bought["sites"].max()).any():
        yield Words(
            "Not every site was left out in turn: compare that column by its difference alone, "
            "which is of the sites left out."
        )
    yield Words(
        "Every seed and site is in tables/baselines.parquet and .json, figures over all patients "
        "in tables/bought.parquet and .json."
    )


def _by_baseline(found: Sweep, caption: str, column: str) -> Facts:
    """Return a row for each cell and a column for each baseline."""
    paths = list(found.cells[0].values)
    of_federation = [FEDERATED] if column == "auroc" else []
    names = [*of_federation, *beside_federation(found)]
    rows = []
    for key, part in found.bought.groupby(paths, sort=False):
        of_name = part.set_index("baseline")
        values = key if isinstance(key, tuple) else (key,)
        cells = [interval_text(of_name.loc[name], column) for name in names]
        rows.append([*(in_words(value) for value in values), *cells])
    words = {FEDERATED: "the federation, as the plan says", **WORDS}
    return Facts(caption, [*paths, *(words[name] for name in names)], rows)


def _figure_parts(item: Drawn) -> Iterator[Part]:
    yield Picture(item.name, item.title, f"{item.title}; the table below has its numbers")
    yield Words(item.words)
    is_short = len(item.table) <= _ROWS_MAX
    shown = "" if is_short else f", the first {_ROWS_MAX} of {len(item.table)} rows"
    yield _facts(f"tables/{item.name}.parquet and .json{shown}", item.table.head(_ROWS_MAX))


def _facts(caption: str, table: pd.DataFrame) -> Facts:
    rows = [[_shown(value) for value in row] for row in table.itertuples(index=False)]
    return Facts(caption, [str(name) for name in table.columns], rows)


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isinf(value):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return in_words(value)
