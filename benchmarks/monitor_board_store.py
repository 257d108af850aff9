"""How fast a monitor board takes reports, and loads a year of a thousand sites.

    python -m benchmarks.monitor_board_store [--sites 1000] [--weeks 52] [--taken 2000]

Taking is the whole inbox (verify, open, check, chain, receipt, commit); loading is what signals and
pages begin with. The store is SQLite in a temporary folder. Seconds are of CPU, because others may
use the machine.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
from sqlalchemy import insert

from common.canonical import digest_bytes
from common.ids import SiteId
from common.study.report_periods import period_at
from common.study.report_tensors import ReportKind
from server.monitor_board.inbox import Outcome
from server.monitor_board.report_chain import Arrived
from server.monitor_board.storage.tables import envelopes, reports
from tests.lib.board_world import STUDY, BoardSide, World, make_board, make_world
from tests.lib.plans import make_plan

WEEK_S: Final = 7 * 86_400
BATCH: Final = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--taken", type=int, default=2000)
    asked = parser.parse_args()
    plan = make_plan(
        monitoring={
            "sentinel_features": ["age", "systolic_bp", "sex"],
            "epsilon_per_report": 2.0,
            "every": "week",
            "periods_max": 60,
            "late_days": 366,
        }
    )
    names = [f"site-{number:04d}" for number in range(asked.sites)]
    world = make_world(sites=names, plan=plan)
    with tempfile.TemporaryDirectory() as folder:
        board = make_board(world, Path(folder))
        measure_taking(world, board, asked.taken)
    with tempfile.TemporaryDirectory() as folder:
        board = make_board(world, Path(folder))
        measure_loading(world, board, names, asked.weeks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:.0f} MiB")


def measure_taking(world: World, board: BoardSide, count: int) -> None:
    """Take sealed reports through the whole inbox, in batches as the collector does."""
    sites = [world.sites[site_id] for site_id in list(world.sites)[:count]]
    period = period_at(world.clock.seconds - WEEK_S, "week").label
    arrived = [
        Arrived(number, world.report(site.site_id, period=period), world.clock.seconds)
        for number, site in enumerate(sites, start=1)
    ]
    began = time.process_time()
    taken = [
        item
        for start in range(0, len(arrived), BATCH)
        for item in board.inbox.take(arrived[start : start + BATCH], stream="reports")
    ]
    took = time.process_time() - began
    used = sum(item.outcome is Outcome.USED for item in taken)
    each_ms = 1000 * took / len(taken)
    print(f"taking: {used} reports used in {took:.1f} s of CPU, {each_ms:.2f} ms each")


def measure_loading(world: World, board: BoardSide, names: list[str], weeks: int) -> None:
    """Insert rows as the inbox writes them, then load a study as signals do."""
    draws = np.random.default_rng(1)
    counts = world.noisy(ReportKind.CASE_MIX, 2000).astype("<i4")
    labels = [period_at(world.clock.seconds - back * WEEK_S, "week").label for back in range(weeks)]
    began = time.process_time()
    with board.database.transaction() as connection:
        for site in names:
            rows = []
            for sequence, period in enumerate(reversed(labels), start=1):
                digest = digest_bytes("benchmark", site.encode(), period.encode())
                rows.append(_row(site, sequence, period, digest, draws.permutation(counts)))
            connection.execute(
                insert(envelopes), [{"digest": row["digest"], "content": b""} for row in rows]
            )
            connection.execute(insert(reports), rows)
    print(f"inserting: {len(names) * weeks} rows in {time.process_time() - began:.1f} s of CPU")
    began = time.process_time()
    kept = board.store.kept_reports(STUDY)
    loaded = time.process_time()
    patients = sum(int(report.tensors["scores"].values.sum()) for report in kept)
    touched = time.process_time()
    print(f"loading: {len(kept)} reports in {loaded - began:.1f} s", end="")
    print(f", one tensor of each in {touched - loaded:.1f} s ({patients} counted)")
    began = time.process_time()
    cells = sum(item.values.size for report in kept for item in report.tensors.values())
    print(f"every tensor: {cells} cells in {time.process_time() - began:.1f} s of CPU")


def _row(
    site: str, sequence: int, period: str, digest: str, counts: np.ndarray
) -> dict[str, object]:
    return {
        "study_id": STUDY,
        "site_id": SiteId(site),
        "sequence": sequence,
        "digest": digest,
        "kind": "case-mix",
        "period": period,
        "model_version": digest,
        "roster": digest,
        "key_epoch": 1,
        "position": sequence,
        "received_at_s": 0,
        "taken_at_s": 0,
        "refusal": "",
        "counts": counts.tobytes(),
        "epsilon_spent": 1.0,
        "epsilon_remaining": 1.0,
        "delta": 1e-6,
        "detail": "{}",
    }


if __name__ == "__main__":
    main()
