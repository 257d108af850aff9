"""Tuning patients score every model but the final one."""

from __future__ import annotations

from pathlib import Path

from common.privacy.calibration import plan_mechanisms
from common.privacy.patient_parts import patient_parts
from common.protocol.messages import ReleasedTask
from common.study.plan_file import plan_digest, read_plan
from tests.lib.sites_in_process import PLAN, make_site


def test_models_in_between_are_scored_by_tuning_patients_and_the_final_one_by_held_out_ones(
    tmp_path: Path,
) -> None:
    plan = read_plan(PLAN)
    evaluation = plan.evaluation.model_copy(update={"tuning_fraction": 0.2, "releases": 3})
    training = plan.training.model_copy(update={"update_norm_max": 1e3})
    plan = plan.model_copy(update={"evaluation": evaluation, "training": training})
    site = make_site(tmp_path, plan=plan)
    parts, planned = patient_parts(evaluation), plan_mechanisms(plan)
    matrix = site.tasks._features.matrix(plan_digest(plan), plan)
    for number in planned.evaluation_rounds:
        answer = site.ask(site.envelope(number))
        assert isinstance(answer, ReleasedTask) and answer.evaluation is not None
        part = parts.held_out if number > plan.training.rounds else parts.tuning
        assert part is not None
        assert [item.part for item in answer.mechanisms][-1] == part
        counted = sum(map(sum, answer.evaluation.counts))
        cells = 2 * evaluation.score_bins
        noise = answer.evaluation.noise_multiplier * cells**0.5
        assert abs(counted - len(matrix.of_part(part).y)) < 6 * noise


def test_tuning_patients_never_train(tmp_path: Path) -> None:
    plan = read_plan(PLAN)
    evaluation = plan.evaluation.model_copy(update={"tuning_fraction": 0.2, "releases": 3})
    training = plan.training.model_copy(update={"update_norm_max": 1e3})
    plan = plan.model_copy(update={"evaluation": evaluation, "training": training})
    site = make_site(tmp_path, plan=plan)
    answer = site.ask(site.envelope(1))
    assert isinstance(answer, ReleasedTask)
    assert answer.mechanisms[0].part == patient_parts(evaluation).training
