"""Play a scenario: operation after operation, every condition after each."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from common.errors import CohortiumError, RoundFailed
from common.ids import SiteId
from common.protocol.arrays import Parameters
from common.study.plan import StudyPlan
from server.round_book import Outcome
from simulations.scenarios.changed_patients import Array64, change_prevalence, change_values
from simulations.scenarios.conditions import CONDITIONS, Condition
from simulations.scenarios.hospitals import hospitals_of
from simulations.scenarios.hostile_training import HostileTraining
from simulations.scenarios.operations import (
    COORDINATOR,
    Clock,
    Drift,
    Operation,
    Poison,
    Prevalence,
    Restart,
    Round,
    UnitChange,
    in_words,
)
from simulations.scenarios.scenario import Expectations, Scenario
from simulations.scenarios.scoring import auroc_of, backdoor_success, newest_model
from simulations.scenarios.stage import Stage, open_stage
from simulations.virtual_site import VirtualSite
from site_client.training.dp_sgd_engine import DpSgdEngine


@dataclass(frozen=True)
class Breach:
    """One condition that did not hold.

    Args:
        condition: its name.
        says: what should have been so.
        found: what was so instead.
    """

    condition: str
    says: str
    found: str


@dataclass(frozen=True)
class Step:
    """One operation and what it led to.

    Args:
        number: of the operation, from 1; the last is the end of the study.
        operation: in words.
        events: what happened, in words.
        breaches: conditions that did not hold afterwards.
    """

    number: int
    operation: str
    events: tuple[str, ...]
    breaches: tuple[Breach, ...]


@dataclass(frozen=True)
class ScenarioResult:
    """What playing a scenario gave.

    Args:
        title: of the scenario.
        seed: of population, noise and sampling.
        steps: every operation, and the end.
        state: of the study at the end.
        auroc: of the newest model on all held-out patients as they were at first; None without one.
        auroc_by_site: the same at each site.
        backdoor: share of low-risk patients whom the trigger turns to high risk; None without a
            model.
    """

    title: str
    seed: int
    steps: tuple[Step, ...]
    state: str
    auroc: float | None
    auroc_by_site: dict[str, float | None]
    backdoor: float | None

    @property
    def breaches(self) -> tuple[tuple[Step, Breach], ...]:
        """Every condition that did not hold, with its step."""
        return tuple((step, breach) for step in self.steps for breach in step.breaches)


def play(
    scenario: Scenario,
    plan: StudyPlan,
    *,
    seed: int = 1,
    folder: Path | None = None,
    conditions: Sequence[Condition] = CONDITIONS,
    progress: Callable[[Step], None] = lambda step: None,
) -> ScenarioResult:
    """Return what a scenario led to; it stops at the first operation that breaks a condition.

    Args:
        scenario: checked with `check_scenario`.
        plan: of the study.
        seed: of population, noise and sampling.
        folder: empty, for all files; a temporary one when None.
        conditions: checked after every operation.
        progress: is told each step.
    """
    hospitals = hospitals_of(plan, scenario.patients, seed=seed)
    rng = np.random.default_rng([seed, 1])
    steps: list[Step] = []
    with contextlib.ExitStack() as stack:
        if folder is None:
            made = tempfile.TemporaryDirectory(prefix="cohortium-scenario-")
            folder = Path(stack.enter_context(made))
        stage = stack.enter_context(open_stage(plan, hospitals, folder, seed=seed))
        for operation in (*scenario.operations, None):
            step = _step(stage, len(steps) + 1, operation, conditions, rng)
            steps.append(step)
            progress(step)
            if step.breaches:
                break
        return _result(scenario, plan, stage, hospitals, steps, seed)


def _step(
    stage: Stage,
    number: int,
    operation: Operation | None,
    conditions: Sequence[Condition],
    rng: np.random.Generator,
) -> Step:
    stage.begin_operation()
    said = _do(stage, operation, rng)
    return Step(
        number,
        "end: the rounds that are left" if operation is None else in_words(operation),
        (*_events(stage), *said),
        tuple(breach for condition in conditions for breach in _breaches(condition, stage)),
    )


def _breaches(condition: Condition, stage: Stage) -> Iterator[Breach]:
    try:
        for found in condition.breaches(stage):
            yield Breach(condition.name, condition.says, found)
    except CohortiumError as error:  # records that cannot even be read keep no condition
        yield Breach(condition.name, condition.says, f"{error.refused} ({error.arrived})")


def _do(stage: Stage, operation: Operation | None, rng: np.random.Generator) -> tuple[str, ...]:
    """Do one operation; return what is to be said of it besides the answers."""
    match operation:
        case None:
            return _run(stage, None)
        case Round():
            return _run(stage, operation.count)
        case Restart() | Clock():
            _act_on_machine(stage, operation)
        case Poison():
            lie = operation.how
            stage.sites[SiteId(operation.site)].change_training(
                DpSgdEngine if lie == "honest" else HostileTraining(lie, operation.strength)
            )
        case Drift() | UnitChange() | Prevalence():
            _change_patients(stage, operation, rng)
        case _:
            stage.channel.armed.append(operation)
    return ()


def _run(stage: Stage, rounds_max: int | None) -> tuple[str, ...]:
    if stage.is_finished:
        return ("the study has finished",)
    try:
        stage.run(rounds_max=rounds_max)
        if stage.died and rounds_max is None:
            stage.run(rounds_max=None)
            return ("the coordinator died and came back",)
    except RoundFailed as error:
        return (f"the study failed: {error.arrived}",)
    return ("the coordinator died",) if stage.died else ()


def _act_on_machine(stage: Stage, operation: Restart | Clock) -> None:
    if isinstance(operation, Clock):
        clock = stage.clock if operation.who == COORDINATOR else None
        clock = clock or stage.sites[SiteId(operation.who)].clock
        clock.seconds = max(0, clock.seconds + operation.seconds)
    elif operation.who != COORDINATOR:  # the coordinator is opened anew for every operation
        stage.sites[SiteId(operation.who)].restart()


def _change_patients(
    stage: Stage, operation: Drift | UnitChange | Prevalence, rng: np.random.Generator
) -> None:
    site = stage.sites[SiteId(operation.site)]
    if isinstance(operation, Prevalence):
        site.change_patients(change_prevalence(site.matrix, operation.share, rng))
        return
    change: Callable[[Array64], Array64] = (
        partial(np.add, operation.by)
        if isinstance(operation, Drift)
        else partial(np.multiply, operation.factor)
    )
    site.change_patients(change_values(site.matrix, stage.plan, operation.feature, change))


def _events(stage: Stage) -> list[str]:
    """Return the answers of the last operation, one line for each asking of all sites."""
    rows = iter(stage.new_answers())
    words = {Outcome.ACCEPTED: "accepted", Outcome.MISSING: "missing"}
    found: list[str] = []
    for asking in stage.witness.askings[stage.askings_before :]:
        answers = itertools.islice(rows, len(asking.deliveries))
        told = [f"{item.site_id} {words.get(item.outcome, item.number)}" for item in answers]
        found.append(f"round {asking.round_number}: {', '.join(told)}")
    return found


def _result(
    scenario: Scenario,
    plan: StudyPlan,
    stage: Stage,
    hospitals: Sequence[VirtualSite],
    steps: list[Step],
    seed: int,
) -> ScenarioResult:
    model: Parameters | None = newest_model(stage.books, stage.study_id, plan)
    result = ScenarioResult(
        title=scenario.title,
        seed=seed,
        steps=tuple(steps),
        state=stage.books.register.find(stage.study_id).state.value,
        auroc=None if model is None else auroc_of(plan, model, hospitals),
        auroc_by_site={
            site.site_id: None if model is None else auroc_of(plan, model, [site])
            for site in hospitals
        },
        backdoor=None if model is None else backdoor_success(plan, model, hospitals),
    )
    if result.breaches:
        return result
    unmet = tuple(_unmet(scenario.expect, result))
    last = steps[-1]
    steps[-1] = Step(last.number, last.operation, last.events, unmet)
    return ScenarioResult(**{**result.__dict__, "steps": tuple(steps)})


def _unmet(expect: Expectations, result: ScenarioResult) -> list[Breach]:
    found: list[Breach] = []
    if expect.state is not None and result.state != expect.state:
        found.append(Breach("expected state", f"the study is {expect.state}", result.state))
    if expect.auroc_min is not None and (result.auroc or 0.0) < expect.auroc_min:
        says = f"AUROC at least {expect.auroc_min}"
        found.append(Breach("expected AUROC", says, f"{result.auroc or 0.0:.3f}"))
    if expect.backdoor_max is not None and (result.backdoor or 0.0) > expect.backdoor_max:
        says = f"the trigger turns at most {expect.backdoor_max:.0%}"
        found.append(Breach("expected backdoor", says, f"{result.backdoor or 0.0:.0%}"))
    return found
