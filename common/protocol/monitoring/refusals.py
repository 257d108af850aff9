"""The numbered reasons with which a relay or a monitor board refuses a report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from common.errors import CohortiumError, ProtocolError

BOARD_REFUSALS: Final[dict[str, str]] = {
    "B1": "the bytes are not a report envelope of a version we know",
    "B2": "the roster does not know the site, or the signature is not by the site's key",
    "B3": "the report names a roster that is not in force here, or no longer",
    "B4": "the suite is not one that the roster allows",
    "B5": "the report is not sealed to the receivers that the roster names, or does not open here",
    "B6": "the opened content is not what the header or the plan says",
    "B7": "the report was received before (replay)",
    "B8": "another report of the site has this place in its chain (fork)",
    "B9": "a report before this one is missing; it is kept aside until the gap is filled",
    "B10": "the report is late, or of a period that is not over",
    "B11": "the report is of another study, site, plan or model; at the relay, of a study that the "
    "coordinator has not registered",
    "B12": "the site is suspended or revoked",
    "B13": "the report is larger than allowed",
    "B14": "more reports arrive than a site may send, or notices than a board may, at once or in "
    "a day; send again later",
}


def refusal(
    number: str, *, expected: str, arrived: str, todo: str = "do not use it; ask the site"
) -> ProtocolError:
    """Return the error of a numbered refusal; nothing of a report's content may be in its words."""
    return ProtocolError(
        f"a report is refused: {BOARD_REFUSALS[number]}",
        expected=expected,
        arrived=arrived,
        todo=todo,
        number=number,
    )


@contextmanager
def numbered(number: str) -> Iterator[None]:
    """Give the errors of a step that have no number this one."""
    try:
        yield
    except CohortiumError as error:
        error.number = error.number or number
        raise
