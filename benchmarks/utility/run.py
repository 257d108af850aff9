"""Run a question's plans through the federated path and its comparators, over seeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.utility.questions import INFINITY, Question, Scored
from common.protocol.arrays import Parameters
from common.study.plan import StudyPlan
from simulations.federation import run_in_memory
from simulations.randomness import noiseless, reproducible
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix, split
from site_client.training.evaluation import score

Way = Callable[[StudyPlan, Sequence[VirtualSite]], Scored]


@dataclass(frozen=True)
class Outcome:
    """One way's figures, one for each seed, and the mean of each site's figure.

    Args:
        epsilon_spent: the most that a site's ledger states; None where nothing was noised.
    """

    way: str
    figures: tuple[float, ...]
    sites: dict[str, float]
    target: float | None = None
    epsilon_spent: float | None = None

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.figures))

    @property
    def spread(self) -> float:
        """Sample standard deviation over seeds."""
        return float(np.std(self.figures, ddof=1)) if len(self.figures) > 1 else 0.0


def data_folder() -> Path:
    """Return the folder of the data sets; ends the program when it is not there."""
    folder = Path(os.environ.get("COHORTIUM_DATA", "../shared/data")).resolve()
    if not (folder / "stroke_ist" / "IST.csv.gz").is_file():
        raise SystemExit(f"no data sets in {folder}: set COHORTIUM_DATA")
    return folder


def run_federated(question: Question, epsilon: float, seeds: Sequence[int]) -> Outcome:
    """Return the figures of the plan's own federated path: real sites, real coordinator."""
    plan = question.plan(question.choices[epsilon], epsilon)
    scored: list[Scored] = []
    spent: list[float] = []
    for seed in seeds:
        sites = question.sites(plan, seed)
        is_exact = epsilon == INFINITY
        randomness = noiseless(seed) if is_exact else reproducible(seed)
        result = run_in_memory(plan, sites, randomness=randomness)
        spent += [item.statement.epsilon_spent for item in result.sites if item.statement]
        scored.append(_scored(plan, sites, _scorer(plan, result.parameters)))
    return _outcome(
        question,
        f"federated, epsilon {epsilon:g}",
        scored,
        target=question.targets.get(epsilon),
        epsilon_spent=None if epsilon == INFINITY else max(spent),
    )


def _scorer(
    plan: StudyPlan, parameters: Parameters
) -> Callable[[np.ndarray, FeatureMatrix], np.ndarray]:
    return lambda x, trained: score(plan, parameters, x)


def run_comparator(question: Question, name: str, way: Way, seeds: Sequence[int]) -> Outcome:
    """Return the figures of another way on the same patients, features and splits."""
    plan = question.plan(question.choices[INFINITY], INFINITY)
    return _outcome(question, name, [way(plan, question.sites(plan, seed)) for seed in seeds])


def alone(plan: StudyPlan, sites: Sequence[VirtualSite]) -> Scored:
    """Score with one model a site, without privacy: logistic regression, L2 with C = 1."""
    return _alone(plan, sites, LogisticRegression(max_iter=1000))


def alone_tuned(plan: StudyPlan, sites: Sequence[VirtualSite]) -> Scored:
    """Score with one model a site, without privacy, L2 by cross-validation at the site."""
    tuned = LogisticRegressionCV(
        Cs=np.logspace(-4, 0, 9).tolist(),
        cv=3,
        scoring="neg_log_loss",
        max_iter=1000,
        l1_ratios=(0.0,),
        use_legacy_attributes=False,
    )
    return _alone(plan, sites, tuned)


def pooled(plan: StudyPlan, sites: Sequence[VirtualSite]) -> Scored:
    """Score with one model of all training patients in one place, without privacy (C = 1)."""
    trained = [split(site.matrix(plan), plan)[0] for site in sites]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(np.concatenate([item.x for item in trained]), np.concatenate([i.y for i in trained]))
    return _scored(plan, sites, lambda x, _: model.predict_proba(x)[:, 1])


def _alone(plan: StudyPlan, sites: Sequence[VirtualSite], regression: LogisticRegression) -> Scored:
    model = make_pipeline(StandardScaler(), regression)

    def predict(x: np.ndarray, trained: FeatureMatrix) -> np.ndarray:
        counts = np.bincount(trained.y.astype(int), minlength=2)
        if counts.min() < 3:  # nothing to learn from: every patient gets the site's rate
            return np.full(len(x), float(trained.y.mean()))
        model.fit(trained.x, trained.y)
        return np.asarray(model.predict_proba(x)[:, 1])

    return _scored(plan, sites, predict)


def _scored(
    plan: StudyPlan,
    sites: Sequence[VirtualSite],
    predict: Callable[[np.ndarray, FeatureMatrix], np.ndarray],
) -> Scored:
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for site in sites:
        trained, held_out = split(site.matrix(plan), plan)
        if len(held_out.y):
            found[site.site_id] = (held_out.y, predict(held_out.x, trained))
    return found


def _outcome(
    question: Question,
    way: str,
    scored: Sequence[Scored],
    *,
    target: float | None = None,
    epsilon_spent: float | None = None,
) -> Outcome:
    of_sites: dict[str, list[float]] = {}
    for found in scored:
        for site_id, (y, probability) in found.items():
            value = question.site_figure(y, probability)
            if value is not None:
                of_sites.setdefault(site_id, []).append(value)
    return Outcome(
        way=way,
        figures=tuple(question.figure(found) for found in scored),
        sites={site_id: float(np.mean(values)) for site_id, values in of_sites.items()},
        target=target,
        epsilon_spent=epsilon_spent,
    )
