"""Mechanism records to epsilon at delta; a record it does not know is refused.

The arithmetic is dp-accounting's privacy loss distributions (PLD), which round epsilon up. Patients
are split by their salted hash into the elementary intervals between the ends of all parts. Within
one interval every patient is touched by the same records, so these compose sequentially; a patient
is in one interval only, so the intervals compose in parallel and the greatest epsilon holds for
everyone.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias
from zlib import crc32

from common import limits
from common.errors import AccountingError
from common.loading import collector_at_rest
from common.privacy.mechanism import (
    PATIENT_HASH_PARTS,
    DiscreteGaussianCounts,
    DpSgdSteps,
    GaussianVector,
    MechanismRecord,
    PatientPart,
)

DISCRETIZATION: Final = 1e-3
"""Width of the PLD's loss grid: at 1e-3 epsilon is 0.0013 too high in 5,000 steps of DP-SGD."""
FINE_DISCRETIZATION: Final = 1e-4
"""For discrete noise above 100: the loss of one cell is then small against the wider grid."""
_FINE_ABOVE_NOISE_MULTIPLIER: Final = 100.0

_Event: TypeAlias = tuple[str, float, float]
"""(kind, noise_multiplier, sampling_probability); probability 1 is no sampling."""
_GroupedEvents: TypeAlias = tuple[tuple[_Event, int], ...]
_Pld: TypeAlias = Any  # dp-accounting has no types
Epsilons: TypeAlias = Mapping[tuple[_GroupedEvents, float, float], float]
"""Answers by (events, delta, discretization)."""
_found: Final[dict[tuple[_GroupedEvents, float, float], float]] = {}
_FOUND_MAX: Final = 4096
_CHECKSUM_BITS: Final = 32
_GAUSSIAN, _DISCRETE = "gaussian", "discrete-gaussian"


def epsilon_of(
    records: Iterable[MechanismRecord], *, delta: float, discretization: float = DISCRETIZATION
) -> float:
    """Return epsilon at `delta` for the patient whom the records touch most.

    Args:
        records: every noisy step to account for, in any order.
        delta: between `limits.DELTA_MIN` and 1.
        discretization: width of the loss grid; a smaller one is slower and tighter.

    Raises:
        AccountingError: for a record of another kind, or with impossible numbers.

    Source: composition by PLD, Koskela et al. 2020 and Doroshenko et al. 2022 (pessimistic
    estimate); parallel composition, McSherry 2009, section 2.4.2.
    """
    return epsilon_of_counted(Counter(records), delta=delta, discretization=discretization)


def epsilon_of_counted(
    records: Mapping[MechanismRecord, int],
    *,
    delta: float,
    discretization: float = DISCRETIZATION,
) -> float:
    """Return `epsilon_of` for records given with how often each was or will be done."""
    by_part = epsilon_by_part(records, delta=delta, discretization=discretization)
    return max(by_part.values(), default=0.0)


def epsilon_by_part(
    records: Mapping[MechanismRecord, int],
    *,
    delta: float,
    discretization: float = DISCRETIZATION,
) -> dict[PatientPart, float]:
    """Return epsilon at `delta` for each elementary interval that any record touches.

    Args, raises: as `epsilon_of_counted`.
    """
    if not limits.DELTA_MIN <= delta < 1:
        raise _refuse_record(f"delta={delta}", f"delta in [{limits.DELTA_MIN}, 1)")
    return {
        part: _epsilon_of_events(_grouped(covering), delta, discretization)
        for part, covering in elementary_intervals(records)
    }


def guess_right_max_of(records: Mapping[MechanismRecord, int]) -> float:
    """Return how often, at most, a guess whether a patient is in the data is right.

    For somebody who starts at even odds and sees everything released: one half of 1 plus the total
    variation distance of neighbours, for the patient whom the records touch most. It never exceeds
    what epsilon and delta alone allow.

    Raises:
        AccountingError: as `epsilon_of`.
    """
    distances = [
        float(_composed_of(_grouped(covering), DISCRETIZATION).get_delta_for_epsilon(0.0))
        for _, covering in elementary_intervals(records)
    ]
    return min(1.0, (1 + max(distances, default=0.0)) / 2)


def epsilons_found() -> Epsilons:
    """Return what this process knows: for another one that will ask the same."""
    return dict(_found)


def take_epsilons(found: Epsilons) -> None:
    """Keep answers that this code found, here or in another process of one simulation.

    Never for what came over a network or from a file: a ledger would believe it.
    """
    for question, epsilon in found.items():
        while len(_found) >= _FOUND_MAX:
            del _found[next(iter(_found))]  # the oldest
        _found[question] = epsilon


def forget_distributions() -> None:
    """Free the privacy loss distributions kept for the next question; known epsilons stay.

    Each can take a megabyte. For a process that asks about many ledgers in step, as a simulation
    does: the distributions of earlier rounds are of no use to it.
    """
    _composed.cache_clear()
    _pld_of.cache_clear()


def elementary_intervals(
    records: Mapping[MechanismRecord, int],
) -> tuple[tuple[PatientPart, dict[MechanismRecord, int]], ...]:
    """Return each elementary interval that any record touches, with the records that cover it.

    Raises:
        AccountingError: for a record of another kind, or with impossible numbers.
    """
    for record, count in records.items():
        check_record(record)
        if type(count) is not int or count < 1:
            raise _refuse_record(f"{count} times a record", "a whole number from 1")
    ends = sorted({end for record in records for end in (record.part.first, record.part.stop)})
    intervals: list[tuple[PatientPart, dict[MechanismRecord, int]]] = []
    for first, stop in itertools.pairwise(ends):
        covering = {
            record: count
            for record, count in records.items()
            if record.part.first <= first and stop <= record.part.stop
        }
        if covering:
            intervals.append((PatientPart(first, stop), covering))
    return tuple(intervals)


def _grouped(records: Mapping[MechanismRecord, int]) -> _GroupedEvents:
    counts: Counter[_Event] = Counter()
    for record, count in records.items():
        if isinstance(record, DpSgdSteps):
            event = (_GAUSSIAN, record.noise_multiplier, record.sampling_probability)
            counts[event] += record.steps * count
        elif isinstance(record, DiscreteGaussianCounts):
            event = (_DISCRETE, record.noise_multiplier, 1.0)
            counts[event] += record.cells_per_patient_max * count
        else:
            counts[(_GAUSSIAN, record.noise_multiplier, 1.0)] += count
    return tuple(sorted(counts.items()))


def _epsilon_of_events(events: _GroupedEvents, delta: float, discretization: float) -> float:
    known = _found.get((events, delta, discretization))
    if known is not None:
        return known
    epsilon = float(_composed_of(events, discretization).get_epsilon_for_delta(delta))
    if not math.isfinite(epsilon):
        raise _refuse_record("records whose epsilon is not finite", "a finite epsilon")
    take_epsilons({(events, delta, discretization): max(epsilon, 0.0)})
    return max(epsilon, 0.0)


def _composed_of(events: _GroupedEvents, discretization: float) -> _Pld:
    is_fine = any(
        kind == _DISCRETE and noise_multiplier > _FINE_ABOVE_NOISE_MULTIPLIER
        for (kind, noise_multiplier, _), _ in events
    )
    width = min(discretization, FINE_DISCRETIZATION) if is_fine else discretization
    return _composed(events, width, 0)


@lru_cache(maxsize=512)
def _composed(events: _GroupedEvents, discretization: float, bit: int) -> _Pld:
    # Halves are chosen by a checksum of each event, so that one more round or study recomposes only
    # its own path through them, and most compositions are of short distributions.
    if len(events) == 1:
        return _pld_of(*events[0], discretization)
    halves = tuple(
        tuple(item for item in events if crc32(repr(item[0]).encode()) >> bit & 1 == side)
        for side in (0, 1)
    )
    if bit == _CHECKSUM_BITS:  # equal checksums: one by one
        halves = (events[:1], events[1:])
        bit -= 1
    left, right = (_composed(half, discretization, bit + 1) if half else None for half in halves)
    if left is None or right is None:
        return right if left is None else left
    return left.compose(right)


@lru_cache(maxsize=512)
def _pld_of(event: _Event, count: int, discretization: float) -> _Pld:
    kind, noise_multiplier, sampling_probability = event
    if kind == _GAUSSIAN and sampling_probability == 1:
        return _single((kind, noise_multiplier / math.sqrt(count), 1.0), discretization)
    return _single(event, discretization).self_compose(count)


@lru_cache(maxsize=1)
def _library() -> Any:
    # Imported here: it loads much of SciPy, and who asks nothing need not wait for that.
    with collector_at_rest():
        from dp_accounting.pld import privacy_loss_distribution
    return privacy_loss_distribution


# A ledger is asked after every round: the same event, once more. What one costs is found once.
@lru_cache(maxsize=64)
def _single(event: _Event, discretization: float) -> _Pld:
    pld = _library()
    kind, noise_multiplier, sampling_probability = event
    if kind == _DISCRETE:
        # Connect the dots: as pessimistic as the library's default for this mechanism, and tighter.
        return pld.from_discrete_gaussian_mechanism(
            noise_multiplier,
            sensitivity=1,
            value_discretization_interval=discretization,
            use_connect_dots=True,
        )
    return pld.from_gaussian_mechanism(
        noise_multiplier,
        sampling_prob=sampling_probability,
        value_discretization_interval=discretization,
    )


def check_record(record: MechanismRecord) -> None:
    """Check one record; raises `AccountingError` for another kind or impossible numbers."""
    # Exact types: a subclass could mean another mechanism.
    if type(record) not in (DpSgdSteps, GaussianVector, DiscreteGaussianCounts):
        raise _refuse_record(
            f"a record of type {type(record).__name__}",
            "dp-sgd-steps, gaussian-vector or discrete-gaussian-counts",
        )
    is_discrete = isinstance(record, DiscreteGaussianCounts)
    lowest = limits.NOISE_MULTIPLIER_MIN
    highest = limits.DISCRETE_NOISE_MULTIPLIER_MAX if is_discrete else limits.NOISE_MULTIPLIER_MAX
    _check_number("noise_multiplier", record.noise_multiplier, lowest, highest)
    part = record.part
    if not 0 <= part.first < part.stop <= PATIENT_HASH_PARTS:
        raise _refuse_record(
            f"patients from {part.first} to {part.stop}",
            f"0 <= first < stop <= {PATIENT_HASH_PARTS}",
        )
    if isinstance(record, DiscreteGaussianCounts):
        cells, most = record.cells_per_patient_max, limits.CELLS_PER_PATIENT_MAX
        _check_number("cells_per_patient_max", cells, 1, most)
    if isinstance(record, DpSgdSteps):
        if not 0 < record.sampling_probability <= 1:
            raise _refuse_record(
                f"sampling_probability={record.sampling_probability}", "a number in (0, 1]"
            )
        _check_number("steps", record.steps, 1, limits.STEPS_TOTAL_MAX)


def _check_number(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise _refuse_record(f"{name}={value}", f"a number in [{lowest}, {highest}]")


def _refuse_record(arrived: str, expected: str) -> AccountingError:
    return AccountingError(
        "a mechanism record cannot be accounted for",
        expected=expected,
        arrived=arrived,
        todo="report this as a fault; nothing may be released under such a record",
    )
