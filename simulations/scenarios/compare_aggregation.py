"""Every aggregation under every lie, on the same hospitals: what each saves, and whom it costs.

The hospitals are generated; one large one lies about its updates, two are small and honest, and
have a risk factor that the others lack, as small hospitals with other patients do. Models are
scored on patients whom nobody trained on, many of them also for the small hospitals, so that what
is compared is the model and not the luck of a few held-out patients.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from common.errors import ConfigError
from common.study.aggregation import (
    WEIGHTED_MEAN,
    AggregationSpec,
    CoordinateMedian,
    MultiKrum,
    NormBound,
    TrimmedMean,
)
from common.study.aggregation_rules import quorum_needed
from common.study.plan import StudyPlan
from simulations.engine import EngineSettings, run_study
from simulations.forecast_population import simulated_population
from simulations.scenarios.hospitals import first_patients, site_id_of
from simulations.scenarios.hostile_training import HostileTraining
from simulations.scenarios.scoring import auroc_of_patients, backdoor_success_among
from simulations.seed_interval import interval
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix

HONEST: Final = "honest"
LIES: Final[dict[str, HostileTraining | None]] = {
    HONEST: None,
    "label flip": HostileTraining("label_flip"),
    "sign flip": HostileTraining("sign_flip", 5.0),
    "scaling": HostileTraining("scaling", 20.0),
    "backdoor": HostileTraining("backdoor", 5.0),
}
OWN_RISK: Final = 0.4
"""Of a small hospital's patients above the middle of the first column, who fall ill besides."""
MEASURES: Final = ("AUROC", "AUROC of small sites", "backdoor")


@dataclass(frozen=True)
class ComparisonSize:
    """How much is simulated.

    Args:
        large: honest hospitals of `patients`, besides the one that may lie.
        small: honest hospitals of `small_patients`.
        patients, small_patients: in each.
        tested: patients of each hospital on whom the model is scored.
        seeds: repetitions: population, noise and sampling are new in each.
    """

    large: int = 5
    small: int = 2
    patients: int = 400
    small_patients: int = 60
    tested: int = 500
    seeds: int = 5

    @property
    def sites(self) -> int:
        """Number of hospitals."""
        return 1 + self.large + self.small


def aggregations_of(sites: int) -> dict[str, AggregationSpec]:
    """Return the aggregations compared, each tolerating one dishonest site of so many."""
    return {
        "weighted mean": WEIGHTED_MEAN,
        "norm bound": NormBound(kind="norm_bound", norm_max="median"),
        "trimmed mean": TrimmedMean(kind="trimmed_mean", dishonest_sites=1),
        "median": CoordinateMedian(kind="median", dishonest_sites=1),
        "multi-Krum": MultiKrum(kind="multi_krum", dishonest_sites=1, selected=max(2, sites - 3)),
    }


def compare_aggregation(
    plan: StudyPlan,
    size: ComparisonSize,
    *,
    lies: Mapping[str, HostileTraining | None] = LIES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Return one row for each aggregation, lie and seed, with the three measures.

    Args:
        plan: of the study; its aggregation and quorum are replaced.
        size: how much is simulated.
        lies: by name; None is honest.
        progress: is told how many of all studies are done.

    Raises:
        ConfigError: with fewer hospitals than the aggregations need.
    """
    aggregations = aggregations_of(size.sites)
    needed = max(quorum_needed(item) for item in aggregations.values())
    if size.sites < needed:
        raise ConfigError(
            "the comparison is refused",
            expected=f"{needed} hospitals or more",
            arrived=str(size.sites),
            todo="raise --large or --small",
        )
    total = len(aggregations) * len(lies) * size.seeds
    rows = []
    for done, row in enumerate(_rows(plan, size, aggregations, lies), start=1):
        rows.append(row)
        progress(done, total)
    return pd.DataFrame(rows)


def summary_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean and half width of a 95 % interval over seeds (Student's t) of each cell."""
    found = []
    for (aggregation, lie), cell in table.groupby(["aggregation", "lie"], sort=False):
        row: dict[str, object] = {"aggregation": aggregation, "lie": lie}
        for measure in MEASURES:
            over_seeds = interval(cell[measure])
            row[measure], row[f"{measure} ±"] = over_seeds.mean, over_seeds.half_width
        found.append(row)
    return pd.DataFrame(found)


def measure_text(summary: pd.DataFrame, measure: str) -> str:
    """Return one measure as a Markdown table: a row for each aggregation, a column for each lie."""
    lies = list(dict.fromkeys(summary["lie"]))
    lines = [f"| aggregation | {' | '.join(lies)} |", "|---" * (len(lies) + 1) + "|"]
    for name, cells in summary.groupby("aggregation", sort=False):
        told = [
            f"{mean:.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")
            for mean, half in zip(cells[measure], cells[f"{measure} ±"], strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(lines)


def comparison_figure(summary: pd.DataFrame) -> Figure:
    """Return one panel for each measure: lies along the axis, a bar for each aggregation."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = figure.subplots(1, len(MEASURES))
    lies = list(dict.fromkeys(summary["lie"]))
    names = list(dict.fromkeys(summary["aggregation"]))
    width = 0.8 / len(names)
    for panel, measure in zip(panels, MEASURES, strict=True):
        for place, name in enumerate(names):
            cells = summary[summary["aggregation"] == name]
            panel.bar(
                np.arange(len(lies)) + (place - (len(names) - 1) / 2) * width,
                cells[measure],
                width,
                yerr=cells[f"{measure} ±"],
                label=name,
                error_kw={"linewidth": 0.8},
            )
        panel.set_xticks(range(len(lies)), lies, rotation=20)
        panel.set_title(measure)
        panel.set_ylim(0 if measure == "backdoor" else 0.4, 1)
    panels[0].legend(fontsize=8)
    return figure


def _rows(
    plan: StudyPlan,
    size: ComparisonSize,
    aggregations: Mapping[str, AggregationSpec],
    lies: Mapping[str, HostileTraining | None],
) -> Iterator[dict[str, object]]:
    for seed in range(1, size.seeds + 1):
        sites, tested = _hospitals(plan, size, seed)
        for (lie, training), (name, spec) in itertools.product(lies.items(), aggregations.items()):
            changed = _with_aggregation(plan, spec, quorum=size.sites)
            liar = sites[0] if training is None else replace(sites[0], engine=training)
            result = run_study(
                changed, [liar, *sites[1:]], seed=seed, settings=EngineSettings(workers=1)
            )
            small = tested[-size.small :] if size.small else []
            honest = tested[1:]
            yield {
                "aggregation": name,
                "lie": lie,
                "seed": seed,
                "AUROC": auroc_of_patients(changed, result.parameters, honest),
                "AUROC of small sites": auroc_of_patients(changed, result.parameters, small),
                "backdoor": backdoor_success_among(changed, result.parameters, honest),
            }


def _hospitals(
    plan: StudyPlan, size: ComparisonSize, seed: int
) -> tuple[list[VirtualSite], list[FeatureMatrix]]:
    """Return the hospitals, the liar first and the small ones last, and patients to score on."""
    counts = [size.patients] * (1 + size.large) + [size.small_patients] * size.small
    drawn = max(counts) + size.tested
    sites, tested = [], []
    for place, site in enumerate(
        simulated_population(plan, sites=size.sites, patients=drawn)(seed)
    ):
        whole = site.matrix(plan)
        if counts[place] == size.small_patients:
            whole = _with_own_risk(whole, np.random.default_rng([seed, place]))
        sites.append(
            VirtualSite(site_id_of(place), counts[place], first_patients(whole, counts[place]))
        )
        tested.append(_last_patients(whole, size.tested))
    return sites, tested


def _with_own_risk(patients: FeatureMatrix, rng: np.random.Generator) -> FeatureMatrix:
    """Return patients of whom those above the middle of the first column are at more risk."""
    values = patients.x[..., 0] if patients.y.ndim == patients.x.ndim - 1 else patients.x[:, 0]
    struck = (values > 0) & (rng.random(patients.y.shape) < OWN_RISK)
    y = np.maximum(patients.y, struck).astype(np.float32)
    return FeatureMatrix(patients.columns, patients.x, y, patients.part, patients.weight)


def _last_patients(matrix: FeatureMatrix, count: int) -> FeatureMatrix:
    return FeatureMatrix(
        matrix.columns,
        matrix.x[-count:],
        matrix.y[-count:],
        matrix.part[-count:],
        None if matrix.weight is None else matrix.weight[-count:],
    )


def _with_aggregation(plan: StudyPlan, spec: AggregationSpec, *, quorum: int) -> StudyPlan:
    training = plan.training.model_copy(update={"aggregation": spec, "quorum": quorum})
    return plan.model_copy(update={"training": training})
