"""What NumPy's linear algebra (OpenBLAS) is told; it reads its variables once, when it is loaded.

As many threads as a site grants; by itself it takes all cores. And its kernels, where it mistakes
the processor: up to 0.3.31 it takes AMD's family 26 (Zen 5) for one without AVX-512 and so needs
twice the time (OpenMathLib/OpenBLAS issue 6029, mended by pull request 6033).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

THREADS: Final = "OPENBLAS_NUM_THREADS"
KERNELS: Final = "OPENBLAS_CORETYPE"
AVX512_KERNELS: Final = "SkylakeX"
_AVX512: Final = frozenset({"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"})
"""What those kernels use; Linux lists an instruction set only where programs may use it."""
_PROCESSORS: Final = Path("/proc/cpuinfo")


def set_openblas(
    environment: MutableMapping[str, str] = os.environ,
    *,
    threads: int = 1,
    processors: Path = _PROCESSORS,
) -> None:
    """Set OpenBLAS' variables in the environment; call before NumPy is loaded.

    Args:
        environment: a choice that somebody made stays.
        threads: at most, for one product.
        processors: Linux' list; where there is none, no kernels are named.
    """
    environment.setdefault(THREADS, str(threads))
    try:
        first = processors.read_text(encoding="ascii", errors="replace").partition("\n\n")[0]
    except OSError:
        return
    pairs = (line.partition(":") for line in first.splitlines())
    found = {name.strip(): value.strip() for name, _, value in pairs}
    is_mistaken = found.get("vendor_id") == "AuthenticAMD" and found.get("cpu family") == "26"
    if is_mistaken and set(found.get("flags", "").split()) >= _AVX512:
        environment.setdefault(KERNELS, AVX512_KERNELS)
