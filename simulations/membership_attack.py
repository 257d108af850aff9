"""A membership-inference attack on a plan's own studies, beside the epsilon that they promise.

Shadow studies run through the real coordinator and the real sites, on generated patients. In each,
every target patient of one hospital is in or out by a fair coin. The attacker has the final model,
knows the targets and their outcomes, and has shadow models of his own: as strong as an attacker
without the rounds in between can be. It bounds leakage from below: that it fails proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.privacy.calibration import plan_mechanisms
from common.protocol.arrays import Parameters
from common.study.plan import StudyPlan
from common.study.scaling import split_model
from simulations.attack_scores import RateAt, likelihood_ratios, rate_at
from simulations.audit.one_run import OneRunResult, audit_guesses
from simulations.auroc import auroc
from simulations.engine import EngineSettings, run_study
from simulations.randomness import RandomnessKind
from simulations.scenarios.hospitals import hospitals_of
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix
from site_client.features.scaled import scale
from site_client.training.evaluation import score

Array64 = npt.NDArray[np.float64]
RATES: Final = (0.001, 0.01, 0.1)
LIMIT: Final = (
    "An attack bounds leakage from below. One that finds more members than the promise allows "
    "proves a fault; one that finds few proves nothing: another attack may find more. The promise "
    "rests on the mechanism and its accounting."
)
_CONFIDENCE_MIN: Final = 1e-12


@dataclass(frozen=True)
class AttackSize:
    """How much is simulated.

    Args:
        studies: shadow studies and test studies together; the first half are shadows.
        targets: patients of the attacked hospital who are in or out by a coin.
        patients: other patients of that hospital, who are always in.
        sites: hospitals; None: as many as the plan's quorum.
    """

    studies: int = 32
    targets: int = 100
    patients: int = 100
    sites: int | None = None


@dataclass(frozen=True)
class AttackResult:
    """How well one kind of study hides who was in it.

    Args:
        name: which studies.
        epsilon, delta: promised; an infinite epsilon is no promise.
        guesses: pairs of a test study and a target.
        auc: probability that a member scores above a non-member; one half is no leak.
        rates: members found at low false positive rates.
        one_run: the lower bound on epsilon that holds although guesses on one model depend on each
            other (Steinke et al. 2023).
    """

    name: str
    epsilon: float
    delta: float
    guesses: int
    auc: float
    rates: tuple[RateAt, ...]
    one_run: OneRunResult

    @property
    def is_within_promise(self) -> bool:
        """Whether nothing was found that the promise rules out."""
        return self.one_run.epsilon_min <= self.epsilon and all(
            rate.low <= rate.bound for rate in self.rates
        )


def attack_plan(
    plan: StudyPlan,
    size: AttackSize,
    *,
    seed: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[AttackResult, AttackResult]:
    """Return the attack on a plan's studies, and on the same studies without noise.

    Args:
        plan: attacked.
        size: how much is simulated.
        seed: of patients, coins, noise and sampling.
        progress: is told how many of all studies are done.

    Raises:
        ConfigError: when the size is too small to tell anything.
    """
    _check(plan, size)
    kinds: tuple[RandomnessKind, RandomnessKind] = ("reproducible", "noiseless")
    total, found = 2 * size.studies, []
    for place, kind in enumerate(kinds):
        begun = place * size.studies
        found.append(
            attack_studies(
                plan,
                size,
                seed=seed,
                randomness=kind,
                progress=lambda done, begun=begun: progress(begun + done, total),  # type: ignore[misc]
            )
        )
    return found[0], found[1]


def attack_studies(
    plan: StudyPlan,
    size: AttackSize,
    *,
    seed: int,
    randomness: RandomnessKind,
    progress: Callable[[int], None] = lambda done: None,
) -> AttackResult:
    """Return the attack on studies of one kind.

    Args:
        plan, size, seed: as in `attack_plan`.
        randomness: "noiseless" has no promise.
        progress: is told how many studies are done.
    """
    _check(plan, size)
    rng = np.random.default_rng([seed, size.studies, size.targets])
    sites = size.sites or max(2, plan.training.quorum)
    everyone = size.targets + size.patients
    hospitals = hospitals_of(plan, [everyone] * sites, seed=seed)
    attacked = _all_train(hospitals[0].matrix(plan), plan)
    targets = _rows(attacked, np.arange(size.targets))
    is_in = rng.random((size.studies, size.targets)) < 0.5
    confidence = np.empty((size.studies, size.targets))
    for number in range(size.studies):
        present = np.append(is_in[number], np.ones(size.patients, dtype=np.bool_))
        members = replace(hospitals[0], patients=_rows(attacked, np.flatnonzero(present)))
        model = _final_model(plan, [members, *hospitals[1:]], seed + number, randomness)
        confidence[number] = logit_of_outcome(plan, model, targets)
        progress(number + 1)
    half = size.studies // 2
    scores = likelihood_ratios(confidence[:half], is_in[:half], confidence[half:]).ravel()
    truth = is_in[half:].ravel()
    epsilon = plan.privacy.epsilon if randomness == "reproducible" else math.inf
    delta = plan.privacy.delta
    return AttackResult(
        name="as planned" if randomness == "reproducible" else "without noise",
        epsilon=epsilon,
        delta=delta,
        guesses=len(truth),
        auc=auroc(truth, scores),
        rates=tuple(rate_at(scores, truth, rate, epsilon=epsilon, delta=delta) for rate in RATES),
        one_run=audit_guesses(scores, truth, delta=delta),
    )


def logit_of_outcome(plan: StudyPlan, model: Parameters, patients: FeatureMatrix) -> Array64:
    """Return the logit of a model's confidence in each patient's own outcome (Carlini, eq. 6).

    Args:
        plan: of the study.
        model: with its scaling if it has one.
        patients: whose outcomes the attacker knows.
    """
    trained, scaling = split_model(model)
    first = scale(patients, plan, scaling).first_samples()
    risk = np.asarray(score(plan, trained, first.x), dtype=np.float64)
    own = np.where(first.y == 1, risk, 1 - risk)
    own = np.clip(own, _CONFIDENCE_MIN, 1 - _CONFIDENCE_MIN)
    return np.asarray(np.log(own) - np.log1p(-own), dtype=np.float64)


def attack_record(results: Sequence[AttackResult]) -> dict[str, Any]:
    """Return results for JSON; no promise is null."""
    return {
        "limit": LIMIT,
        "attacks": [
            asdict(result)
            | {
                "epsilon": None if math.isinf(result.epsilon) else result.epsilon,
                "is_within_promise": result.is_within_promise,
            }
            for result in results
        ],
    }


def _final_model(
    plan: StudyPlan, sites: Sequence[VirtualSite], seed: int, randomness: RandomnessKind
) -> Parameters:
    settings = EngineSettings(workers=1)
    return run_study(plan, sites, seed=seed, randomness=randomness, settings=settings).parameters


def _all_train(patients: FeatureMatrix, plan: StudyPlan) -> FeatureMatrix:
    """Return patients all of whom are in the part that trains."""
    part = plan_mechanisms(plan).train_per_round.part
    training = np.full(len(patients.part), part.first, dtype=np.int64)
    return replace(patients, part=training)


def _rows(patients: FeatureMatrix, rows: npt.NDArray[np.int64]) -> FeatureMatrix:
    return FeatureMatrix(
        patients.columns,
        patients.x[rows],
        patients.y[rows],
        patients.part[rows],
        None if patients.weight is None else patients.weight[rows],
    )


def _check(plan: StudyPlan, size: AttackSize) -> None:
    if size.sites is not None and size.sites < plan.training.quorum:
        raise ConfigError(
            "the study cannot be attacked with these hospitals",
            expected=f"{plan.training.quorum} hospitals or more, the plan's quorum",
            arrived=str(size.sites),
            todo="raise --sites or lower training.quorum",
        )
    if size.studies < 4 or size.targets < 10 or size.patients < 20:
        raise ConfigError(
            "the attack is too small to tell anything",
            expected="4 studies, 10 targets and 20 other patients, or more",
            arrived=f"{size.studies}, {size.targets} and {size.patients}",
            todo="raise --studies, --targets or --patients",
        )
