"""An aggregator that watches goes on whatever a step is refused by, and says it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.errors import CohortiumError, ProtocolError, StoreError, TransportError
from server.monitor_board.aggregator import Step
from server.monitor_board.aggregator_service import watch

DONE = Step(0, 0, ())


class _EndedError(Exception):
    """Ctrl-C."""


def _refused(kind: type[CohortiumError]) -> CohortiumError:
    return kind("no", expected="yes", arrived="a fault", todo="wait")


def test_a_step_that_is_refused_is_said_and_tried_again() -> None:
    errors = [_refused(kind) for kind in (TransportError, StoreError, ProtocolError)]
    steps: list[CohortiumError | Step] = [errors[0], DONE, *errors[1:], DONE]
    said: list[CohortiumError | Step] = []

    def step() -> Step:
        if not steps:
            raise _EndedError
        found = steps.pop(0)
        if isinstance(found, CohortiumError):
            raise found
        return found

    say: Callable[[CohortiumError | Step], None] = said.append
    with pytest.raises(_EndedError):
        watch(step, every_s=0.0, say=say, complain=say)
    assert said == [errors[0], DONE, *errors[1:], DONE]
