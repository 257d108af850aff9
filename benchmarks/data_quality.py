"""The data quality of one million rows with 60 features: figures, both reports, one page.

    python benchmarks/data_quality.py            # about ten seconds on one core
    python benchmarks/data_quality.py --rows 100000

Reading the rows is not in it. Fifty numeric features, half of them with many ties, a fifth of the
values missing; ten categorical ones. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from common.study.plan import StudyPlan
from site_client.features.site_rows import SiteRows
from site_client.quality.page import page_of
from site_client.quality.report import report_quality
from site_client.sources.table import FeatureCounts, PatientTable
from tests.lib.plans import make_document, make_plan

NUMERIC, CATEGORICAL = 50, 10


def plan_of_sixty() -> StudyPlan:
    """Return a plan with 50 numeric and 10 categorical features."""
    _, number, words = make_document()["features"]
    features = [number | {"name": f"number_{place}"} for place in range(NUMERIC)]
    features += [words | {"name": f"words_{place}"} for place in range(CATEGORICAL)]
    return make_plan(features=features, fairness_groups=[{"feature": "words_0"}], monitoring=...)


def table_of(plan: StudyPlan, rows: int) -> PatientTable:
    """Return generated rows."""
    rng = np.random.default_rng(1)
    numeric = {
        f"number_{place}": np.where(
            rng.random(rows) < 0.2, np.nan, rng.normal(140, 20, rows).round(0 if place % 2 else 9)
        )
        for place in range(NUMERIC)
    }
    levels = {f"words_{place}": rng.integers(-1, 2, rows) for place in range(CATEGORICAL)}
    return PatientTable(
        subject_ids=tuple(map(str, range(rows))),
        numeric=numeric,
        levels=levels,
        label=(rng.random(rows) < 0.1).astype(np.float32),
        counts={item.name: FeatureCounts(rows) for item in plan.features},
        unlabelled=0,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    plan = plan_of_sixty()
    table = table_of(plan, rows)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began, began_cpu = time.perf_counter(), time.process_time()
    report = report_quality(plan, SiteRows(table, None))
    figures_s = time.perf_counter() - began
    pages = [page_of(report.local()), page_of(report.shareable())]
    total_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    print(
        json.dumps(
            {
                "rows": rows,
                "features": len(plan.features),
                "figures_s": round(figures_s, 2),
                "total_s": round(total_s, 2),
                "cpu_s": round(cpu_s, 2),
                "more_memory_mib": round(
                    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib
                ),
                "page_bytes": [len(page.encode()) for page in pages],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
