"""Each numbered check of the gate: what passes, and what is refused with exactly its number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common import limits
from common.errors import ReleaseRefused
from common.ids import parse_digest
from common.privacy.calibration import plan_mechanisms
from common.privacy.mechanism import DiscreteGaussianCounts
from common.protocol.arrays import Parameters
from common.protocol.messages import EvaluationCounts, TaskKind
from common.study.columns import parameter_shapes
from common.study.plan_file import read_plan
from site_client.release import checks
from site_client.release.checks import Asked, Produced
from tests.lib.sites_in_process import PLAN

BASE = parse_digest("ab" * 32)
STUDY = read_plan(PLAN)
PLANNED = plan_mechanisms(STUDY)
BINS = STUDY.evaluation.score_bins
TRAIN = Asked(STUDY, TaskKind.TRAIN, False, BASE, (PLANNED.train_per_round,))
EVALUATE = Asked(STUDY, TaskKind.EVALUATE, True, BASE, (PLANNED.evaluation_per_release,))
COUNTS = EvaluationCounts(BASE, ((0,) * BINS, (0,) * BINS), PLANNED.evaluation_per_release)


def _update(value: float = 0.0) -> Parameters:
    shapes = parameter_shapes(STUDY)
    return {name: np.full(shape, value, np.float32) for name, shape in shapes.items()}


def _trained(**changes: Any) -> Produced:
    made = Produced(_update(), None, TRAIN.mechanisms, is_reproducible=False)
    return replace(made, **changes)


def _evaluated(**changes: Any) -> Produced:
    made = Produced(None, COUNTS, EVALUATE.mechanisms, is_reproducible=False)
    return replace(made, **changes)


def _number(check: Callable[[], Any]) -> str:
    with pytest.raises(ReleaseRefused) as caught:
        check()
    return caught.value.number


def _check(produced: Produced, asked: Asked, *, is_real_ledger: bool = True) -> None:
    checks.check_produced(produced, asked, is_real_ledger=is_real_ledger)


def test_honest_training_and_an_honest_evaluation_pass() -> None:
    _check(_trained(), TRAIN)
    _check(_evaluated(), EVALUATE)


def test_g1_reproducible_randomness_passes_only_without_a_real_ledger() -> None:
    produced = _trained(is_reproducible=True)
    _check(produced, TRAIN, is_real_ledger=False)
    assert _number(lambda: _check(produced, TRAIN)) == "G1"


@pytest.mark.parametrize("done", [(), EVALUATE.mechanisms, TRAIN.mechanisms * 2])
def test_g2_noise_other_than_the_charged_is_refused(done: tuple[Any, ...]) -> None:
    assert _number(lambda: _check(_trained(mechanisms=done), TRAIN)) == "G2"


def test_g3_other_names_shapes_or_types_are_refused() -> None:
    honest = _update()
    name = next(iter(honest))
    for update in (
        None,
        {},
        {**honest, "more": np.zeros(1, np.float32)},
        {key: value for key, value in honest.items() if key != name},
        {**honest, name: honest[name].astype(np.float64)},
        {**honest, name: honest[name].reshape(-1, 1, 1)},
    ):
        produced = _trained(update=update)
        assert _number(lambda produced=produced: _check(produced, TRAIN)) == "G3"
    assert _number(lambda: _check(_evaluated(update=honest), EVALUATE)) == "G3"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_g4_a_number_that_is_not_finite_is_refused(value: float) -> None:
    assert _number(lambda: _check(_trained(update=_update(value)), TRAIN)) == "G4"


def test_g5_a_norm_above_the_plans_bound_is_refused_and_the_bound_passes() -> None:
    size = sum(array.size for array in _update().values())
    bound = STUDY.training.update_norm_max / size**0.5
    _check(_trained(update=_update(bound)), TRAIN)
    assert _number(lambda: _check(_trained(update=_update(bound * 1.01)), TRAIN)) == "G5"


def test_g6_an_evaluation_comes_exactly_when_asked_for_and_fits_the_plan() -> None:
    assert _number(lambda: _check(_evaluated(evaluation=None), EVALUATE)) == "G6"
    assert _number(lambda: _check(_trained(evaluation=COUNTS), TRAIN)) == "G6"
    for wrong in (
        replace(COUNTS, model_version=parse_digest("cd" * 32)),
        replace(COUNTS, counts=((0,) * BINS,)),
        replace(COUNTS, counts=((0,) * BINS, (0,) * (BINS - 1))),
        replace(COUNTS, counts=((0,) * BINS, (0.5,) * BINS)),
        replace(COUNTS, counts=((0,) * BINS, (True,) * BINS)),
    ):
        produced = _evaluated(evaluation=wrong)
        assert _number(lambda produced=produced: _check(produced, EVALUATE)) == "G6"


def test_g7_a_payload_above_its_bound_is_refused_and_the_bound_passes() -> None:
    checks.check_size(bytes(limits.PARAMETERS_BYTES_MAX))
    too_long = bytes(limits.PARAMETERS_BYTES_MAX + 1)
    assert _number(lambda: checks.check_size(too_long)) == "G7"


def test_g8_counts_come_exactly_when_asked_for_one_for_each_cell() -> None:
    mechanism = DiscreteGaussianCounts(3.0, 2)
    asked = Asked(STUDY, TaskKind.COUNT, False, BASE, (mechanism,), cells=3)
    counted = Produced(None, None, (mechanism,), is_reproducible=False, counts=(4, -1, 0))
    _check(counted, asked)
    for counts in (None, (), (4, -1), (4, -1, 0, 2), (4, -1, 0.5), (4, -1, True), (4, -1, 2**31)):
        wrong = replace(counted, counts=counts)
        assert _number(lambda wrong=wrong: _check(wrong, asked)) == "G8"
    assert _number(lambda: _check(_trained(counts=(1,)), TRAIN)) == "G8"
    assert _number(lambda: _check(replace(counted, update=_update()), asked)) == "G3"
