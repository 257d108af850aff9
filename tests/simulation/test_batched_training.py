"""Sites that train together get what each would get alone, whoever sits beside them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import InternalError
from common.privacy.calibration import plan_mechanisms
from common.protocol.arrays import Parameters
from common.study.columns import feature_columns, parameter_shapes
from common.study.plan import StudyPlan
from simulations.batched import local_round, stacked_rounds
from simulations.batched.local_round import pays
from simulations.batched.training_table import TrainingSeat, TrainingTable
from simulations.engine import EngineSettings, run_study
from simulations.virtual_site import VirtualSite
from simulations.wide_limits import WIDE_LIMITS
from site_client.features.matrix import FeatureMatrix
from site_client.training.dp_sgd_engine import DpSgdEngine
from site_client.training.engine import TrainedUpdate, TrainingTask
from site_client.training.randomness import Randomness
from tests.lib.plans import make_plan

ROOT = Path(__file__).parents[2]
SIZES = (40, 300, 77, 1100, 1)
MODELS: dict[str, dict[str, Any]] = {
    "logistic_regression": {"kind": "logistic_regression"},
    "mlp": {"kind": "mlp", "hidden": [16, 8]},
    "residual_mlp": {"kind": "residual_mlp", "width": 8, "blocks": 2},
}
# Adam's correction divides by a difference that can be all rounding: a floor above it is compared.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"training__optimizer": {"kind": "sgd", "learning_rate": 0.3}},
    "momentum, decay, proximal term, class weight": {
        "training__optimizer": {
            "kind": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "weight_decay": 0.01,
        },
        "training__proximal_term": 0.3,
        "training__positive_class_weight": 3.0,
    },
    "adam": {
        "training__optimizer": {"kind": "adam", "learning_rate": 0.01, "stability": 1.0},
    },
    "normalized": {"privacy__clipping": "normalized"},
    "mostly empty draws": {"training__sampling_probability": 0.002},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in a simulation."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _plan(model: str, optimizer: str = "sgd") -> StudyPlan:
    options = {
        "training__local_steps": 5,
        "training__update_norm_max": 1e4,
        **OPTIMIZERS[optimizer],
    }
    return make_plan(model=MODELS[model], **options)


def _patients(plan: StudyPlan, count: int) -> FeatureMatrix:
    rng = np.random.default_rng(count)
    columns = feature_columns(plan)
    return FeatureMatrix(
        columns,
        rng.uniform(-1, 1, (count, len(columns))).astype(np.float32),
        (rng.random(count) < 0.5).astype(np.float32),
        rng.integers(0, 1 << 20, count),
    )


def _base(plan: StudyPlan, seed: int = 0) -> Parameters:
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(plan).items()
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes}


def _task(plan: StudyPlan, patients: int) -> TrainingTask:
    return TrainingTask(plan, plan_mechanisms(plan).train_per_round, max(20, patients))


def _together(
    table: TrainingTable,
    seats: list[TrainingSeat],
    plan: StudyPlan,
    base: Parameters,
    round_number: int,
    *,
    at_once: int = 32,
) -> list[TrainedUpdate]:
    answers = {
        place: partial(
            seat.train,
            _patients(plan, count),
            base,
            _task(plan, count),
            Randomness.reproducible(100 * round_number + place),
        )
        for place, (seat, count) in enumerate(zip(seats, SIZES, strict=True))
    }
    return [update for _, update in table.answer_together(answers, at_once=at_once)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_three_rounds_of_unequal_sites_equal_the_single_engine(model: str, optimizer: str) -> None:
    plan = _plan(model, optimizer)
    singles = [DpSgdEngine() for _ in SIZES]
    table = TrainingTable()
    seats = [table.seat() for _ in SIZES]
    base = _base(plan)
    for round_number in range(3):
        alone = [
            engine.train(
                _patients(plan, count),
                base,
                _task(plan, count),
                Randomness.reproducible(100 * round_number + place),
            )
            for place, (engine, count) in enumerate(zip(singles, SIZES, strict=True))
        ]
        together = _together(table, seats, plan, base, round_number)
        for one, other in zip(alone, together, strict=True):
            assert one.mechanism == other.mechanism
            assert list(one.update) == list(other.update)
            for name in one.update:
                np.testing.assert_allclose(other.update[name], one.update[name], rtol=0, atol=1e-6)
        base = {name: base[name] + alone[1].update[name] for name in base}


@pytest.mark.parametrize("model", MODELS)
def test_a_sites_update_is_the_same_to_the_last_bit_in_any_group(model: str) -> None:
    plan = _plan(model, "momentum, decay, proximal term, class weight")
    found = []
    for at_once in (1, 2, 3, 32):
        table = TrainingTable()
        seats = [table.seat() for _ in SIZES]
        rounds = [
            _together(table, seats, plan, _base(plan, seed), seed, at_once=at_once)
            for seed in range(2)
        ]
        found.append([a.tobytes() for r in rounds for item in r for a in item.update.values()])
    assert all(other == found[0] for other in found[1:])


def test_a_round_made_again_begins_where_it_first_began() -> None:
    plan = _plan("mlp", "momentum, decay, proximal term, class weight")
    table = TrainingTable()
    seats = [table.seat() for _ in SIZES]
    _together(table, seats, plan, _base(plan), 0)
    first = _together(table, seats, plan, _base(plan, 1), 1)
    again = _together(table, seats, plan, _base(plan, 1), 1)
    for one, other in zip(first, again, strict=True):
        for name in one.update:
            np.testing.assert_array_equal(one.update[name], other.update[name])


def test_a_patient_whose_gradient_is_not_finite_has_no_share_and_the_others_keep_theirs() -> None:
    plan = _plan("mlp")
    base = {name: np.full_like(array, 1e20) for name, array in _base(plan).items()}
    table = TrainingTable()
    seats = [table.seat() for _ in SIZES]
    for item in _together(table, seats, plan, base, 0):
        assert all(np.isfinite(array).all() for array in item.update.values())


def test_a_site_that_refuses_or_fails_lets_the_others_train() -> None:
    plan = _plan("mlp")
    table = TrainingTable()
    seats = [table.seat() for _ in range(2)]
    trains: list[Callable[[], object]] = [
        partial(
            seat.train,
            _patients(plan, 77),
            _base(plan),
            _task(plan, 77),
            Randomness.reproducible(place),
        )
        for place, seat in enumerate(seats)
    ]
    answers = {"a": trains[0], "refuses": lambda: "R11", "b": trains[1]}
    replies = dict(table.answer_together(answers))
    assert replies["refuses"] == "R11"
    assert isinstance(replies["a"], TrainedUpdate)
    assert isinstance(replies["b"], TrainedUpdate)

    def fails() -> object:
        raise InternalError("no", expected="a", arrived="b", todo="c")

    told = table.answer_together({"a": trains[0], "fails": fails, "b": trains[1]})
    assert next(told)[0] == "a"
    with pytest.raises(InternalError):
        next(told)


def test_a_failure_of_the_joint_program_is_each_sites_own_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no memory")

    monkeypatch.setattr(stacked_rounds, "StackedModel", fails)
    plan = _plan("mlp")
    table = TrainingTable()
    seat = table.seat()
    raised = []

    def answer() -> str:
        try:
            seat.train(
                _patients(plan, 77), _base(plan), _task(plan, 77), Randomness.reproducible(0)
            )
        except ValueError as error:
            raised.append(str(error))
        return "R99"

    assert dict(table.answer_together({"a": answer})) == {"a": "R99"}
    assert raised == ["no memory"]


def test_a_caller_that_goes_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simulations.batched.training_table.train_rounds", interrupted)
    plan = _plan("mlp")
    table = TrainingTable()
    ended = []

    def answer(seat: TrainingSeat) -> None:
        try:
            seat.train(
                _patients(plan, 77), _base(plan), _task(plan, 77), Randomness.reproducible(0)
            )
        finally:
            ended.append(True)

    answers = {place: partial(answer, table.seat()) for place in range(3)}
    with pytest.raises(KeyboardInterrupt):
        list(table.answer_together(answers))
    assert ended == [True] * 3


def test_what_would_gain_nothing_is_trained_by_the_single_engine() -> None:
    gru = make_plan(
        model={"kind": "gru", "width": 3},
        features__1__time_bins=2,
        features__1__missing="indicator",
    )
    assert not pays(_patients(gru, 40), _task(gru, 40))
    mlp = _plan("mlp")
    assert pays(_patients(mlp, 400), _task(mlp, 400))
    assert not pays(_patients(mlp, 4000), _task(mlp, 4000))
    table, single = TrainingTable(), DpSgdEngine()
    seat = table.seat()
    for seed in range(2):
        patients, task = _patients(mlp, 4000), _task(mlp, 4000)
        one = single.train(patients, _base(mlp, seed), task, Randomness.reproducible(seed))
        other = seat.train(patients, _base(mlp, seed), task, Randomness.reproducible(seed))
        for name in one.update:
            np.testing.assert_array_equal(one.update[name], other.update[name])


def test_a_whole_study_is_the_same_batched_and_site_by_site_also_when_one_refuses(
    tmp_path: Path,
) -> None:
    plan = _plan("mlp")
    poor = WIDE_LIMITS.model_copy(update={"epsilon_per_study": 0.1})
    sites = [
        VirtualSite(f"s{place}", count, _patients(plan, count), limits=limits)
        for place, (count, limits) in enumerate(
            ((200, WIDE_LIMITS), (90, poor), (400, WIDE_LIMITS), (150, WIDE_LIMITS))
        )
    ]
    results = [
        run_study(
            plan,
            sites,
            folder=tmp_path / str(batched),
            settings=EngineSettings(workers=1, batched=batched),
        )
        for batched in (True, False)
    ]
    assert [site.refusals[0][1] for site in results[0].sites if site.refusals] == ["R11"]
    assert [site.refusals for site in results[0].sites] == [
        site.refusals for site in results[1].sites
    ]
    for name in results[0].parameters:
        np.testing.assert_allclose(
            results[0].parameters[name], results[1].parameters[name], rtol=0, atol=1e-6
        )


def test_few_row_counts_are_used_so_that_sites_of_about_one_size_meet() -> None:
    counts = {local_round._rows_at_once(slots, 1 / 12) for slots in range(1, 3000)}
    assert len(counts) <= 14
    assert max(counts) <= 320


@pytest.mark.slow
def test_a_batched_study_loads_neither_opacus_nor_scikit_learn_nor_torchs_compiler() -> None:
    program = """
import sys
from tests.simulation.test_batched_training import MODELS, _patients, _plan
from simulations.engine import EngineSettings, run_study
from simulations.virtual_site import VirtualSite
for name in [name for name in sys.modules if name.split(".")[0] in ("opacus", "sklearn")]:
    raise SystemExit(f"loaded before: {name}")
plan = _plan("mlp")
sites = [VirtualSite(f"s{count}", count, _patients(plan, count)) for count in (150, 200)]
run_study(plan, sites, settings=EngineSettings(workers=1))
print(sorted({"opacus", "sklearn", "torch._dynamo"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout.strip() == "[]", done.stderr
