"""The two bodies of a count: which pairs are asked for, and the noised counts that answer.

Layout (docs/protocol.md, clauses M10 and M11). Like parameters, they are looked into only by who
knows the plan, which says how many candidates and cells there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from common import limits
from common.canonical import canonical_bytes, digest_bytes, parse_canonical
from common.errors import ProtocolError
from common.ids import Digest
from common.protocol.fields import Fields

CELL_BYTES: Final = 4
COUNT_MAX: Final = 2**31 - 1
_CELL: Final = np.dtype("<i4")


def encode_candidates(candidates: Sequence[int]) -> bytes:
    """Return the body of a request: the candidates whose pairs are counted, none in round 1.

    Args:
        candidates: places in the plan's features, rising.
    """
    return canonical_bytes({"candidates": list(candidates), "version": 1})


def count_question_digest(body: bytes) -> Digest:
    """Return the digest that a count's request and release name as their base version."""
    return digest_bytes("count-question", body)


def decode_candidates(body: bytes) -> tuple[int, ...]:
    """Return the candidates in a request's body, rising and each once; raises `ProtocolError`."""
    if len(body) > limits.HEADER_BYTES_MAX:
        raise _refuse(f"at most {limits.HEADER_BYTES_MAX} bytes", f"{len(body)} bytes")
    fields = Fields(parse_canonical(body), "candidates")
    fields.integer("version", minimum=1, maximum=1)
    places = fields.value("candidates")
    fields.close()
    if not isinstance(places, list) or len(places) > limits.JOINT_CANDIDATES_MAX:
        raise _refuse(f"a list of at most {limits.JOINT_CANDIDATES_MAX} places", "another value")
    candidates: list[int] = []
    for place in places:
        if type(place) is not int or not 0 <= place < limits.FEATURES_MAX:
            raise _refuse("places in the plan's features", "another value")
        if candidates and place <= candidates[-1]:
            raise _refuse("rising places, each once", "others")
        candidates.append(place)
    if encode_candidates(candidates) != body:
        raise _refuse("the one byte form of these candidates", "another form")
    return tuple(candidates)


def encode_counts(counts: Sequence[int]) -> bytes:
    """Return the body of a release: every cell, table after table, as 32-bit integers.

    Raises:
        ProtocolError: for a count that no cohort and no noise can make.
    """
    if any(abs(count) > COUNT_MAX for count in counts):
        raise _refuse(f"counts of at most {COUNT_MAX}", "a larger one")
    return np.asarray(counts, dtype=_CELL).tobytes()


def decode_counts(body: bytes, *, cells: int) -> npt.NDArray[np.int64]:
    """Return the counts [cells] of a release's body; raises `ProtocolError` for another length."""
    if len(body) != CELL_BYTES * cells:
        raise _refuse(f"{CELL_BYTES * cells} bytes for {cells} cells", f"{len(body)} bytes")
    return np.frombuffer(body, dtype=_CELL).astype(np.int64)


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "the body of a count is refused",
        expected=expected,
        arrived=arrived,
        todo="use the same software version on both sides",
    )
