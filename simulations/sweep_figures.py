"""The figures of a sweep; every number in one is in a table beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from simulations.baselines import FEDERATED, WORDS
from simulations.figures import written
from simulations.varied_plans import EPSILON, in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simulations.sweep import Sweep

BOUGHT: Final = "bought"
_PANELS_MAX: Final = 6
_NAMES_MAX: Final = 40
_SERIES_MAX: Final = 8
# Okabe and Ito's colours, which readers with any colour vision tell apart; then shapes as well.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LEVELS: Final[dict[str, tuple[str, Literal["dashed", "dotted", "solid"]]]] = {
    "federated_no_noise": ("#009E73", "solid"),
    "pooled": ("#000000", "dotted"),
    "alone": ("#D55E00", "dashed"),
}
"""Baselines without noise, in the order drawn: levels that do not depend on epsilon."""
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Drawn:
    """One figure.

    Args:
        name: of its files.
        title: what it shows.
        words: how to read it.
        table: its numbers.
        figure: as drawn.
    """

    name: str
    title: str
    words: str
    table: pd.DataFrame
    figure: Figure

    def _repr_png_(self) -> bytes:
        """Show it in a notebook."""
        return written(self.name, self.figure)[f"{self.name}.png"]


def draw(found: Sweep) -> list[Drawn]:
    """Return the figures that a sweep's varied fields allow."""
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        drawn = [_bought(found), _utility(found)]
        if not found.cost.empty:
            drawn += [_cost(found, "site"), _cost(found, "group")]
        drawn += [_participation(found), _communication(found)]
    return [item for item in drawn if not item.table.empty]


def varied(found: Sweep) -> list[str]:
    """Return the varied paths, epsilon first: the first is the horizontal axis."""
    paths = list(found.cells[0].values)
    return sorted(paths, key=lambda path: path != EPSILON)


def _utility(found: Sweep) -> Drawn:
    axis, *others = varied(found)
    names = ("auroc", "auroc_low", "auroc_high", "auroc_of_sites", "brier", "seeds")
    table = found.summary[[axis, *others, *names]]
    figure, axes = _new()
    ticks = list(dict.fromkeys(table[axis]))
    for place, (label, part) in enumerate(_series(table, others)):
        at = np.array([ticks.index(value) for value in part[axis]]) + _shift(place)
        middle = part["auroc"].to_numpy()
        ends = np.abs(part[["auroc_low", "auroc_high"]].to_numpy().T - middle)
        axes.errorbar(
            at,
            middle,
            yerr=np.nan_to_num(ends),
            label=label,
            color=_COLOURS[place % len(_COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            capsize=3,
            linestyle="-" if axis == EPSILON else "none",
        )
    axes.set_xticks(range(len(ticks)), [in_words(tick) for tick in ticks])
    axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
    axes.set_xlabel(_axis_words(axis))
    axes.set_ylabel("AUROC, all held-out patients")
    _legend(axes, others)
    return Drawn(
        "utility",
        f"Utility {_by_words(axis)}",
        "Mean over seeds and its 95 % interval (Student's t over seeds). The interval is of split, "
        "sampling and noise; it does not cover which patients the hospitals happened to have.",
        table,
        figure,
    )


def _bought(found: Sweep) -> Drawn:
    """Draw the federation over the first varied field, with a level for each baseline."""
    axis, *others = varied(found)
    table = found.bought
    is_beside = table["baseline"].nunique() > 1
    series = _series(table, others)
    panels = series[:_PANELS_MAX]
    figure = Figure(figsize=(6.4, 1.0 + 2.6 * len(panels)), layout="constrained")
    for axes, (label, part) in zip(
        figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels, strict=True
    ):
        axes.use_sticky_edges = False  # a band without height would be the axis' end
        ticks = list(dict.fromkeys(part[axis]))
        of = {name: rows.set_index(axis).loc[ticks] for name, rows in part.groupby("baseline")}
        at = np.arange(len(ticks))
        for name in _LEVELS:
            if name in of:
                _level(axes, at, of[name], name)
        for place, name in enumerate(name for name in WORDS if name not in _LEVELS):
            # The mean of some sites is not beside that of all: where few are left out, it misleads.
            if name not in of or (of[name]["sites"] < of[FEDERATED]["sites"]).any():
                continue
            axes.plot(
                at, of[name]["auroc"], _MARKERS[place + 1], color="#666666", fillstyle="none",
                label=WORDS[name],
            )  # fmt: skip
        _with_ends(axes, at, of[FEDERATED], "the federation, as the plan says")
        axes.set_xticks(at, [in_words(tick) for tick in ticks])
        axes.set_title(label, fontsize="medium", loc="left")
        axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
        axes.set_ylabel("AUROC, mean of sites")
    axes.set_xlabel(_axis_words(axis))
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, fontsize="small",
        loc="outside lower center", ncols=2,
    )  # fmt: skip
    cut = (
        ""
        if len(panels) == len(series)
        else f" The first {_PANELS_MAX} are drawn; all in the table."
    )
    return Drawn(
        BOUGHT,
        f"What federation bought: utility {_by_words(axis)}, beside the baselines",
        "Mean over seeds; the whiskers, and the bands of the baselines without noise, are 95 % "
        "intervals (Student's t over seeds). Differences are paired by seed, so they are known "
        f"better than bands that overlap suggest: read them in the table.{cut}",
        table if is_beside else table.head(0),
        figure,
    )


def _level(axes: Axes, at: Any, rows: pd.DataFrame, name: str) -> None:
    """Draw a horizontal line over each tick, and its interval as a band."""
    colour, style = _LEVELS[name]
    middle = rows["auroc"].to_numpy()
    low, high = (rows[f"auroc_{end}"].fillna(rows["auroc"]).to_numpy() for end in ("low", "high"))
    axes.bar(at, high - low, width=1.0, bottom=low, color=colour, alpha=0.08, linewidth=0)
    axes.hlines(middle, at - 0.5, at + 0.5, colors=colour, linestyles=style, label=WORDS[name])


def _with_ends(axes: Axes, at: Any, rows: pd.DataFrame, label: str) -> None:
    middle = rows["auroc"].to_numpy()
    ends = np.abs(rows[["auroc_low", "auroc_high"]].to_numpy().T - middle)
    axes.errorbar(
        at, middle, yerr=np.nan_to_num(ends), label=label, color=_COLOURS[0], marker="o",
        capsize=3, linestyle="none",
    )  # fmt: skip


def _axis_words(axis: str) -> str:
    return "ε (∞: the same plan without noise)" if axis == EPSILON else axis


def _by_words(axis: str) -> str:
    return "against ε" if axis == EPSILON else f"by {axis}"


def _cost(found: Sweep, scope: str) -> Drawn:
    names = ["name", "held_out", "seeds", "auroc_reference", "auroc", "cost"]
    kept = [*varied(found), "reference_epsilon", *names, "cost_low", "cost_high"]
    table = found.cost[found.cost["scope"] == scope][kept]
    order = list(dict.fromkeys(table.sort_values("held_out", kind="stable")["name"]))
    shown = order if len(order) <= _NAMES_MAX else _ends(order)
    figure, axes = _new(height=1.6 + 0.2 * len(shown))
    for place, (label, part) in enumerate(_series(table, varied(found))):
        rows = part[part["name"].isin(shown)]
        at = np.array([shown.index(name) for name in rows["name"]]) - _shift(place)
        ends = np.abs(rows[["cost_low", "cost_high"]].to_numpy().T - rows["cost"].to_numpy())
        axes.errorbar(
            rows["cost"],
            at,
            xerr=np.nan_to_num(ends),
            label=label,
            color=_COLOURS[place % len(_COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=4,
            linestyle="none",
            elinewidth=0.8,
        )
    axes.axvline(0, color="#888888", linewidth=0.8)
    sizes = table.groupby("name")["held_out"].mean()
    axes.set_yticks(range(len(shown)), [f"{name} ({sizes[name]:.0f})" for name in shown])
    axes.set_xlabel("AUROC lost to privacy (right of 0: a loss)")
    _legend(axes, varied(found))
    cut = (
        ""
        if shown == order
        else f" Drawn: the {_NAMES_MAX} smallest and largest; all in the table."
    )
    return Drawn(
        f"cost-by-{scope}",
        f"Who pays for privacy: each {scope}",
        f"AUROC at the largest ε of the sweep less that of the cell, for each {scope} (in brackets "
        "its held-out patients), seed by seed with the same split and sampling; 95 % interval over "
        f"seeds, the smallest {scope} at the bottom.{cut}",
        table,
        figure,
    )


def _participation(found: Sweep) -> Drawn:
    table = found.participation
    figure, axes = _new()
    for place, (label, part) in enumerate(_series(table, varied(found))):
        ordered = part.sort_values("patients", kind="stable")
        axes.plot(
            ordered["patients"],
            100 * ordered["accepted"],
            label=label,
            color=_COLOURS[place % len(_COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=4,
            linestyle="none",
        )
    axes.set_xscale("log")
    axes.set_ylim(-5, 105)
    axes.set_xlabel("patients of the site")
    axes.set_ylabel("exchanges accepted, %")
    _legend(axes, varied(found))
    return Drawn(
        "participation",
        "Who took part",
        "Share of the exchanges (rounds and the final evaluation) in which each site's answer was "
        "accepted. `reason` is the number of the refusal, see docs/error-codes.md.",
        table,
        figure,
    )


def _communication(found: Sweep) -> Drawn:
    table = found.communication
    figure, axes = _new()
    cells = list(_series(table, varied(found)))
    down = [part["bytes_down"].mean() / 1000 for _, part in cells]
    up = [part["bytes_up"].mean() / 1000 for _, part in cells]
    at = np.arange(len(cells))
    axes.barh(at - 0.2, down, 0.38, label="to all sites", color=_COLOURS[0])
    axes.barh(at + 0.2, up, 0.38, label="from all sites", color=_COLOURS[1])
    axes.set_yticks(at, [label for label, _ in cells])
    axes.invert_yaxis()
    axes.set_xlabel("kB a round, sealed envelopes")
    figure.legend(frameon=False, loc="outside upper right", ncols=2)
    return Drawn(
        "communication",
        "Communication",
        "Bytes of sealed envelopes, mean over rounds and seeds. A transport adds its own headers.",
        table,
        figure,
    )


def _new(height: float = 3.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, min(height, 12.0)), layout="constrained")
    return figure, figure.add_subplot()


def _series(table: pd.DataFrame, paths: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each combination of values, in the order of the table."""
    if not paths or table.empty:
        return [("", table)]
    found: list[tuple[str, pd.DataFrame]] = []
    for key, part in table.groupby(list(paths), sort=False):
        values: Sequence[Any] = key if isinstance(key, tuple) else (key,)
        words = [
            f"{_short(path)} {in_words(value)}" for path, value in zip(paths, values, strict=True)
        ]
        found.append((", ".join(words), part))
    return found


def _short(path: str) -> str:
    return "ε" if path == EPSILON else path.rsplit(".", 1)[-1].replace("_", " ")


def _shift(place: int) -> float:
    """Return how far a series stands off its tick, so that intervals do not hide each other."""
    return 0.08 * ((place + 1) // 2) * (-1 if place % 2 else 1)


def _ends(order: Sequence[str]) -> list[str]:
    half = _NAMES_MAX // 2
    return [*order[:half], *order[-half:]]


def _legend(axes: Axes, paths: Sequence[str]) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if paths and 0 < len(handles) <= _SERIES_MAX and isinstance(axes.figure, Figure):
        axes.figure.legend(frameon=False, fontsize="small", loc="outside upper right", ncols=3)
