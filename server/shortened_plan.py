"""A selection's proposal for review: the same study text with the chosen features, as TOML."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from common.errors import StoreError
from common.ids import Digest, StudyId, parse_study_id
from common.study.plan import StudyPlan
from common.study.plan_toml import plan_toml
from server.relevance import Relevance

_ENDING: Final = "-short"
_ID_LENGTH_MAX: Final = 63


def shorten_plan(
    plan: StudyPlan, ranking: Sequence[Relevance], *, study_id: StudyId | None = None
) -> StudyPlan:
    """Return the plan with the kept features, in its own order, under a new study id.

    Args:
        plan: selects.
        ranking: of its features.
        study_id: of the new study; the old one with `-short` when not given.
    """
    kept = {item.place for item in ranking if item.is_kept}
    new_id = study_id or _short_id(plan)
    return plan.model_copy(
        update={
            "study": plan.study.model_copy(update={"id": new_id}),
            "features": tuple(item for place, item in enumerate(plan.features) if place in kept),
            "selection": None,
        }
    )


def shortened_text(
    plan: StudyPlan,
    ranking: Sequence[Relevance],
    *,
    plan_digest: Digest,
    epsilon_spent: float,
    study_id: StudyId | None = None,
) -> str:
    """Return the shortened plan as TOML, with why each candidate stays or goes.

    Args:
        plan, ranking, study_id: as `shorten_plan`.
        plan_digest: of the plan that selected.
        epsilon_spent: the most that a site stated for the selection.
    """
    short = shorten_plan(plan, ranking, study_id=study_id)
    names = {item.name: item for item in ranking}
    lines = [
        f"# Proposed by the selection {plan.study.id} (plan {plan_digest[:16]}). Review it, change",
        "# what you know better, then `cohortium-coordinator plan check` and `launch` it. It is a",
        "# new study: each site approves it, and it spends its own epsilon from each site's total.",
        f"# What the selection spent, epsilon {epsilon_spent:.4f} at delta {plan.privacy.delta:g},",
        "# stays in every site's ledger.",
        f"# Kept {len(short.features)} of {len(plan.features)} candidates. Left out:",
        *(f"#   {_why(plan, item)}" for item in ranking if not item.is_kept),
        "",
    ]
    kept = (f"# {_why(plan, names[feature.name])}" for feature in short.features)
    for line in plan_toml(short).splitlines():
        lines += [next(kept), line] if line == "[[features]]" else [line]
    return "\n".join(lines) + "\n"


def write_new_file(path: Path, text: str) -> None:
    """Write a file that is not there yet; raises `StoreError`, never overwrites."""
    try:
        with path.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise StoreError(
            f"{path.name} is not written",
            expected="a path where no file is yet, in a writable folder",
            arrived=error.strerror or type(error).__name__,
            todo="choose another name; what a person may have changed is never overwritten",
        ) from None


def _short_id(plan: StudyPlan) -> StudyId:
    stem = plan.study.id[: _ID_LENGTH_MAX - len(_ENDING)].rstrip("-")
    return parse_study_id(stem + _ENDING)


def _why(plan: StudyPlan, item: Relevance) -> str:
    codes = ", ".join(plan.features[item.place].codes)
    return (
        f"{item.name} ({codes}): {item.fate.value}; {100 * item.present_share:.1f} % have it, "
        f"{max(item.information.value, 0.0):.4f} nats "
        f"({item.information.low:.4f} to {item.information.high:.4f})"
    )
