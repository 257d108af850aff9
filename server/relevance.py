"""Rank a selection's candidates: minimal sparsity, then maximal relevance (MSMR).

(1) sparsity: the share of patients who have a candidate; below the plan's bound it is left out
(2) mutual information of each candidate with the outcome, to choose whose pairs are counted
(3) joint mutual information with what is kept already, one candidate after another

Source: Estiri, Strasser and Murphy 2021 (MLHO, doi:10.1038/s41598-021-84781-x) for the three steps;
Yang and Moody 1999 (Data visualization and feature selection) for the joint criterion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from common.study.contingency import always_kept, has_absent_class
from common.study.plan import StudyPlan
from server.noisy_tables import (
    Floats,
    Information,
    NoisyTable,
    estimate_information,
    joint_information,
    label_entropy,
    label_totals,
    told_from_noise,
)


class Fate(StrEnum):
    """What becomes of a candidate, and why."""

    FIXED = "kept: the plan cannot do without it"
    JOINT = "kept: tells most beside those already kept"
    SINGLE = "kept: tells most of those whose pairs were not counted"
    SPARSE = "dropped: too few patients have it"
    NOISE = "dropped: what it tells cannot be told from noise"
    LESS = "dropped: others tell more"


@dataclass(frozen=True)
class Relevance:
    """One candidate of a selection.

    Args:
        place: in the plan's features.
        name: of the feature.
        present_share: of the patients, in [0, 1]; 1 for a value that must always be there.
        information: of the candidate alone with the outcome.
        is_told: whether that can be told from noise (`told_from_noise`).
        joint_rank: its turn among those chosen beside others, from 1; None without.
        joint_information: mean over those kept before it of what the two tell together, in nats.
        fate: what becomes of it.
    """

    place: int
    name: str
    present_share: float
    information: Information
    is_told: bool
    joint_rank: int | None
    joint_information: float | None
    fate: Fate

    @property
    def is_kept(self) -> bool:
        """Whether the shortened plan has it."""
        return self.fate in (Fate.FIXED, Fate.JOINT, Fate.SINGLE)


@dataclass(frozen=True)
class _Single:
    present_share: float
    information: Information
    is_sparse: bool
    is_told: bool

    @property
    def merit(self) -> tuple[bool, bool, float]:
        return (
            not self.is_sparse,
            self.is_told,
            self.information.value,
        )


def joint_candidates(plan: StudyPlan, singles: Sequence[NoisyTable]) -> tuple[int, ...]:
    """Return the places, rising, of the candidates whose pairs are counted.

    Always the plan's number of them: those told from noise first, the sparse last.
    """
    if plan.selection is None:
        return ()
    found = _assess(plan, singles, label_totals(singles))
    return tuple(sorted(_by_merit(found)[: plan.selection.joint_candidates]))


def rank_candidates(
    plan: StudyPlan,
    singles: Sequence[NoisyTable],
    joints: Mapping[tuple[int, int], NoisyTable],
) -> tuple[Relevance, ...]:
    """Return every candidate, the kept ones first, each group by what it tells.

    Args:
        plan: selects.
        singles: of every candidate, in the plan's order.
        joints: of the pairs of the joint candidates, by their two rising places.
    """
    if plan.selection is None:
        return ()
    totals = label_totals(singles)
    found = _assess(plan, singles, totals)
    fixed = always_kept(plan)
    chosen = _choose(found, _pair_information(found, joints, totals), fixed)
    fates = dict.fromkeys(fixed, Fate.FIXED)
    paired = {place for pair in joints for place in pair}
    left = [place for place in _by_merit(found) if place not in paired]
    for place in [*chosen, *left]:
        if len(fates) < plan.selection.keep and place not in fates and _may_stay(found[place]):
            fates[place] = Fate.JOINT if place in paired else Fate.SINGLE
    turns = {place: turn for turn, place in enumerate(chosen, start=1)}
    ranked = [
        Relevance(
            place=place,
            name=feature.name,
            present_share=found[place].present_share,
            information=found[place].information,
            is_told=found[place].is_told,
            joint_rank=turns.get(place),
            joint_information=chosen.get(place),
            fate=fates.get(place) or _why_dropped(found[place]),
        )
        for place, feature in enumerate(plan.features)
    ]
    return tuple(sorted(ranked, key=_order))


def _assess(plan: StudyPlan, singles: Sequence[NoisyTable], totals: Floats) -> list[_Single]:
    least = 0.0 if plan.selection is None else plan.selection.present_share_min
    found = [estimate_information(table, totals) for table in singles]
    is_told = told_from_noise([item.p_value for item in found])
    shares = [
        _present_share(table, totals) if has_absent_class(feature) else 1.0
        for feature, table in zip(plan.features, singles, strict=True)
    ]
    return [
        _Single(share, item, is_sparse=share < least, is_told=told)
        for share, item, told in zip(shares, found, is_told, strict=True)
    ]


def _present_share(table: NoisyTable, totals: Floats) -> float:
    return float(np.clip(1 - table.counts[0].sum() / totals.sum(), 0.0, 1.0))


def _by_merit(found: Sequence[_Single]) -> list[int]:
    # Stable: of equal merit the first in the plan.
    return sorted(range(len(found)), key=lambda place: found[place].merit, reverse=True)


def _may_stay(single: _Single) -> bool:
    return not single.is_sparse and single.is_told


def _pair_information(
    found: Sequence[_Single], joints: Mapping[tuple[int, int], NoisyTable], totals: Floats
) -> dict[tuple[int, int], float]:
    """Return what each pair tells: no less than either of it alone, no more than there is to tell.

    Single counts carry less noise than pairs, so these bounds, true of every table, sharpen them.
    """
    most = label_entropy(totals)
    return {
        (first, second): min(
            max(
                joint_information(table, totals),
                found[first].information.value,
                found[second].information.value,
            ),
            most,
        )
        for (first, second), table in joints.items()
    }


def _choose(
    found: Sequence[_Single], pairs: Mapping[tuple[int, int], float], fixed: Sequence[int]
) -> dict[int, float | None]:
    """Return the joint candidates that may stay, in the order of their choice, with their score.

    The first is the one that tells most alone, unless some are kept anyway; each next one tells
    most, on average, together with one that was chosen before (Yang and Moody 1999; as the sum in
    Brown et al. 2012, equation 17).
    """
    waiting = sorted({place for pair in pairs for place in pair})
    kept = [place for place in waiting if place in fixed]
    waiting = [place for place in waiting if place not in kept and _may_stay(found[place])]
    chosen: dict[int, float | None] = {}
    while waiting:
        if kept:
            scores = {place: _mean_with(place, kept, pairs) for place in waiting}
            best = max(scores, key=scores.__getitem__)
            chosen[best] = scores[best]
        else:
            best = max(waiting, key=lambda place: found[place].merit)
            chosen[best] = None
        kept.append(best)
        waiting.remove(best)
    return chosen


def _mean_with(place: int, kept: Sequence[int], pairs: Mapping[tuple[int, int], float]) -> float:
    return float(np.mean([pairs[min(place, other), max(place, other)] for other in kept]))


def _why_dropped(single: _Single) -> Fate:
    if single.is_sparse:
        return Fate.SPARSE
    return Fate.LESS if single.is_told else Fate.NOISE


def _order(item: Relevance) -> tuple[bool, bool, int, float]:
    turn = item.joint_rank if item.joint_rank is not None else 1 << 30
    return (not item.is_kept, item.fate is not Fate.FIXED, turn, -item.information.value)
