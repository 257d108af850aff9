"""What a sweep writes: tables as Parquet and JSON, figures, and a report in Markdown and HTML."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from simulations.sweep_cache import software
from simulations.sweep_figures import Drawn, draw, varied
from simulations.varied_plans import EPSILON, in_words

if TYPE_CHECKING:
    from simulations.sweep import Sweep

_SUMMARY: Final = (
    "seeds", "auroc", "auroc_low", "auroc_high", "auroc_of_sites", "brier", "calibration_slope",
    "epsilon_spent", "accepted",
)  # fmt: skip
_ROWS_MAX: Final = 60
_STYLE: Final = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; \
color: #1a1a1a; background: #fff }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #ccc; padding: 0.2rem 0.6rem; text-align: right }
th { background: #f2f2f2 }
img { max-width: 100% }
"""


def write_sweep(found: Sweep, *, words: str) -> list[Path]:
    """Write all tables, figures and both reports into the sweep's folder; return the reports.

    Args:
        found: finished.
        words: on which patients it ran, for the reader.
    """
    drawn = draw(found)
    for item in drawn:
        item.write(found.folder / "figures")
        write_table(item.table, found.folder / "tables" / item.name)
    for name in ("table", "summary", "cost"):
        write_table(getattr(found, name), found.folder / "tables" / name)
    record = json.dumps(sweep_record(found, words=words), indent=1, allow_nan=False)
    (found.folder / "sweep.json").write_text(record + "\n", encoding="utf-8")
    parts = list(_parts(found, drawn, words))
    reports = [found.folder / "report.md", found.folder / "report.html"]
    reports[0].write_text("\n\n".join(part.markdown() for part in parts) + "\n", encoding="utf-8")
    reports[1].write_text(_page(found.plan.study.title, parts), encoding="utf-8")
    return reports


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as `path`.parquet and .json; an infinite number is "infinity" in JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path.with_suffix(".parquet"), index=False)
    text = json.dumps(rows_of(table), indent=1, allow_nan=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


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


def sweep_record(found: Sweep, *, words: str) -> dict[str, Any]:
    """Return what was run, on what and with which software, and the summary, as JSON values."""
    return {
        "sweep_version": 1,
        "study": found.plan.study.id,
        "population": words,
        "varied": varied(found),
        "seeds": sorted({run.seed for run in found.runs}),
        "runs": len(found.runs),
        "stopped": dict(found.stopped),
        "software": dict(software()),
        "summary": rows_of(found.summary),
    }


@dataclass(frozen=True)
class _Part:
    """One piece of a report: a heading, words, a table or a figure, each where it is there."""

    heading: str = ""
    level: int = 2
    words: str = ""
    table: pd.DataFrame | None = None
    figure: str = ""

    def markdown(self) -> str:
        lines = [f"{'#' * self.level} {self.heading}"] if self.heading else []
        if self.words:
            lines.append(self.words)
        if self.figure:
            lines.append(f"![{self.heading}](figures/{self.figure}.svg)")
        if self.table is not None:
            names = [str(name) for name in self.table.columns]
            rows = [names, ["---"] * len(names), *_cells(self.table)]
            lines.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        return "\n\n".join(lines)

    def html(self) -> str:
        found = (
            f"<h{self.level}>{html.escape(self.heading)}</h{self.level}>" if self.heading else ""
        )
        if self.words:
            found += f"<p>{html.escape(self.words)}</p>"
        if self.figure:
            title = html.escape(self.heading, quote=True)
            found += f'<img src="figures/{self.figure}.svg" alt="{title}">'
        if self.table is not None:
            head = "".join(f"<th>{html.escape(str(name))}</th>" for name in self.table.columns)
            body = "".join(
                f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
                for row in _cells(self.table)
            )
            found += f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return found


def _cells(table: pd.DataFrame) -> list[list[str]]:
    return [[_shown(value) for value in row] for row in table.itertuples(index=False)]


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isinf(value):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return in_words(value).replace("|", "\\|")


def _parts(found: Sweep, drawn: list[Drawn], words: str) -> Iterator[_Part]:
    seeds = sorted({run.seed for run in found.runs})
    yield _Part(f"{found.plan.study.title}: a sweep", 1)
    yield _Part(
        words=f"{len(found.runs)} simulated runs of the whole study on {words}; "
        f"{len(found.cells)} plans, seeds {', '.join(map(str, seeds))}. What is simulated shows "
        "how the study would run on these patients and what privacy would cost there; it proves "
        "nothing about others."
    )
    shown = found.summary[[*found.cells[0].values, *_SUMMARY]]
    yield _Part("Summary", words=_choice_words(found), table=shown)
    raised = [cell.name for cell in found.cells if cell.norm_bound_raised]
    if raised:
        yield _Part(
            words="The plan's training.update_norm_max was raised for the noise of: "
            + "; ".join(raised)
        )
    for item in drawn:
        is_short = len(item.table) <= _ROWS_MAX
        rows = item.table if is_short else item.table.head(_ROWS_MAX)
        more = "" if is_short else f" The first {_ROWS_MAX} of {len(item.table)} rows."
        where = f" All numbers: tables/{item.name}.parquet and .json.{more}"
        yield _Part(item.title, words=item.words + where, figure=item.name, table=rows)
    versions = pd.DataFrame(software(), columns=["software", "version or digest"])
    yield _Part("Software", table=versions)


def _choice_words(found: Sweep) -> str:
    """Return what a reader must know before choosing a cell by these numbers."""
    told = (
        "AUROC of all sites' held-out patients together, its 95 % interval over seeds, the mean of "
        "the sites' own AUROCs; `epsilon_spent` is the most that any site's ledger states."
    )
    if any(path != EPSILON for path in found.cells[0].values):
        told += (
            " Whoever chooses the best cell by this table has chosen it by the seeds and held-out "
            "patients of its own figure, which flatters it: report a run with fresh seeds, and "
            "choose on public or simulated patients."
        )
    if found.stopped:
        cut = "; ".join(f"{name} after {seeds} seeds" for name, seeds in found.stopped.items())
        told += f" Stopped early, clearly below the best cell of the same epsilon: {cut}."
    return told


def _page(title: str, parts: list[_Part]) -> str:
    body = "\n".join(part.html() for part in parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f"</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )
