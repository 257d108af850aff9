"""A plan's one byte form, which is digested, signed, stored and approved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from common.canonical import Canonical, canonical_bytes, canonical_float, digest_bytes
from common.ids import Digest
from common.study.plan import StudyPlan

_DIGESTS_MAX: Final = 64
_digests: Final[dict[int, tuple[StudyPlan, Digest]]] = {}
"""By a plan's id; plans are frozen, and each is asked for its digest at every turn."""


def plan_bytes(plan: StudyPlan) -> bytes:
    """Return the canonical bytes of a plan: every field, defaults too, real numbers as text.

    A plan without `[scaling]`, `[selection]` or `tuning_fraction` has no such key, so that it keeps
    the digest it had before the key.
    """
    fields = plan.model_dump(mode="json")
    for name in ("scaling", "selection"):
        if fields[name] is None:
            del fields[name]
    if fields["evaluation"]["tuning_fraction"] is None:
        del fields["evaluation"]["tuning_fraction"]
    return canonical_bytes(_without_floats(fields))


def plan_digest(plan: StudyPlan) -> Digest:
    """Return the digest by which a site approves exactly this plan."""
    known = _digests.get(id(plan))
    if known is not None and known[0] is plan:
        return known[1]
    digest = digest_bytes("study-plan", plan_bytes(plan))
    if len(_digests) >= _DIGESTS_MAX:
        _digests.clear()
    _digests[id(plan)] = (plan, digest)  # kept alive here, so that its id stays its own
    return digest


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
