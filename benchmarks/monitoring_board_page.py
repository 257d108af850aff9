"""Time of the board's pages at 1,000 sites with 52 weekly reports each, over real HTTP answers.

    python -m benchmarks.monitoring_board_page [--sites 1000] [--periods 52]

Reports are drawn from one law (no site differs), with the plan's tensors and rounded Gaussian noise
of the plan's deviations. Three times are measured: making all views from kept reports (signals and
pages' rows; done in the background when something arrives), a page from the views at hand, and the
report file.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence

import httpx
import numpy as np

from common.canonical import digest_bytes
from common.clock import FixedClock
from common.ids import SiteId, StudyId
from common.study.plan import StudyPlan
from common.study.report_periods import parse_period, report_late_s
from common.study.report_tensors import ReportKind, ReportTensor, TensorFamily
from server.monitor_board.kept_reports import CountedTensors, KeptReport, report_layout
from server.monitor_board.web.access import Access, token_digest
from server.monitor_board.web.app import Dashboard, make_app
from server.monitor_board.web.assets import read_assets
from server.monitor_board.web.report_file import report_html
from server.monitor_board.web.store_views import ProtocolRecords, StudyRecords, study_view
from server.monitor_board.web.view_source import ViewSource
from server.monitor_board.web.views import BoardView
from tests.lib.monitored import monitored_plan, weeks

PATIENTS = 2_000
MODEL = digest_bytes("benchmark", b"model")
REPEATS = 20
PATHS = (
    "overview",
    "overview?state=watch",
    "overview?words=site-09&page=2",
    "pooled",
    "model",
    "fairness",
    "privacy",
    "protocol",
    "decisions",
    "site/site-0007",
    "site/site-0007?courses=all",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--sites", type=int, default=1_000)
    arguments.add_argument("--periods", type=int, default=52)
    given = arguments.parse_args()
    plan = monitored_plan()
    reports = list(_reports(plan, given.sites, given.periods))
    print(f"{given.sites} sites, {given.periods} periods, {len(reports)} reports")
    last = parse_period(weeks(given.periods)[-1], "week")
    now_s = report_late_s(plan, ReportKind.OUTCOME, last) - 86_400
    records = StudyRecords(plan, reports, {}, (), ProtocolRecords(None, (), (), (), (), ()))
    began, own = time.perf_counter(), time.process_time()
    study = study_view(records, now_s=now_s)
    taken, own = time.perf_counter() - began, time.process_time() - own
    print(f"views from kept reports: {taken:.1f} s, of them {own:.1f} s of processor time")
    view = BoardView("benchmark", 1, "now", now_s, {study.study_id: study})
    asyncio.run(_pages(view, study.study_id))
    began = time.perf_counter()
    html = report_html(view)
    print(f"report file: {time.perf_counter() - began:.1f} s, {len(html) / 1e6:.1f} MB")


class _Kept:
    def __init__(self, view: BoardView) -> None:
        self._view = view

    def newest_position(self) -> int:
        return self._view.position

    def make(self) -> BoardView:
        return self._view


async def _pages(view: BoardView, study_id: str) -> None:
    tokens: list[str] = []
    access = Access(FixedClock(), on_new_token=tokens.append)
    source = ViewSource(_Kept(view), now_s=lambda: view.made_at_s, failed=print)
    board = Dashboard(source, access, read_assets(), token_digest("-"), ("board",))
    transport = httpx.ASGITransport(make_app(board))
    async with httpx.AsyncClient(transport=transport, base_url="http://board") as client:
        await client.post("/login", data={"token": tokens[-1]})
        print("page                               median ms   worst ms      KB")
        for path in PATHS:
            taken = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                answer = await client.get(f"/study/{study_id}/{path}")
                taken.append(1e3 * (time.perf_counter() - began))
                assert answer.status_code == 200, path
            size = len(answer.content) / 1e3
            print(f"{path:35}{statistics.median(taken):8.1f} {max(taken):10.1f} {size:8.0f}")


def _reports(plan: StudyPlan, sites: int, periods: int) -> Iterator[KeptReport]:
    draws = np.random.default_rng(5)
    asked = [(ReportKind.REFERENCE, "reference")]
    for label in weeks(periods):
        asked += [(ReportKind.CASE_MIX, label), (ReportKind.OUTCOME, label)]
    for sequence, (kind, period) in enumerate(asked, 1):
        layout = report_layout(plan, kind)
        parts = []
        for tensor, _ in layout.places.values():
            exact = draws.multinomial(PATIENTS, _shares(tensor), size=sites)
            noise = draws.normal(0, tensor.noise_multiplier, exact.shape)
            parts.append(exact + np.rint(noise).astype(np.int64))
        counts = np.concatenate(parts, axis=1).astype(np.int32)
        for place, row in enumerate(counts):
            yield KeptReport(
                study_id=StudyId(plan.study.id),
                site_id=SiteId(f"site-{place:04d}"),
                kind=kind,
                period=period,
                sequence=sequence,
                received_at_s=1_770_000_000 + sequence,
                tensors=CountedTensors(layout, row),
                model_version=MODEL,
                epsilon_spent=0.1 * sequence,
                epsilon_remaining=10.0,
                delta=1e-6,
                digest=digest_bytes("benchmark", f"{place}/{sequence}".encode()),
            )


def _shares(tensor: ReportTensor) -> Sequence[float]:
    """Return the law of one tensor: risk rises from bin to bin, and levels are alike."""
    if tensor.family not in (TensorFamily.OVERALL, TensorFamily.GROUPS):
        return np.full(tensor.cells, 1 / tensor.cells).tolist()
    bins = tensor.shape[-1]
    risk = (np.arange(bins) + 0.5) / bins
    of_label = np.stack([1 - risk, risk]) / bins
    levels = tensor.cells // (2 * bins)
    return np.broadcast_to(of_label / levels, (levels, 2, bins)).ravel().tolist()


if __name__ == "__main__":
    main()
