"""The numbered checks that a release passes before it is logged.

(G1) randomness comes from the operating system when the ledger is a real one
(G2) the noise that was added is the noise that was charged
(G3) the update has the plan's names, shapes and type, and is absent from an evaluation or a count
(G4) every number is finite
(G5) its L2 norm is within the plan's bound
(G6) an evaluation is present exactly when asked for: whole numbers in the plan's bins
(G7) the payload is within its bound
(G8) counts are present exactly when asked for: a whole number for each cell, within 32 bits
(G9) a monitoring report holds noised counts: a whole number for each cell, within 32 bits
(G10) a monitoring report's noisy number of patients is at least the plan's patients_min

Each is a pure function that raises `ReleaseRefused` with its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Never

import numpy as np

from common import limits
from common.errors import ReleaseRefused
from common.ids import Digest
from common.privacy.mechanism import MechanismRecord
from common.protocol.arrays import Parameters, is_finite, l2_norm
from common.protocol.counts import COUNT_MAX
from common.protocol.messages import EvaluationCounts, TaskKind
from common.study.columns import parameter_shapes
from common.study.plan import StudyPlan
from common.study.report_tensors import ReportKind, noisy_patients, report_tensors, schema_digest
from common.study.scaling import MomentBounds, moment_shapes, numeric_columns
from site_client.release.report_noise import NoisedCounts

_NORM_SLACK: Final = 1.0005


@dataclass(frozen=True)
class Produced:
    """What training and evaluation made, before the gate.

    Args:
        update: trained minus received parameters, or a scaling release's sums; None for an
            evaluation only.
        evaluation: noisy counts, or None.
        mechanisms: every noisy step that was done.
        is_reproducible: whether its randomness was of the test mode.
        counts: noisy counts of a selection's cells, or None.
    """

    update: Parameters | None
    evaluation: EvaluationCounts | None
    mechanisms: tuple[MechanismRecord, ...]
    is_reproducible: bool
    counts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Asked:
    """What the release must look like.

    Args:
        plan: approved.
        kind: train, scale, evaluate or count.
        evaluate: whether an evaluation was asked for.
        base_version: of the received model, or of the question of a count.
        mechanisms: charged to the ledger.
        declared_cohort_size: public; it bounds the sums of a scaling release.
        cells: to be counted; 0 unless a count was asked for.
    """

    plan: StudyPlan
    kind: TaskKind
    evaluate: bool
    base_version: Digest
    mechanisms: tuple[MechanismRecord, ...]
    declared_cohort_size: int = limits.COHORT_SIZE_MIN
    cells: int = 0


def check_produced(produced: Produced, asked: Asked, *, is_real_ledger: bool) -> None:
    """Run G1 to G6 and G8 in order."""
    check_randomness(produced, is_real_ledger=is_real_ledger)
    check_charged(produced.mechanisms, asked.mechanisms)
    check_shapes(produced.update, asked)
    check_finite(produced.update)
    check_norm(produced.update, asked)
    check_evaluation(produced.evaluation, asked)
    check_counts(produced.counts, asked)


def check_randomness(produced: Produced, *, is_real_ledger: bool) -> None:
    """G1: randomness comes from the operating system when the ledger is a real one."""
    if produced.is_reproducible and is_real_ledger:
        _refuse("G1", "randomness from the operating system", "the reproducible test mode")


def check_charged(done: Sequence[MechanismRecord], charged: Sequence[MechanismRecord]) -> None:
    """G2: the noise that was added is the noise that was charged."""
    if tuple(done) != tuple(charged):
        _refuse("G2", "exactly the mechanisms that were charged", "others")


def check_shapes(update: Parameters | None, asked: Asked) -> None:
    """G3: the update has the plan's names, shapes and type, and is absent where none is trained.

    What a scaling release carries instead is its sums.
    """
    if asked.kind in (TaskKind.EVALUATE, TaskKind.COUNT):
        if update is not None:
            _refuse("G3", "no update in an evaluation or a count", "an update")
        return
    is_scaling = asked.kind is TaskKind.SCALE
    shapes = moment_shapes(asked.plan) if is_scaling else parameter_shapes(asked.plan)
    is_fit = update is not None and {
        name: (array.shape, str(array.dtype)) for name, array in update.items()
    } == {name: (tuple(shape), "float32") for name, shape in shapes.items()}
    if not is_fit:
        _refuse("G3", f"the {len(shapes)} float32 arrays of the plan's model", "other arrays")


def check_finite(update: Parameters | None) -> None:
    """G4: every number is finite."""
    if update is not None and not is_finite(update):
        _refuse("G4", "finite numbers", "NaN or infinity")


def check_norm(update: Parameters | None, asked: Asked) -> None:
    """G5: its L2 norm is within the plan's bound.

    That of a scaling release's sums is within what the declared patients can add, and the noise.
    """
    most = asked.plan.training.update_norm_max
    if asked.kind is TaskKind.SCALE:
        most = MomentBounds(
            len(numeric_columns(asked.plan)),
            asked.declared_cohort_size,
            asked.mechanisms[0].noise_multiplier,
        ).norm_max
    if update is not None and l2_norm(update) > most * _NORM_SLACK:
        _refuse("G5", f"an L2 norm of at most {most}", "a larger one")


def check_evaluation(evaluation: EvaluationCounts | None, asked: Asked) -> None:
    """G6: an evaluation is present exactly when asked for: whole numbers in the plan's bins."""
    if (evaluation is not None) != asked.evaluate:
        _refuse("G6", "an evaluation exactly when asked for", "the opposite")
    if evaluation is None:
        return
    is_fit = (
        evaluation.model_version == asked.base_version
        and len(evaluation.counts) == 2
        and all(len(row) == asked.plan.evaluation.score_bins for row in evaluation.counts)
        and all(type(value) is int for row in evaluation.counts for value in row)
    )
    if not is_fit:
        _refuse("G6", "whole numbers for the received model in the plan's bins", "others")


def check_counts(counts: tuple[int, ...] | None, asked: Asked) -> None:
    """G8: counts are present exactly when asked for: a whole number for each cell, in 32 bits."""
    if (counts is not None) != (asked.kind is TaskKind.COUNT):
        _refuse("G8", "counts exactly when asked for", "the opposite")
    if counts is None:
        return
    is_fit = len(counts) == asked.cells and all(
        type(count) is int and abs(count) <= COUNT_MAX for count in counts
    )
    if not is_fit:
        _refuse("G8", f"whole numbers for {asked.cells} cells", "others")


def check_report(
    counts: NoisedCounts, plan: StudyPlan, kind: ReportKind, *, is_real_ledger: bool
) -> None:
    """Run G1, G2, G9 and G10 on a monitoring report."""
    if not isinstance(counts, NoisedCounts):
        _refuse("G9", "noised counts", "another type")
    if counts.is_reproducible and is_real_ledger:
        _refuse("G1", "randomness from the operating system", "the reproducible test mode")
    cells = sum(tensor.cells for tensor in report_tensors(plan, kind))
    if counts.schema != schema_digest(plan, kind):  # which says each tensor's noise
        _refuse("G2", "the noise of exactly this report", "another report's")
    if counts.cells.shape != (cells,) or np.abs(counts.cells).max(initial=0) > COUNT_MAX:
        _refuse("G9", f"noised whole numbers for {cells} cells", "others")
    needed = 0 if plan.monitoring is None else plan.monitoring.patients_min
    if noisy_patients(plan, kind, counts.cells) < needed:
        _refuse("G10", f"a noisy number of patients of at least {needed}", "a lower one")


def check_size(payload: bytes) -> None:
    """G7: the payload is within its bound."""
    if len(payload) > limits.PARAMETERS_BYTES_MAX:
        _refuse("G7", f"at most {limits.PARAMETERS_BYTES_MAX} bytes", f"{len(payload)} bytes")


def _refuse(number: str, expected: str, arrived: str) -> Never:
    raise ReleaseRefused(
        "the gate lets nothing out",
        expected=expected,
        arrived=arrived,
        todo="report this as a fault; nothing left, and the reserved budget stays counted as spent",
        number=number,
    )
