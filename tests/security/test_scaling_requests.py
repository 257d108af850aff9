"""A site that is asked to scale: charged once, and pinned to what its study began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.privacy.calibration import plan_mechanisms
from common.privacy.ledger_entry import ReservedEntry
from common.protocol.arrays import decode_parameters, encode_parameters, parameters_digest
from common.protocol.messages import RefusedTask, ReleasedTask, TaskKind
from common.study.columns import initial_parameters
from common.study.plan import MeanVarianceScaling, StudyPlan
from common.study.plan_file import read_plan
from common.study.scaling import DEVIATION, MEAN, MOMENTS, initial_model, moment_shapes
from tests.lib.sites_in_process import PLAN, InProcessSite, make_site


def _plan() -> StudyPlan:
    scaling = MeanVarianceScaling(kind="dp_mean_variance")
    return read_plan(PLAN).model_copy(update={"scaling": scaling})


def _model(plan: StudyPlan, **arrays: Any) -> dict[str, Any]:
    """Return what names a first model with some arrays changed, or left out when None."""
    model = {**initial_model(plan)}
    for name, value in arrays.items():
        full = {"mean": MEAN, "sd": DEVIATION}[name]
        if value is None:
            del model[full]
        else:
            model[full] = np.full_like(model[full], value)
    content = encode_parameters(model)
    return {"parameters": content, "base_version": parameters_digest(content)}


@pytest.fixture
def site(tmp_path: Path) -> InProcessSite:
    return make_site(tmp_path, plan=_plan())


def _number(reply: object) -> str:
    assert isinstance(reply, RefusedTask), reply
    return reply.number


def _reserved(site: InProcessSite) -> list[ReservedEntry]:
    entries = site.tasks._records.ledger.entries()
    return [entry for entry in entries if isinstance(entry, ReservedEntry)]


def test_asked_twice_for_sums_a_site_sends_the_same_bytes_and_is_charged_once(
    site: InProcessSite,
) -> None:
    first, again = (site.ask(site.envelope(0)) for _ in range(2))
    assert isinstance(first, ReleasedTask)
    assert first == again
    [charged] = _reserved(site)
    planned = plan_mechanisms(site.plan)
    assert charged.mechanisms == (planned.scaling,) == first.mechanisms
    sums = decode_parameters(first.update, expected=moment_shapes(site.plan), bytes_max=1 << 20)
    assert np.isfinite(sums[MOMENTS]).all()


def test_a_whole_study_with_scaling_spends_no_more_than_the_plan_promises(
    site: InProcessSite,
) -> None:
    for number in range(site.plan.training.rounds + 2):
        reply = site.ask(site.envelope(number, **({} if number == 0 else _model(site.plan))))
        assert isinstance(reply, ReleasedTask), reply
    epsilon = site.plan.privacy.epsilon
    assert 0.995 * epsilon <= reply.statement.epsilon_spent <= epsilon
    assert len(site.tasks._records.log.verify()) == site.plan.training.rounds + 2


def test_r8_sums_are_asked_for_in_round_0_of_a_plan_that_scales_and_nowhere_else(
    tmp_path: Path,
) -> None:
    plain = make_site(tmp_path / "plain")
    assert _number(plain.ask(plain.envelope(0))) == "R8"
    scaled = make_site(tmp_path / "scaled", plan=_plan())
    later = scaled.envelope(1, kind=TaskKind.SCALE, evaluate=False, parameters=b"")
    assert _number(scaled.ask(later)) == "R5"


def test_r9_sums_are_not_released_any_more_when_training_has_begun(site: InProcessSite) -> None:
    assert isinstance(site.ask(site.envelope(1)), ReleasedTask)
    assert _number(site.ask(site.envelope(0))) == "R9"


def test_r10_a_request_for_sums_has_one_form(site: InProcessSite) -> None:
    other = parameters_digest(b"x")
    assert _number(site.ask(site.envelope(0, base_version=other))) == "R10"
    assert _reserved(site) == []


@pytest.mark.parametrize("arrays", [{"mean": None}, {"sd": None}, {"mean": None, "sd": None}])
def test_r10_scaling_is_there_exactly_when_the_plan_says_so(
    site: InProcessSite, arrays: dict[str, Any]
) -> None:
    assert _number(site.ask(site.envelope(1, **_model(site.plan, **arrays)))) == "R10"


def test_r10_a_plan_without_scaling_takes_no_model_with_it(tmp_path: Path) -> None:
    plain = make_site(tmp_path)
    model = {**initial_parameters(plain.plan), MEAN: np.zeros(1, np.float32)}
    content = encode_parameters(model)
    asked = plain.envelope(1, parameters=content, base_version=parameters_digest(content))
    assert _number(plain.ask(asked)) == "R10"


@pytest.mark.parametrize("arrays", [{"mean": 1.01}, {"mean": -2}, {"sd": 1.01}, {"sd": 0.009}])
def test_r19_a_scaling_outside_its_bounds_is_refused(
    site: InProcessSite, arrays: dict[str, Any]
) -> None:
    assert _number(site.ask(site.envelope(1, **_model(site.plan, **arrays)))) == "R19"
    assert _reserved(site) == []


@pytest.mark.parametrize("arrays", [{"mean": 0.1}, {"sd": 0.5}])
def test_r19_another_scaling_in_the_middle_of_a_study_is_refused(
    site: InProcessSite, arrays: dict[str, Any], tmp_path: Path
) -> None:
    assert isinstance(site.ask(site.envelope(1)), ReleasedTask)
    changed = site.envelope(2, **_model(site.plan, **arrays))
    assert _number(site.ask(changed)) == "R19"
    assert isinstance(site.ask(site.envelope(2)), ReleasedTask)
    assert len(_reserved(site)) == 2
