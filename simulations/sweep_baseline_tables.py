"""The tables of a sweep's baselines: each cell beside them, seed by seed, and over the seeds.

AUROC over all sites is the mean of the sites' own, as beside a run; a difference is of the same
seed, sites and held-out patients. Intervals are Student's t over seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from simulations.baselines import ALL_SITES, FEDERATED
from simulations.seed_interval import interval
from simulations.sweep_tables import Row, by_cell, scores, values_of

if TYPE_CHECKING:
    from simulations.sweep_book import Made, Trained

_FIGURES: Final = ("patients", "events", "auroc", "accuracy", "brier", "calibration_slope")


def baselines(runs: Sequence[Made], trained: Sequence[Trained]) -> pd.DataFrame:
    """Return one row for each cell, seed, baseline and site, and one for all sites.

    "federated" is the cell's own run; `federated_minus` is its AUROC less the baseline's.
    """
    return pd.DataFrame(
        [
            {**values_of(run.cell), "seed": run.seed, **row}
            for run, items in _together(runs, trained)
            for item in items
            for row in _rows(item, run)
        ]
    )


def bought(runs: Sequence[Made], trained: Sequence[Trained]) -> pd.DataFrame:
    """Return one row for each cell and baseline, "federated" first: means over the seeds.

    `sites` is at how many a seed's baseline is scored, on average.
    """
    rows: list[Row] = []
    for cell, own in by_cell(runs):
        found: dict[str, list[list[Row]]] = {}
        for run, items in _together(own, trained):
            for item in items:
                found.setdefault(_name(item), []).append(list(_rows(item, run)))
        rows += [
            {**values_of(cell), "baseline": name, **_over_seeds(of_seeds)}
            for name, of_seeds in found.items()
        ]
    return pd.DataFrame(rows)


def with_baselines(summary: pd.DataFrame, bought: pd.DataFrame) -> pd.DataFrame:
    """Return the summary with a column `auroc_...` for each baseline, the mean of the sites' own.

    Args:
        summary: a row for each cell.
        bought: of the same cells in the same order; `auroc_of_sites` is the federation's.
    """
    beside = [name for name in bought["baseline"].unique() if name != FEDERATED]
    return summary.assign(
        **{f"auroc_{name}": bought.auroc[bought.baseline == name].to_numpy() for name in beside}
    )


def _together(
    runs: Sequence[Made], trained: Sequence[Trained]
) -> Iterator[tuple[Made, list[Made | Trained]]]:
    """Yield each run, and it with its baselines."""
    found: dict[tuple[str, int], list[Trained]] = {}
    for item in trained:
        found.setdefault((item.cell.name, item.seed), []).append(item)
    for run in runs:
        yield run, [run, *found.get((run.cell.name, run.seed), [])]


def _name(item: Made | Trained) -> str:
    return getattr(item, "baseline", FEDERATED)


def _rows(item: Made | Trained, run: Made) -> Iterator[Row]:
    """Yield a row for each site and one for all: a baseline beside its run, or the run itself."""
    federated = {row["name"]: row["auroc"] for row in scores(run, "site")}
    aurocs: list[float | None] = []
    gains: list[float | None] = []
    for row in sorted(scores(item, "site"), key=lambda row: str(row["name"])):
        aurocs.append(row["auroc"])
        gains.append(_difference(federated[row["name"]], row["auroc"]))
        yield _row(item, row["name"], row, aurocs[-1], gains[-1])
    yield _row(item, ALL_SITES, scores(item, "all")[0], _mean(aurocs), _mean(gains))


def _row(
    item: Made | Trained, site_id: str, found: Row, auroc: float | None, gain: float | None
) -> Row:
    own = {name: found[name] for name in _FIGURES}
    gain = None if _name(item) == FEDERATED else gain
    return {
        "baseline": _name(item), "site_id": site_id, **own, "auroc": auroc, "federated_minus": gain
    }  # fmt: skip


def _difference(federated: float | None, other: float | None) -> float | None:
    return None if federated is None or other is None else federated - other


def _mean(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def _over_seeds(of_seeds: Sequence[Sequence[Row]]) -> Row:
    """Return the means over seeds of a baseline's rows, the one for all sites last of each."""
    wholes = [rows[-1] for rows in of_seeds]
    return {
        "seeds": len(wholes),
        "sites": float(np.mean([len(rows) - 1 for rows in of_seeds])),
        **interval(row["auroc"] for row in wholes).columns("auroc"),
        "brier": interval(row["brier"] for row in wholes).mean,
        "calibration_slope": interval(row["calibration_slope"] for row in wholes).mean,
        **interval(row["federated_minus"] for row in wholes).columns("federated_minus"),
    }
