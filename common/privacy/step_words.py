"""What noisy steps do with patients, in words, from their records alone."""

from __future__ import annotations

from collections.abc import Iterable

from common.privacy.mechanism import (
    DiscreteGaussianCounts,
    DpSgdSteps,
    MechanismRecord,
    PatientPart,
)


def words_of_steps(planned: Iterable[tuple[MechanismRecord, int]]) -> tuple[str, ...]:
    """Return one phrase for each record, such as "counts held-out patients by score twice".

    Args:
        planned: records with how often each may be done.
    """
    return tuple(_words(record, times) for record, times in planned)


def words_of_reports(planned: Iterable[tuple[MechanismRecord, int]]) -> tuple[str, ...]:
    """Return one phrase for each record of a monitoring account; `planned` as above."""
    return tuple(_words_of_report(record, times) for record, times in planned)


def _words_of_report(record: MechanismRecord, times: int) -> str:
    is_whole = record.part == PatientPart()
    who = "the patients of a period" if is_whole else "held-out patients of training"
    tables = record.cells_per_patient_max if isinstance(record, DiscreteGaussianCounts) else 1
    where = "one table" if tables == 1 else f"{tables} tables"
    return (
        f"counts {who} in {where}, {_often(times)}, every count off by about "
        f"{record.noise_multiplier:.0f}"
    )


def _often(times: int) -> str:
    return {1: "once", 2: "twice"}.get(times, f"{times} times")


def _words(record: MechanismRecord, times: int) -> str:
    often = _often(times)
    if isinstance(record, DpSgdSteps):
        return f"trains a model in {times * record.steps} noised steps"
    if isinstance(record, DiscreteGaussianCounts) and record.cells_per_patient_max > 1:
        return (
            f"counts patients {often} in {record.cells_per_patient_max} tables by outcome, every "
            f"count off by about {record.noise_multiplier:.0f}"
        )
    if isinstance(record, DiscreteGaussianCounts):
        who = "held-out" if record.part.first == 0 else "tuning"
        return f"counts {who} patients by score {often}"
    return f"releases a noised sum over patients {often}"
