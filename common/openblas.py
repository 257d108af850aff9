"""What NumPy's linear algebra (OpenBLAS) is told, which it reads once, when NumPy is loaded."""

from __future__ import annotations

import os
from typing import Final

THREADS: Final = "OPENBLAS_NUM_THREADS"


def limit_threads(threads: int = 1) -> None:
    """Let a matrix product take as many threads, where it would take all cores by itself.

    Called before NumPy is loaded; a choice that stands in the environment stays.
    """
    os.environ.setdefault(THREADS, str(threads))
