"""The model of a study's first round: the plan's own start, or a registered version."""

from __future__ import annotations

from common import limits
from common.canonical import canonical_float
from common.errors import ProtocolError, RegistryError
from common.ids import Digest
from common.protocol.arrays import decode_parameters, encode_parameters
from common.study.columns import initial_parameters
from common.study.plan import StudyPlan
from common.study.scaling import is_in_bounds, model_shapes, split_model
from server.registry.store import ModelRegistry
from server.round_book import RoundBook


def first_model(plan: StudyPlan, *, registry: ModelRegistry, rounds: RoundBook) -> bytes:
    """Return the parameters of round 1 as safetensors bytes, before the plan's own scaling if any.

    A warm start costs nothing here: what made that version was charged to its patients when it was
    made, and the sites' ledgers still hold it. A version with scaling brings it along.

    Raises:
        RegistryError: when the plan's warm start is not a registered version of the same shape,
            with the plan's scaling or like it without any.
    """
    if plan.training.warm_start is None:
        return encode_parameters(initial_parameters(plan))
    asked = Digest(plan.training.warm_start.version)
    found = registry.find(asked)
    content = rounds.read_parameters(found.version)
    try:
        arrays = decode_parameters(
            content, expected=model_shapes(plan), bytes_max=limits.PARAMETERS_BYTES_MAX
        )
    except ProtocolError as error:
        raise _refuse(asked, error.arrived) from None
    scaling = split_model(arrays)[1]
    if scaling is not None and plan.scaling is not None:
        if not is_in_bounds(scaling, plan):
            raise _refuse(asked, f"a deviation below deviation_min = {plan.scaling.deviation_min}")
        clipped_at = found.lineage["scaling"]["deviations_max"]
        if clipped_at != canonical_float(plan.scaling.deviations_max):
            raise _refuse(asked, f"values clipped at deviations_max = {clipped_at}")
    return content


def _refuse(asked: Digest, arrived: str) -> RegistryError:
    return RegistryError(
        f"the plan cannot start from model version {asked[:12]}",
        expected="a version with the plan's model, columns and scaling",
        arrived=arrived,
        todo="name a version of the same model and features under [training.warm_start], with "
        '[scaling] kind = "of_warm_start" if that version has scaling and without [scaling] if not',
    )
