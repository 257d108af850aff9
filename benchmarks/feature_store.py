"""The feature store: a full build, a second one, and one after the source grew by one per cent.

    python -m benchmarks.feature_store [--patients 100000] [--repeats 3] [--folder FOLDER]

Sixty features from generated MEDS shards, as in `benchmarks.feature_build`. The second build is the
command `cohortium-site features build` in a process of its own, its start included. The source
grows by a shard with new patients, or by one with further events of one patient in a hundred of
every shard; each time the file is another one, and goes before the next.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

from benchmarks.features.generate import DATA_UNTIL, write_meds
from benchmarks.features.study import sixty_feature_plan
from common.canonical import canonical_bytes
from common.clock import SystemClock
from common.ids import parse_site_id
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest
from site_client.config import SitePaths, read_site_config
from site_client.enrolment import SiteIdentity, make_request
from site_client.features.plan_files import PlanFiles
from site_client.features.store import FeatureStore
from site_client.features.store_build import FeatureBuilder
from site_client.site_features import builder_of
from site_client.sources.table_mapping import TableMapping

_NEW_PATIENTS = 10**12
_HOUR_US = 3_600_000_000
SITE = f"""
[site]
id = "benchmark"
declared_cohort_size = 1000
[limits]
epsilon_per_study = 4.0
epsilon_total = 8.0
delta_total = 1e-3
cohort_size_min = 50
[source]
kind = "meds"
path = "meds"
unit_column = "unit"
data_until = {DATA_UNTIL.isoformat()}
"""


def made_site(folder: Path) -> tuple[SitePaths, FeatureBuilder]:
    """Return a site with keys, and what builds its entries."""
    paths = SitePaths(folder)
    identity = SiteIdentity(parse_site_id("benchmark"), "A benchmark", "nobody")
    make_request(paths, identity, out=folder / "request.json", clock=SystemClock())
    paths.config.write_text(SITE)
    mapping = read_site_config(paths).source
    assert not isinstance(mapping, TableMapping)
    return paths, builder_of(mapping, paths=paths, clock=SystemClock())


def one_in_a_hundred(shards: list[Path], seed: int, *, are_new: bool) -> pa.Table:
    """Return events of one patient in a hundred: as new patients, or once more, hours later."""
    chance = np.random.default_rng(seed)
    parts = []
    for path in shards:
        table = parquet.read_table(path)
        subjects = table.column("subject_id").to_numpy()
        everybody = np.unique(subjects)
        chosen = chance.choice(everybody, max(1, len(everybody) // 100), replace=False)
        parts.append(table.filter(pa.array(np.isin(subjects, chosen))))
    table = pa.concat_tables(parts)
    if are_new:
        renamed = table.column("subject_id").to_numpy() + _NEW_PATIENTS * (seed + 1)
        return table.set_column(0, "subject_id", pa.array(renamed))
    times = table.column("time").combine_chunks().cast(pa.int64())
    later = compute.add(times, _HOUR_US * (seed + 1)).cast(pa.timestamp("us"))
    return table.set_column(1, "time", later)


def timed(what: Callable[[], object]) -> tuple[float, float]:
    """Return seconds and processor seconds."""
    seconds, processor = time.perf_counter(), time.process_time()
    what()
    return time.perf_counter() - seconds, time.process_time() - processor


def second_build(paths: SitePaths, plan: StudyPlan) -> tuple[float, float]:
    """Return seconds and processor seconds of the command when nothing changed."""
    # The plan was never a file; the command knows a file by its bytes, whatever they are.
    file = paths.home / "plan.toml"
    file.write_bytes(canonical_bytes(plan.study.id))
    files = PlanFiles(FeatureStore(paths.features).plan_files)
    files.remember(file.read_bytes(), plan_digest(plan))
    program = "from site_client.cli import main; main()"
    words = ["--home", str(paths.home), "features", "build", str(file)]
    before = os.times()
    started = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    seconds, after = time.perf_counter() - started, os.times()
    assert "nothing changed since" in answer.stdout, answer.stdout
    used = after.children_user + after.children_system
    return seconds, used - before.children_user - before.children_system


def run(folder: Path, *, patients: int, repeats: int) -> None:
    """Generate, build, grow, print."""
    paths, builder = made_site(folder / "site")
    events = write_meds(paths.home / "meds", patients=patients)
    plan = sixty_feature_plan()
    shards = sorted((paths.home / "meds/data/train").glob("*.parquet"))
    found: dict[str, list[tuple[float, float]]] = {"full build": []}
    for _ in range(repeats):
        found["full build"].append(timed(lambda: builder.build(plan, fresh=True)))
        found.setdefault("second build, the command", []).append(second_build(paths, plan))
        found.setdefault("rows from the store", []).append(
            timed(lambda: builder.rows(builder.build(plan).entry))
        )
    for seed in range(repeats):
        for name, are_new in (
            ("1 % more, new patients", True),
            ("1 % more, known patients", False),
        ):
            grown = paths.home / "meds/data/train/grown.parquet"
            parquet.write_table(
                one_in_a_hundred(shards, seed, are_new=are_new), grown, compression="zstd"
            )
            hows: list[str] = []
            cost = timed(lambda: hows.append(builder.build(plan).how))  # noqa: B023
            assert hows == ["increment"], hows
            found.setdefault(name, []).append(cost)
            grown.unlink()
    print(f"{events:,} events, {patients:,} patients, load {os.getloadavg()[0]:.1f}")
    whole = [statistics.median(column) for column in zip(*found["full build"], strict=True)]
    for name, costs in found.items():
        seconds, processor = (statistics.median(column) for column in zip(*costs, strict=True))
        share = f"{seconds / whole[0]:.1%} | {processor / whole[1]:.1%}"
        print(f"| {name} | {seconds:.2f} | {processor:.2f} | {share} |")
    entry = builder.build(plan).entry
    size = sum(path.stat().st_size for path in shards)
    print(f"an entry takes {entry.size_bytes / 1e6:.1f} MB, its source {size / 1e6:.1f} MB")


def main() -> None:
    """Read the words and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        run(Path(name), patients=options.patients, repeats=options.repeats)


if __name__ == "__main__":
    main()
