"""One patient more or less moves nobody else's score and nobody else's gradient, not by one bit.

The models here are chosen against us: their outputs are sums that cancel to the last bit, so that a
row summed in another order gives another sign. (Found by review: a matrix product sums the rows
left over from tiles of four in another order, and one patient was worth five.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from common.models import LogisticRegressionModel, build_model, load_parameters
from common.protocol.arrays import Parameters
from common.study.columns import feature_columns, parameter_shapes
from common.study.plan import MultilayerPerceptron, StudyPlan
from site_client.training.clipped_sum import Batch, choose_clipped_sum
from site_client.training.clipping import Clipping
from site_client.training.dp_sgd_engine import write_total
from site_client.training.evaluation import count_by_score, score_in_slots
from site_client.training.flat_parameters import FlatParameters
from site_client.training.noise import SENSITIVITY_MARGIN
from site_client.training.slots import draw, seat, slot_count, with_nobody
from tests.lib.plans import make_plan

HIDDEN = 64
COHORTS = (4, 104, 257, 404)


def _plan() -> StudyPlan:
    plan = make_plan()
    model = MultilayerPerceptron(kind="mlp", hidden=(HIDDEN,))
    return plan.model_copy(update={"model": model})


def _cancelling(plan: StudyPlan) -> Parameters:
    """Every hidden unit is one; the output cancels, and differs by place in a plain product."""
    shapes = parameter_shapes(plan)
    rng = np.random.default_rng(0)
    hidden = torch.ones(1, HIDDEN)
    for _ in range(20_000):
        weight = rng.uniform(-1e5, 1e5, (1, HIDDEN)).astype(np.float32)
        bias = np.array([-weight.astype(np.float64).sum()], dtype=np.float32)
        three, four = (
            torch.nn.functional.linear(
                hidden.expand(rows, HIDDEN).contiguous(),
                torch.from_numpy(weight),
                torch.from_numpy(bias),
            )
            for rows in (3, 4)
        )
        if float(four.max()) < 0 <= float(three.min()) or float(three.max()) < 0 <= float(
            four.min()
        ):
            break
    return {
        "layers.0.weight": np.zeros(shapes["layers.0.weight"], np.float32),
        "layers.0.bias": np.full(shapes["layers.0.bias"], 20, np.float32),
        "layers.1.weight": weight,
        "layers.1.bias": bias,
    }


def _patients(plan: StudyPlan, count: int) -> npt.NDArray[np.float32]:
    width = len(feature_columns(plan))
    return np.random.default_rng(1).uniform(-1, 1, (count, width)).astype(np.float32)


@pytest.mark.parametrize("count", COHORTS)
def test_one_patient_more_is_one_unit_in_one_cell_of_the_exact_counts(count: int) -> None:
    plan = _plan()
    parameters, x = _cancelling(plan), _patients(plan, count)
    y = np.zeros(count, np.float32)
    tables = []
    for patients in (count, count - 1):  # the last one leaves; all coins stay as they are
        probabilities = score_in_slots(
            plan, parameters, x[:patients], expected=count, stream=np.random.default_rng(5)
        )
        tables.append(count_by_score(probabilities, y[:patients], bins=10))
    assert np.abs(tables[0] - tables[1]).sum() == 1


@pytest.mark.parametrize("count", COHORTS)
def test_the_sums_themselves_differ_by_at_most_the_clipping_norm_and_its_margin(
    count: int,
) -> None:
    plan = _plan()
    model = build_model(plan)
    load_parameters(model, _cancelling(plan))
    flat = FlatParameters(model)
    write_sum = choose_clipped_sum(model, Clipping(1.0))
    x = torch.from_numpy(_patients(plan, count))
    totals = []
    for patients in (count, count - 1):
        stream = np.random.default_rng(3)
        ones = torch.ones(patients)
        whole = with_nobody(Batch(x[:patients], ones, ones))
        seats = seat(patients, slot_count(patients, count), stream)
        write_total(whole, seats[draw(len(seats), 0.7, stream)], write_sum, flat)
        totals.append(flat.total.clone())
    assert float((totals[0] - totals[1]).norm()) <= 1 + SENSITIVITY_MARGIN


def test_the_sum_of_very_many_patients_keeps_the_margin() -> None:
    # Adding in float32, the whole sum is rounded anew when one patient leaves: 11 % of C at 10^6.
    count = 300_000
    model = LogisticRegressionModel(8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    flat = FlatParameters(model)
    write_sum = choose_clipped_sum(model, Clipping(1.0))
    rng = np.random.default_rng(2)
    x = torch.from_numpy(rng.uniform(-1, 1, (count, 8)).astype(np.float32))
    zeros, ones = torch.zeros(count), torch.ones(count)
    totals = []
    for patients in (count, count - 1):
        whole = with_nobody(Batch(x[:patients], zeros[:patients], ones[:patients]))
        seats = seat(patients, count, np.random.default_rng(3))
        write_total(whole, seats, write_sum, flat)
        totals.append(flat.total.clone())
    assert float((totals[0] - totals[1]).norm()) <= 1 + SENSITIVITY_MARGIN / 100


@pytest.mark.parametrize(("patients", "expected"), [(0, 10.0), (10, 10.0), (10, 9.2), (5, 0.0)])
def test_slots_are_a_function_of_the_public_number_while_patients_fit(
    patients: int, expected: float
) -> None:
    slots = slot_count(patients, expected)
    assert slots >= max(patients, 1)
    if patients <= expected:
        assert slots == slot_count(0, expected)


def test_every_patient_stands_in_one_slot_and_places_are_drawn_anew() -> None:
    stream = np.random.default_rng(1)
    seats = seat(90, 100, stream)
    assert sorted(seats[seats < 90]) == list(range(90)) and (seats == 90).sum() == 10
    assert not np.array_equal(seats, seat(90, 100, stream))


def test_a_sample_of_slots_has_the_law_of_independent_coins() -> None:
    stream = np.random.default_rng(2)
    counts = np.zeros(50)
    sizes = []
    for _ in range(4000):
        drawn = draw(50, 0.2, stream)
        assert len(set(drawn.tolist())) == len(drawn)
        counts[drawn] += 1
        sizes.append(len(drawn))
    assert abs(np.mean(sizes) - 10) < 5 * np.sqrt(8 / 4000)
    assert abs(np.var(sizes) - 8) < 5 * 8 * np.sqrt(2 / 4000)
    assert np.abs(counts / 4000 - 0.2).max() < 6 * np.sqrt(0.16 / 4000)
