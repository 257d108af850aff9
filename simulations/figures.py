"""Figures of a run, each drawn once and written as PNG and as SVG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simulations.baselines import ALL_SITES, FEDERATED, WORDS

if TYPE_CHECKING:
    from simulations.run import StudyRun

SITES_NAMED_MAX: Final = 40
"""Sites above which a figure shows them without their names."""
INK: Final = "#1b1f24"
MUTED: Final = "#848d97"
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREEN: Final = "#009e73"
YELLOW: Final = "#e69f00"
"""Colours that people with any kind of colour vision tell apart (Okabe and Ito 2008)."""
_MARKS: Final = {
    "alone_private": (ORANGE, "o"),
    "alone": (YELLOW, "D"),
    "leave_one_site_out": (GREEN, "s"),
}
_CROWD: Final = 9.0
"""Inches for sites that are too many to be named."""
_WIDE: Final = 7.5
_DPI: Final = 144


def draw_run(study_run: StudyRun) -> dict[str, bytes]:
    """Return the files of all figures that this run has numbers for, by name."""
    files: dict[str, bytes] = {}
    for name, draw in _FIGURES.items():
        figure = draw(study_run)
        if figure is not None:
            files |= written(name, figure)
    return files


def written(name: str, figure: Figure) -> dict[str, bytes]:
    """Return a figure as `name.png` and `name.svg`, the same bytes for the same figure."""
    FigureCanvasAgg(figure)
    png, svg = io.BytesIO(), io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return {f"{name}.png": png.getvalue(), f"{name}.svg": svg.getvalue()}


def new_figure(height: float) -> tuple[Figure, Any]:
    """Return a figure of a page's width and so many inches, and its axes."""
    figure = Figure(figsize=(_WIDE, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="#d9dee3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    return figure, axes


def _bought(study_run: StudyRun) -> Figure | None:
    """Draw how much better the federation's model is than each baseline's."""
    rows = study_run.baselines
    rows = rows[(rows.site_id == ALL_SITES) & (rows.baseline != FEDERATED)]
    rows = rows.dropna(subset=["federated_minus"])
    if rows.empty:
        return None
    figure, axes = new_figure(1.2 + 0.42 * len(rows))
    _whiskers(axes, rows, "federated_minus", np.arange(len(rows)), BLUE)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [WORDS[name] for name in rows.baseline])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("AUROC of the federation minus the baseline's, mean of sites; 95 %")
    return figure


def _sites(study_run: StudyRun) -> Figure | None:
    """Draw each site's AUROC with the federation's model and alone with its own privacy."""
    rows = study_run.baselines[study_run.baselines.site_id != ALL_SITES]
    together = rows[rows.baseline == FEDERATED].dropna(subset=["auroc"])
    if together.empty:
        return None
    together = together.sort_values("auroc")
    places = pd.Series(np.arange(len(together)), index=list(together.site_id))
    is_named = len(together) <= SITES_NAMED_MAX
    figure, axes = new_figure(1.4 + (0.28 * len(together) if is_named else _CROWD))
    _whiskers(axes, together, "auroc", places.to_numpy(), BLUE, label="the federation's model")
    for name, (colour, mark) in _MARKS.items():
        own = rows[(rows.baseline == name) & rows.site_id.isin(places.index)]
        if not own.empty:
            y = places[list(own.site_id)].to_numpy()
            axes.plot(own.auroc, y, mark, color=colour, markersize=5, label=WORDS[name], alpha=0.9)
    axes.set_yticks(places.to_numpy(), list(places.index) if is_named else [""] * len(places))
    axes.tick_params(axis="y", length=3.5 if is_named else 0)
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.set_xlabel("AUROC on the site's own held-out patients; whiskers: 95 %")
    axes.set_ylabel("" if is_named else f"{len(places)} sites")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _groups(study_run: StudyRun) -> Figure | None:
    """Draw the AUROC of each level of a fairness group."""
    rows = study_run.groups
    rows = rows.dropna(subset=["auroc"]) if len(rows) else rows
    if rows.empty:
        return None
    figure, axes = new_figure(1.2 + 0.35 * len(rows))
    _whiskers(axes, rows, "auroc", np.arange(len(rows)), BLUE)
    axes.set_yticks(range(len(rows)), list(rows.group))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("AUROC of the federation's model, held-out patients of all sites, 95 %")
    return figure


def _calibration(study_run: StudyRun) -> Figure | None:
    """Draw observed against predicted risk."""
    rows = study_run.calibration
    if len(rows) < 2:
        return None
    figure, axes = new_figure(4.2)
    most = float(max(rows.predicted.max(), rows.observed.max())) * 1.05
    axes.plot([0, most], [0, most], color=MUTED, linestyle="--", linewidth=1, label="as predicted")
    axes.plot(rows.predicted, rows.observed, "o-", color=BLUE, label="the federation's model")
    axes.set_xlabel("predicted risk, mean of a tenth of the held-out patients")
    axes.set_ylabel("observed share with the outcome")
    axes.set_xlim(0, most)
    axes.set_ylim(0, most)
    axes.set_aspect("equal")
    axes.grid(axis="y", color="#d9dee3", linewidth=0.8)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _participation(study_run: StudyRun) -> Figure | None:
    """Draw how many sites were accepted, refused or missing in each round."""
    rows = study_run.rounds
    if rows.empty:
        return None
    counts = rows.groupby(["round", "outcome"]).size().unstack(fill_value=0)
    figure, axes = new_figure(2.8)
    below = np.zeros(len(counts))
    shown = {"accepted": GREEN, "refused-by-site": ORANGE, "refused-by-coordinator": YELLOW,
             "missing": MUTED}  # fmt: skip
    for outcome, colour in shown.items():
        if outcome in counts:
            heights = counts[outcome].to_numpy()
            words = outcome.replace("-", " ")
            axes.bar(counts.index, heights, bottom=below, color=colour, label=words, width=0.9)
            below = below + heights
    axes.grid(visible=False)
    axes.set_xlabel("round (the last is the final evaluation; 0, if any, the scaling)")
    axes.set_ylabel("sites")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8, frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    return figure


def _communication(study_run: StudyRun) -> Figure | None:
    """Draw the bytes that were sent until each round."""
    rows = study_run.rounds
    if rows.empty or rows.bytes_down.sum() + rows.bytes_up.sum() == 0:
        return None
    sums = rows.groupby("round")[["bytes_down", "bytes_up"]].sum().cumsum() / 1e6
    figure, axes = new_figure(2.8)
    axes.plot(sums.index, sums.bytes_down, "o-", markersize=3.5, color=BLUE, label="to the sites")
    axes.plot(sums.index, sums.bytes_up, "s-", markersize=3.5, color=ORANGE, label="from the sites")
    axes.grid(axis="y", color="#d9dee3", linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("round")
    axes.set_ylabel("megabytes so far, all sites")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _whiskers(
    axes: Any, rows: pd.DataFrame, name: str, y: Any, colour: str, *, label: str | None = None
) -> None:
    value = rows[name].to_numpy()
    low, high = rows[f"{name}_low"].to_numpy(), rows[f"{name}_high"].to_numpy()
    error = np.clip(np.stack([value - low, high - value]), 0, None)
    axes.errorbar(
        value,
        y,
        xerr=error,
        fmt="o",
        color=colour,
        markersize=5,
        capsize=2.5,
        linewidth=1.3,
        label=label,
    )


def _learning(study_run: StudyRun) -> Figure | None:
    """Draw the AUROC of the model after each round."""
    rows = study_run.learning.dropna(subset=["auroc"])
    if len(rows) < 2:
        return None
    figure, axes = new_figure(3.2)
    axes.fill_between(rows["round"], rows.auroc_low, rows.auroc_high, color=BLUE, alpha=0.15,
                      label="95 %, of the patients' sampling")  # fmt: skip
    axes.plot(rows["round"], rows.auroc, "o-", color=BLUE, markersize=3.5, label="the federation")
    shown = study_run.baselines
    shown = shown[(shown.site_id == ALL_SITES) & (shown.baseline == "federated_no_noise")]
    if len(shown):
        axes.axhline(shown.auroc.iloc[0], color=ORANGE, linestyle="--", linewidth=1.2,
                     label="the federation without noise, after its last round")  # fmt: skip
    axes.grid(axis="y", color="#d9dee3", linewidth=0.8)
    axes.set_xlabel("training round")
    axes.set_ylabel("AUROC, mean of sites")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


_FIGURES: Final[dict[str, Callable[[StudyRun], Figure | None]]] = {
    "bought": _bought,
    "sites": _sites,
    "groups": _groups,
    "calibration": _calibration,
    "learning": _learning,
    "participation": _participation,
    "communication": _communication,
}
