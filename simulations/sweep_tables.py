"""The tables of a sweep: means over seeds with intervals, costs of privacy, traffic.

Intervals are Student's t at 95 % over seeds. They cover split, sampling and noise as far as the
seeds vary them; the patients are the same in all seeds, so they do not cover who was recruited.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from simulations.seed_interval import interval
from simulations.varied_plans import EPSILON, Cell, in_words

if TYPE_CHECKING:
    from simulations.sweep_book import Made, Trained

Row = dict[str, Any]


def values_of(cell: Cell) -> Row:
    """Return a cell's varied values as columns of a table."""
    found = {path: _plain(value) for path, value in cell.values.items()}
    if EPSILON in found:
        found[EPSILON] = cell.epsilon
    return found


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else in_words(value)


def auroc_of(run: Made) -> float | None:
    """Return the AUROC of all sites' held-out patients together."""
    value: float | None = scores(run, "all")[0]["auroc"]
    return value


def scores(run: Made | Trained, scope: str) -> list[Row]:
    """Return the rows of a run or a baseline for all patients, each site or each group."""
    return [row for row in run.record["scores"] if row["scope"] == scope]


def mean_of_sites(run: Made) -> float | None:
    """Return the mean of the sites' own AUROCs, of those that have one."""
    found = [row["auroc"] for row in scores(run, "site") if row["auroc"] is not None]
    return float(np.mean(found)) if found else None


def table(runs: Sequence[Made]) -> pd.DataFrame:
    """Return one row for each cell, seed and site."""
    rows: list[Row] = []
    for run in runs:
        of_site = {row["name"]: row for row in scores(run, "site")}
        for site in run.record["sites"]:
            found = of_site.get(site["site_id"], {})
            kept = {key: value for key, value in found.items() if key not in ("scope", "name")}
            kept["held_out"] = kept.pop("patients", 0)
            rows.append({**values_of(run.cell), "seed": run.seed, **site, **kept})
    return pd.DataFrame(rows)


def by_seed(runs: Sequence[Made]) -> pd.DataFrame:
    """Return one row for each cell and seed: figures of all sites' held-out patients together."""
    rows: list[Row] = []
    for run in runs:
        found = scores(run, "all")[0]
        kept = {key: value for key, value in found.items() if key not in ("scope", "name")}
        means = {"auroc_of_sites": mean_of_sites(run)}
        rows.append({**values_of(run.cell), "seed": run.seed, **kept, **means})
    return pd.DataFrame(rows)


def summary(runs: Sequence[Made]) -> pd.DataFrame:
    """Return one row for each cell, in the order of the cells."""
    return pd.DataFrame([_summary_row(cell, own) for cell, own in by_cell(runs)])


def _summary_row(cell: Cell, runs: Sequence[Made]) -> Row:
    everyone = [scores(run, "all")[0] for run in runs]
    rounds = [row for run in runs for row in run.record["rounds"]]
    spent = [row["epsilon_spent"] for run in runs for row in run.record["sites"]]
    return {
        **values_of(cell),
        "seeds": len(runs),
        **interval(auroc_of(run) for run in runs).columns("auroc"),
        **interval(mean_of_sites(run) for run in runs).columns("auroc_of_sites"),
        "accuracy": interval(row["accuracy"] for row in everyone).mean,
        "brier": interval(row["brier"] for row in everyone).mean,
        "calibration_slope": interval(row["calibration_slope"] for row in everyone).mean,
        "epsilon_spent": max((item for item in spent if item is not None), default=math.nan),
        "accepted": sum(row["accepted"] for row in rounds) / sum(row["asked"] for row in rounds),
        "bytes_up_per_round": float(np.mean([row["bytes_up"] for row in rounds])),
        "bytes_down_per_round": float(np.mean([row["bytes_down"] for row in rounds])),
        "norm_bound": cell.plan.training.update_norm_max,
        "cpu_seconds": float(np.mean([run.record["cpu_seconds"] for run in runs])),
    }


def by_cell(runs: Sequence[Made]) -> Iterator[tuple[Cell, list[Made]]]:
    """Yield each cell with its runs."""
    groups: dict[str, tuple[Cell, list[Made]]] = {}
    for run in runs:
        groups.setdefault(run.cell.name, (run.cell, []))[1].append(run)
    yield from groups.values()


def cost_of_privacy(runs: Sequence[Made]) -> pd.DataFrame:
    """Return what AUROC each site and each group loses against the largest epsilon.

    A cell is compared with the cell that differs in epsilon alone and has the largest one (infinity
    where it was asked for), seed by seed, so that split and sampling are the same in both. `scope`
    is "all", "site" or "group"; a cost above zero is a loss.
    """
    rows: list[Row] = []
    cells = list(by_cell(runs))
    for cell, own in cells:
        others = {path: value for path, value in cell.values.items() if path != EPSILON}
        same = [
            (rival, made)
            for rival, made in cells
            if {path: item for path, item in rival.values.items() if path != EPSILON} == others
        ]
        reference, theirs = max(same, key=lambda item: item[0].epsilon)
        if reference is not cell:
            rows += _cost_rows(cell, own, reference, theirs)
    return pd.DataFrame(rows)


def _cost_rows(
    cell: Cell, own: Sequence[Made], reference: Cell, theirs: Sequence[Made]
) -> Iterator[Row]:
    without = {
        (run.seed, row["scope"], row["name"]): row for run in theirs for row in run.record["scores"]
    }
    found: dict[tuple[str, str], list[tuple[Row, Row]]] = {}
    for run in own:
        for row in run.record["scores"]:
            other = without.get((run.seed, row["scope"], row["name"]))
            if other and row["auroc"] is not None and other["auroc"] is not None:
                found.setdefault((row["scope"], row["name"]), []).append((row, other))
    for (scope, name), pairs in sorted(found.items()):
        yield {
            **values_of(cell),
            "reference_epsilon": reference.epsilon,
            "scope": scope,
            "name": name,
            "held_out": float(np.mean([row["patients"] for row, _ in pairs])),
            "seeds": len(pairs),
            "auroc_reference": float(np.mean([other["auroc"] for _, other in pairs])),
            "auroc": float(np.mean([row["auroc"] for row, _ in pairs])),
            **interval(other["auroc"] - row["auroc"] for row, other in pairs).columns("cost"),
        }


def participation(runs: Sequence[Made]) -> pd.DataFrame:
    """Return in which share of the exchanges each site was accepted, and why not."""
    rows: list[Row] = []
    for cell, own in by_cell(runs):
        names = [site["site_id"] for site in own[0].record["sites"]]
        for name in names:
            found = [s for run in own for s in run.record["sites"] if s["site_id"] == name]
            reasons = sorted({item["reason"] for item in found if item["reason"]})
            rows.append(
                {
                    **values_of(cell),
                    "site_id": name,
                    "patients": float(np.mean([item["patients"] for item in found])),
                    "accepted": sum(item["accepted"] for item in found)
                    / sum(item["asked"] for item in found),
                    "reason": ", ".join(reasons),
                }
            )
    return pd.DataFrame(rows)


def communication(runs: Sequence[Made]) -> pd.DataFrame:
    """Return for each cell and round the sealed bytes of all sites together, mean over seeds."""
    rows: list[Row] = []
    for cell, own in by_cell(runs):
        for place, first in enumerate(own[0].record["rounds"]):
            found = [run.record["rounds"][place] for run in own]
            names = ("asked", "accepted", "refused", "missing", "bytes_down", "bytes_up")
            means = {name: float(np.mean([row[name] for row in found])) for name in names}
            rows.append({**values_of(cell), "round": first["round"], **means})
    return pd.DataFrame(rows)
