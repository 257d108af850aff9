"""OpenBLAS is told its kernels where, and only where, it mistakes the processor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.openblas import AVX512_KERNELS, KERNELS, THREADS, set_openblas

AVX512 = "avx512f avx512dq avx512cd avx512bw avx512vl"


def _processors(folder: Path, *, vendor: str, family: int, flags: str) -> Path:
    path = folder / "cpuinfo"
    block = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nflags\t\t: fpu avx2 {flags}\n"
    path.write_text(f"processor\t: 0\n{block}\nprocessor\t: 1\n{block}\n")
    return path


def test_zen_5_is_told_the_kernels_that_it_can_run(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    processors = _processors(tmp_path, vendor="AuthenticAMD", family=26, flags=AVX512)
    set_openblas(environment, processors=processors)
    assert environment == {KERNELS: AVX512_KERNELS, THREADS: "1"}


@pytest.mark.parametrize(
    ("vendor", "family", "flags"),
    [
        ("AuthenticAMD", 25, AVX512),
        ("GenuineIntel", 26, AVX512),
        ("AuthenticAMD", 26, "avx512f avx512dq"),
        ("AuthenticAMD", 26, ""),
    ],
)
def test_other_processors_are_left_to_openblas(
    tmp_path: Path, vendor: str, family: int, flags: str
) -> None:
    environment: dict[str, str] = {}
    processors = _processors(tmp_path, vendor=vendor, family=family, flags=flags)
    set_openblas(environment, processors=processors)
    assert environment == {THREADS: "1"}


def test_the_choice_of_whoever_starts_us_stays(tmp_path: Path) -> None:
    environment = {KERNELS: "Haswell", THREADS: "2"}
    processors = _processors(tmp_path, vendor="AuthenticAMD", family=26, flags=AVX512)
    set_openblas(environment, processors=processors)
    assert environment == {KERNELS: "Haswell", THREADS: "2"}


def test_openblas_takes_the_threads_that_a_site_grants(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    set_openblas(environment, threads=3, processors=tmp_path / "none")
    assert environment == {THREADS: "3"}


def test_without_a_list_of_processors_no_kernels_are_named(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    set_openblas(environment, processors=tmp_path / "none")
    assert environment == {THREADS: "1"}


@pytest.mark.parametrize("module", ["site_client.agent_main", "simulations.cli"])
def test_a_process_that_trains_tells_openblas_before_numpy_is_loaded(module: str) -> None:
    asked = f"import sys, {module}; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0
