"""A plan's one byte form, which is digested, signed, stored and approved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from common.canonical import Canonical, canonical_bytes, canonical_float, digest_bytes
from common.ids import Digest
from common.study.aggregation import WEIGHTED_MEAN
from common.study.plan import StudyPlan

_PLANS_MAX: Final = 64
_known: Final[dict[int, tuple[StudyPlan, bytes, Digest]]] = {}
"""By a plan's id; plans are frozen, and each is asked for its digest at every turn."""


def plan_bytes(plan: StudyPlan) -> bytes:
    """Return the canonical bytes of a plan: every field, defaults too, real numbers as text.

    A plan without `[scaling]`, `[selection]` or `tuning_fraction`, or whose aggregation is the
    weighted mean, has no such key, so that it keeps the digest it had before the key.
    """
    return _bytes_and_digest(plan)[0]


def plan_digest(plan: StudyPlan) -> Digest:
    """Return the digest by which a site approves exactly this plan."""
    return _bytes_and_digest(plan)[1]


def _bytes_and_digest(plan: StudyPlan) -> tuple[bytes, Digest]:
    known = _known.get(id(plan))
    if known is not None and known[0] is plan:
        return known[1:]
    content = _plan_bytes(plan)
    digest = digest_bytes("study-plan", content)
    if len(_known) >= _PLANS_MAX:
        _known.clear()
    _known[id(plan)] = (plan, content, digest)  # kept alive here, so that its id stays its own
    return content, digest


def _plan_bytes(plan: StudyPlan) -> bytes:
    fields = plan.model_dump(mode="json")
    for name in ("scaling", "selection"):
        if fields[name] is None:
            del fields[name]
    if fields["evaluation"]["tuning_fraction"] is None:
        del fields["evaluation"]["tuning_fraction"]
    if plan.training.aggregation == WEIGHTED_MEAN:
        del fields["training"]["aggregation"]
    return canonical_bytes(_without_floats(fields))


def _without_floats(value: object) -> Canonical:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return canonical_float(value)
    if isinstance(value, Mapping):
        return {str(key): _without_floats(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_without_floats(item) for item in value]
    raise TypeError(f"a plan holds no {type(value).__name__}")
