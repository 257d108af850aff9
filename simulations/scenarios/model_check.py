"""Makes each round's model again from what the witness saw, and compares it with the stored one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.ids import parse_digest
from common.limits import PARAMETERS_BYTES_MAX
from common.protocol.arrays import Parameters, decode_parameters
from common.protocol.messages import ReleasedTask, TaskKind
from common.protocol.round_states import RoundState
from common.study.columns import parameter_shapes
from common.study.scaling import model_shapes, split_model
from server.robust_aggregation import aggregation_of
from server.round_book import Outcome, Round
from server.server_optimizer import ServerOptimizer
from simulations.scenarios.stage import Stage
from simulations.scenarios.witness import Asking


def models_that_differ(stage: Stage) -> Iterator[str]:
    """Yield each round of the last operation whose model is not what its answers make."""
    complete = {
        item.round_number: item
        for item in stage.books.rounds.rounds(stage.study_id)
        if item.state is RoundState.COMPLETE
    }
    for number, found in complete.items():
        before = complete.get(number - 1)
        if before is not None and found.base_version != before.new_version:
            yield f"round {number} did not begin with the model of round {number - 1}"
        asking = _last_asking(stage, number)
        if asking is None or not 1 <= number <= stage.plan.training.rounds:
            continue
        updates = _accepted(stage, asking)
        if len({reply.release_id for reply in updates}) != len(updates):
            yield f"round {number} took one release twice"
        if not _is_made_of(stage, found, before, updates):
            yield f"the model of round {number} is not what its {len(updates)} answers make"
    last = complete.get(stage.plan.training.rounds + 1)
    if last is not None and last.new_version != last.base_version:
        yield "the final evaluation changed the model"


def _last_asking(stage: Stage, number: int) -> Asking | None:
    """Return the last asking for a round in the last operation; None when it was not asked."""
    asked = stage.witness.askings[stage.askings_before :]
    return next((item for item in reversed(asked) if item.round_number == number), None)


def _accepted(stage: Stage, asking: Asking) -> list[ReleasedTask]:
    new = stage.witness.askings[stage.askings_before :]
    begin = stage.answers_before
    for item in new:
        if item is asking:
            break
        begin += len(item.deliveries)
    rows = stage.books.rounds.answers(stage.study_id)[begin : begin + len(asking.deliveries)]
    return [
        delivery.reply
        for delivery, row in zip(asking.deliveries, rows, strict=False)
        if row.outcome is Outcome.ACCEPTED and isinstance(delivery.reply, ReleasedTask)
    ]


def _is_made_of(
    stage: Stage, found: Round, before: Round | None, updates: list[ReleasedTask]
) -> bool:
    plan, rounds = stage.plan, stage.books.rounds
    aggregation = aggregation_of(plan, TaskKind.TRAIN, parameter_shapes(plan))
    for reply in updates:
        update = decode_parameters(
            reply.update, expected=parameter_shapes(plan), bytes_max=PARAMETERS_BYTES_MAX
        )
        aggregation.add(update, weight=float(reply.declared_cohort_size))
    base = _model(stage, found.base_version)
    state = (
        b"" if before is None else rounds.read_optimizer_state(parse_digest(before.optimizer_state))
    )
    optimizer = ServerOptimizer(
        plan.training.strategy, average_decay=plan.training.model_average_decay, state=state
    )
    trained, scaling = split_model(base)
    made = optimizer.step(trained, aggregation.mean())
    if found.round_number == plan.training.rounds:
        made = optimizer.last(made)
    whole = made | ({} if scaling is None else scaling.arrays())
    stored = _model(stage, found.new_version)
    return whole.keys() == stored.keys() and all(
        np.array_equal(whole[name], stored[name]) for name in whole
    )


def _model(stage: Stage, version: str) -> Parameters:
    return decode_parameters(
        stage.books.rounds.read_parameters(parse_digest(version)),
        expected=model_shapes(stage.plan),
        bytes_max=PARAMETERS_BYTES_MAX,
    )
