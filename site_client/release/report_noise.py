"""From exact counts of a report, which never leave, to noised ones, which may."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.ids import Digest
from common.privacy.discrete_gaussian import Words, discrete_gaussian, variance_of
from common.study.plan import StudyPlan
from common.study.report_tensors import ReportKind, report_tensors, schema_digest

_MAKER: Final = object()


class ExactCounts:
    """How many patients are in each cell, exactly; shown in no message and no repr."""

    __slots__ = ("_cells",)

    def __init__(self, cells: npt.NDArray[np.int64]) -> None:
        self._cells = cells

    def __repr__(self) -> str:
        return f"ExactCounts of {len(self._cells)} cells"

    def for_the_site_alone(self) -> npt.NDArray[np.int64]:
        """Return the counts [cells], for what stays at the site."""
        return self._cells


class NoisedCounts:
    """Counts with the noise of their schema; only `noised` makes them."""

    __slots__ = ("cells", "is_reproducible", "schema")

    def __init__(
        self,
        cells: npt.NDArray[np.int64],
        schema: Digest,
        *,
        is_reproducible: bool,
        maker: object,
    ) -> None:
        if maker is not _MAKER:
            message = "only `noised` makes NoisedCounts"
            raise TypeError(message)
        self.cells = cells
        self.schema = schema
        self.is_reproducible = is_reproducible


def noised(
    exact: ExactCounts,
    plan: StudyPlan,
    kind: ReportKind,
    *,
    words: Words,
    is_reproducible: bool,
) -> NoisedCounts:
    """Return the counts with fresh exact discrete Gaussian noise in each cell.

    Args:
        exact: in the order of `report_tensors(plan, kind)`.
        plan, kind: say each tensor's noise.
        words: fresh ones of the operating system.
        is_reproducible: whether they are of the test mode; a real ledger refuses that.
    """
    cells = exact.for_the_site_alone().copy()
    place = 0
    for tensor in report_tensors(plan, kind):
        variance = variance_of(tensor.noise_multiplier)
        for cell in range(place, place + tensor.cells):
            cells[cell] += discrete_gaussian(variance, words)
        place += tensor.cells
    schema = schema_digest(plan, kind)
    return NoisedCounts(cells, schema, is_reproducible=is_reproducible, maker=_MAKER)
