"""The model of a study's first round: the plan's own start, or a registered version."""

from __future__ import annotations

from common import limits
from common.errors import ProtocolError, RegistryError
from common.ids import Digest
from common.protocol.arrays import decode_parameters, encode_parameters
from common.study.columns import initial_parameters, parameter_shapes
from common.study.plan import StudyPlan
from server.registry.store import ModelRegistry
from server.round_book import RoundBook


def first_model(plan: StudyPlan, *, registry: ModelRegistry, rounds: RoundBook) -> bytes:
    """Return the parameters of round 1 as safetensors bytes.

    A warm start costs nothing here: what made that version was charged to its patients when it was
    made, and the sites' ledgers still hold it.

    Raises:
        RegistryError: when the plan's warm start is not a registered version of the same shape.
    """
    if plan.training.warm_start is None:
        return encode_parameters(initial_parameters(plan))
    asked = Digest(plan.training.warm_start.version)
    version = registry.find(asked).version
    content = rounds.read_parameters(version)
    try:
        decode_parameters(
            content, expected=parameter_shapes(plan), bytes_max=limits.PARAMETERS_BYTES_MAX
        )
    except ProtocolError as error:
        raise RegistryError(
            f"the plan cannot start from model version {asked[:12]}",
            expected="a version with the plan's model and columns",
            arrived=error.arrived,
            todo="name a version of the same model and features under [training.warm_start]",
        ) from None
    return content
