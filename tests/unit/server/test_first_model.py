"""The model of round 1: the plan's own start, or a registered version of the same shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import RegistryError
from common.protocol.arrays import decode_parameters
from common.study.columns import initial_parameters, parameter_shapes
from common.study.plan import StudyPlan
from server.registry.first_model import first_model
from tests.lib.memory_channel import Consortium, make_consortium
from tests.lib.plans import make_plan


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    consortium = make_consortium(tmp_path_factory.mktemp("finished"))
    consortium.run()
    return consortium


def _first(consortium: Consortium, plan: StudyPlan) -> bytes:
    return first_model(plan, registry=consortium.books.registry, rounds=consortium.books.rounds)


def test_without_a_warm_start_it_is_the_plans_own(finished: Consortium) -> None:
    plan = make_plan()
    found = decode_parameters(
        _first(finished, plan), expected=parameter_shapes(plan), bytes_max=1 << 20
    )
    for name, array in initial_parameters(plan).items():
        np.testing.assert_array_equal(found[name], array)


def test_a_warm_start_is_the_registered_version(finished: Consortium) -> None:
    version = finished.final_version
    plan = make_plan(study__id="next", training__warm_start={"version": version})
    stored = finished.books.rounds.read_parameters(finished.books.registry.find(version).version)
    assert _first(finished, plan) == stored


def test_a_version_that_nobody_registered_is_refused(finished: Consortium) -> None:
    plan = make_plan(training__warm_start={"version": "ab" * 32})
    with pytest.raises(RegistryError, match="no single such model version"):
        _first(finished, plan)


def test_a_version_of_another_shape_is_refused(finished: Consortium) -> None:
    plan = make_plan(
        study__id="other",
        model={"kind": "mlp", "hidden": [4]},
        training__warm_start={"version": finished.final_version},
    )
    with pytest.raises(RegistryError, match="cannot start from model version"):
        _first(finished, plan)


def test_the_last_model_of_a_study_is_the_average_of_its_rounds(tmp_path: Path) -> None:
    plan = make_plan(training__model_average_decay=0.5)
    consortium = make_consortium(tmp_path, plan)
    consortium.run()
    rounds = consortium.books.rounds.rounds(consortium.study_id)
    models = [
        decode_parameters(
            consortium.books.rounds.read_parameters(
                consortium.books.registry.find(item.new_version).version
            ),
            expected=parameter_shapes(plan),
            bytes_max=1 << 20,
        )
        for item in rounds[: plan.training.rounds]
    ]
    plain = make_consortium(tmp_path / "plain", make_plan())
    plain.run()
    last = decode_parameters(
        plain.books.rounds.read_parameters(plain.books.registry.find(plain.final_version).version),
        expected=parameter_shapes(plan),
        bytes_max=1 << 20,
    )
    weights = 0.5 ** np.arange(plan.training.rounds - 1, -1, -1.0)
    for name, found in models[-1].items():
        series = [model[name] for model in models[:-1]] + [last[name]]
        expected = np.average(series, axis=0, weights=weights)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
