"""Secure sum with two aggregators: what a site, an aggregator and the board spend, against sites.

    python -m benchmarks.monitoring_sum

Real keys, envelopes and checks, the plan's noise left out; medians of milliseconds on one core.
  site        split, check tag, two envelopes (seal and sign)
  open        an aggregator's checks and opening of one share (A expands a seed, B decodes)
  sum         opening all shares again, adding them, sealing and signing the partial sum
  join        the board's opening of two partial sums, adding them, checking the tag
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.partial_sum import seal_partial_sum
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.roster import BoardRole
from server.monitor_board.aggregation import check_closing, open_share, sum_shares
from tests.lib.summing import AGGREGATORS, Consortium, summed_plan

A, B = BoardRole.AGGREGATOR_A, BoardRole.AGGREGATOR_B


def milliseconds(call: Callable[[], Any], *, times: int = 9) -> float:
    call()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return 1000 * statistics.median(seconds)


def measure(sites: int, *, bins: int) -> str:
    plan = summed_plan(sentinel_features=["age", "systolic_bp", "sex"], bins=bins)
    consortium = Consortium(Path(tempfile.mkdtemp()), sites=sites, plan=plan)
    vector = np.arange(consortium.cells, dtype=np.int64)
    consortium.report_all([vector] * sites)
    first = next(iter(consortium.sites))
    site_ms = milliseconds(lambda: consortium.split(first, vector))
    envelopes = consortium.relay.stored_reports[:2]
    shares: dict[BoardRole, dict[Any, bytes]] = {
        role: {report_digest(item): item for item in consortium.relay.stored_reports[place::2]}
        for place, role in enumerate((A, B))
    }
    closing = consortium.closing(
        acknowledged={role: frozenset(found) for role, found in shares.items()}
    )
    assert closing is not None
    notice = consortium.sign_closing(closing)

    def answer(role: BoardRole) -> bytes:
        here = consortium.aggregating(role)
        checked, digest = check_closing(notice, here, now_s=consortium.late_s)
        opened = {
            name: open_share(item, here, arrived_at_s=0) for name, item in shares[role].items()
        }
        sealed = seal_partial_sum(
            sum_shares(checked, opened, here),
            checked,
            closing_digest=digest,
            aggregator=AGGREGATORS[role],
            boards=[consortium.board.opening.sealing_key],
        )
        return sign_notice(sealed, {AGGREGATORS[role]: consortium.aggregators[role].signing})

    def opened(role: BoardRole, envelope: bytes) -> float:
        here = consortium.aggregating(role)
        return milliseconds(lambda: open_share(envelope, here, arrived_at_s=0))

    open_ms = [opened(role, envelope) for role, envelope in zip((A, B), envelopes, strict=True)]
    sum_ms = [milliseconds(partial(answer, role), times=3) for role in (A, B)]
    answers = [answer(A), answer(B)]
    join_ms = milliseconds(lambda: consortium.join(notice, answers))
    joined = consortium.join(notice, answers)
    assert np.array_equal(joined.counts, sites * vector)
    cells = [
        f"{sites}",
        f"{consortium.cells}",
        f"{site_ms:.1f}",
        f"{len(envelopes[0])} + {len(envelopes[1])}",
        f"{open_ms[0]:.1f} / {open_ms[1]:.1f}",
        f"{sum_ms[0]:.0f} / {sum_ms[1]:.0f}",
        f"{len(answers[0])}",
        f"{join_ms:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sites", type=int, nargs="+", default=[10, 50])
    arguments = parser.parse_args()
    print("| sites | cells | site ms | site bytes | open A / B ms | sum A / B ms", end=" ")
    print("| answer bytes | join ms |")
    print("|---|---|---|---|---|---|---|---|")
    for sites in arguments.sites:
        for bins in (10, 50):
            print(measure(sites, bins=bins), flush=True)


if __name__ == "__main__":
    main()
