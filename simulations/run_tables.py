"""What happened in a run, as data frames: a row for each round and site, and one for each site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from common.protocol.arrays import Parameters
from common.study.plan import StudyPlan
from server.monitor_board.statistics.performance import auroc
from server.monitor_board.statistics.projection import project_counts
from server.round_book import Answer, Outcome
from simulations.baselines import performance_row
from simulations.exact_performance import (
    Floats,
    levels_of,
    measure,
    outcomes,
    placements,
    predict,
)
from simulations.plain_rounds import Trainee
from simulations.study_result import FederationResult
from simulations.traffic import Sizes
from site_client.features.matrix import FeatureMatrix, split

ROUND_COLUMNS = (
    "round", "phase", "site_id", "outcome", "reason", "epsilon_spent", "epsilon_remaining",
    "bytes_down", "bytes_up", "noisy_auroc",
)  # fmt: skip


def rounds_table(plan: StudyPlan, answers: Sequence[Answer], traffic: tuple[Sizes, Sizes]) -> Any:
    """Return one row for each round and site, a repeated round by its last answer.

    `noisy_auroc` is what the coordinator can compute of the site's noised counts, where it has any.
    """
    down, up = traffic
    last = {(item.round_number, str(item.site_id)): item for item in answers}
    rows = []
    for (number, site_id), item in sorted(last.items()):
        statement: Mapping[str, str] = item.detail.get("statement") or {}
        rows.append(
            {
                "round": number,
                "phase": _phase(plan, number),
                "site_id": site_id,
                "outcome": item.outcome.value,
                "reason": item.number,
                "epsilon_spent": float(statement.get("epsilon_spent", "nan")),
                "epsilon_remaining": float(statement.get("epsilon_remaining", "nan")),
                "bytes_down": down[number, site_id],
                "bytes_up": up[number, site_id],
                "noisy_auroc": _noisy_auroc(item),
            }
        )
    return pd.DataFrame(rows, columns=list(ROUND_COLUMNS))


def sites_table(
    plan: StudyPlan, result: FederationResult, sites: Sequence[Trainee]
) -> pd.DataFrame:
    """Return one row for each site: exact figures of the final model on its held-out patients.

    Columns `auroc[group=level]` are of a fairness group's level, `patients[...]` how many it has.
    """
    outcome_of = {str(item.site_id): item for item in result.sites}
    rows = []
    for site in sorted(sites, key=lambda item: item.site_id):
        trained, held_out = split(site.patients, plan)
        probabilities, y = predict(plan, result.parameters, held_out), outcomes(held_out)
        found = outcome_of[site.site_id]
        figures = performance_row(measure(probabilities, y))
        rows.append(
            {
                "site_id": site.site_id,
                "patients_trained": len(trained.y),
                "patients_held_out": figures.pop("patients"),
                "events_held_out": figures.pop("events"),
                **figures,
                "epsilon_spent": found.statement.epsilon_spent if found.statement else float("nan"),
                "refusals": len(found.refusals),
                **_groups(plan, held_out, probabilities, y),
            }
        )
    return pd.DataFrame(rows)


def groups_table(plan: StudyPlan, parameters: Parameters, sites: Sequence[Trainee]) -> pd.DataFrame:
    """Return one row for each level of each fairness group, over all sites' held-out patients."""
    whole = [split(site.patients, plan)[1] for site in sites]
    probabilities = np.concatenate([predict(plan, parameters, item) for item in whole])
    y = np.concatenate([outcomes(item) for item in whole])
    members = [levels_of(plan, item) for item in whole]
    rows = []
    for name in members[0] if members else ():
        chosen = np.concatenate([item[name] for item in members])
        rows.append({"group": name} | performance_row(measure(probabilities[chosen], y[chosen])))
    return pd.DataFrame(rows)


def calibration_table(
    plan: StudyPlan, parameters: Parameters, sites: Sequence[Trainee], *, bins: int = 10
) -> pd.DataFrame:
    """Return predicted and observed risk in so many groups of held-out patients by their score."""
    whole = [split(site.patients, plan)[1] for site in sites]
    probabilities = np.concatenate([predict(plan, parameters, item) for item in whole])
    y = np.concatenate([outcomes(item) for item in whole])
    order = np.argsort(probabilities, kind="stable")
    rows = [
        {
            "patients": len(part),
            "predicted": float(probabilities[part].mean()),
            "observed": float(y[part].mean()),
        }
        for part in np.array_split(order, bins)
        if len(part)
    ]
    return pd.DataFrame(rows, columns=["patients", "predicted", "observed"])


def _groups(
    plan: StudyPlan, held_out: FeatureMatrix, probabilities: Floats, y: Floats
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, chosen in levels_of(plan, held_out).items():
        area = placements(probabilities[chosen], y[chosen])
        found[f"patients[{name}]"] = int(chosen.sum())
        found[f"auroc[{name}]"] = float("nan") if area is None else area.value
    return found


def _phase(plan: StudyPlan, number: int) -> str:
    if number == 0:
        return "scaling"
    return "training" if number <= plan.training.rounds else "final evaluation"


def _noisy_auroc(item: Answer) -> float:
    evaluation = item.detail.get("evaluation")
    if item.outcome is not Outcome.ACCEPTED or evaluation is None:
        return float("nan")
    return float(auroc(project_counts(np.asarray(evaluation["counts"], dtype=np.float64))))
