"""Sixty features from MEDS events: ours against pandas and hand-written Polars on the same files.

    python -m benchmarks.feature_build [--events 1000000,10000000,100000000] [--pandas 50000000]
        [--polars 100000000] [--repeats 3] [--folder FOLDER]

The largest data set is generated, the others are its first shards. Every measurement is a process
of its own: seconds from the folder to the values, without imports; peak memory is the process'.
Ours also checks the files, counts what it left out and why, and finds out which codes the data
have; the matrix that training reads is made after the clock of the comparison stops and is listed
by itself. All values are compared at the smallest size.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.features.generate import EVENTS_PER_PATIENT, PATIENTS_PER_SHARD, write_meds
from benchmarks.features.study import sixty_feature_plan

PROGRAMS = ("cohortium", "polars", "pandas", "pandas_by_feature")


def measure(program: str, folder: Path, save: Path | None) -> dict[str, float]:
    """Run one program in this process."""
    plan = sixty_feature_plan()
    module = importlib.import_module(f"benchmarks.features.in_{program}")
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    values, subjects, *more = module.features_of(folder, plan)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "seconds": seconds,
        "processor_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "rows": len(values),
    }
    if more:
        started = time.perf_counter()
        more[0]()
        found["matrix_s"] = time.perf_counter() - started
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if save:
        np.savez(save, values=values, subjects=subjects)
    return found


def in_own_process(program: str, folder: Path, save: Path | None = None) -> dict[str, float] | None:
    """Return the figures, or none when the program did not come to an end."""
    command = [sys.executable, "-m", "benchmarks.feature_build", "--measure", program, str(folder)]
    done = subprocess.run(
        [*command, *([str(save)] if save else [])], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{program}: ended with {done.returncode}: {done.stderr[-300:]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def slice_of(whole: Path, events: int, folder: Path) -> Path:
    """Return a data set of the first shards, as links."""
    shards = max(1, round(events / EVENTS_PER_PATIENT / PATIENTS_PER_SHARD))
    (folder / "data/train").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for name in ("dataset.json", "codes.parquet"):
        os.link(whole / "metadata" / name, folder / "metadata" / name)
    for number in range(shards):
        name = f"data/train/{number}.parquet"
        os.link(whole / name, folder / name)
    return folder


def compare(folder: Path, programs: list[str], scratch: Path) -> None:
    """Raise unless all programs give the same rows and values."""
    plan = sixty_feature_plan()
    found = {}
    for program in programs:
        if in_own_process(program, folder, scratch / f"{program}.npz") is None:
            raise SystemExit(f"{program} failed on the smallest slice")
        found[program] = np.load(scratch / f"{program}.npz")
    ours = found["cohortium"]
    for program in programs[1:]:
        if not np.array_equal(ours["subjects"], found[program]["subjects"]):
            raise SystemExit(f"{program}: other rows")
        for place, feature in enumerate(plan.features):
            # Numbers are 32 bits in the files; ours are the decimals that they stand for.
            np.testing.assert_allclose(
                found[program]["values"][:, place],
                ours["values"][:, place],
                rtol=1e-5,
                atol=1e-5,
                err_msg=f"{program}, {feature.name}",
            )
    print(f"equal values: {', '.join(programs)}; {ours['values'].shape[0]} rows x 60 features")


def run(options: argparse.Namespace, scratch: Path) -> None:
    """Generate, compare, measure, print."""
    sizes = sorted(int(size) for size in options.events.split(","))
    most = {
        "cohortium": sizes[-1],
        "polars": options.polars,
        "pandas": options.pandas,
        "pandas_by_feature": options.pandas,
    }
    if importlib.util.find_spec("polars") is None:
        print("without Polars: it is not installed (pip install polars)")
        most["polars"] = 0
    programs = [name for name in PROGRAMS if most[name]]
    every = sorted({*sizes, *(most[name] for name in programs if most[name] <= sizes[-1])})
    whole = scratch / "whole"
    started = time.perf_counter()
    events = write_meds(whole, patients=every[-1] // EVENTS_PER_PATIENT)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{events:,} events written in {time.perf_counter() - started:.0f} s", flush=True)
    for size in every:
        folder = slice_of(whole, size, scratch / str(size))
        if size == every[0]:
            compare(folder, programs, scratch)
        for path in folder.glob("data/**/*.parquet"):
            path.read_bytes()  # every program finds the files in the page cache
        table(folder, size, [name for name in programs if most[name] >= size], options.repeats)


def table(folder: Path, size: int, programs: list[str], repeats: int) -> None:
    """Measure in turn, and print the medians."""
    runs: dict[str, list[Any]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name in programs:
            runs[name].append(in_own_process(name, folder))
    print(
        f"\n| {size:,} events | seconds | processor s | of ours | peak MB |\n|---|---|---|---|---|"
    )
    ours = float("nan")
    for name in programs:
        ended = [found for found in runs[name] if found]
        if not ended:
            print(f"| {name} | does not fit | | | |")
            continue
        median = {key: statistics.median(found[key] for found in ended) for key in ended[0]}
        ours = median["seconds"] if name == "cohortium" else ours
        figures = f"{median['seconds']:.2f} | {median['processor_s']:.2f}"
        print(f"| {name} | {figures} | {median['seconds'] / ours:.2f} | {median['peak_mb']:.0f} |")
        if "matrix_s" in median:
            print(f"| - matrix for training | {median['matrix_s']:.2f} | | | |", flush=True)


def main() -> None:
    """Read the command line."""
    if sys.argv[1:2] == ["--measure"]:
        save = Path(sys.argv[4]) if len(sys.argv) > 4 else None
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]), save)))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", default="1000000,10000000,100000000")
    parser.add_argument("--pandas", type=int, default=50_000_000)
    parser.add_argument("--polars", type=int, default=100_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the generated data; removed afterwards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="feature-build-") as scratch:
        run(options, Path(scratch))


if __name__ == "__main__":
    main()
