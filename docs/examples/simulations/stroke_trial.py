"""Stroke in the countries, or in 100 hospitals, of a trial: what does privacy cost, and whom?

    python docs/examples/simulations/stroke_trial.py countries     # or: hospitals

Sites are the countries of the International Stroke Trial, or its 100 largest hospitals; the plan is
docs/examples/stroke-outcome.toml, with 50 rounds for the countries. The data (ODC-By 1.0) are
IST.csv.gz in the folder stroke_ist of $COHORTIUM_DATA; Sandercock et al., Trials 2011;12:101.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import simulations
from common.study.plan import StudyPlan
from common.study.plan_file import read_plan
from simulations.baselines import ALL_BASELINES

HERE = Path(__file__).parent
PLAN = HERE.parent / "stroke-outcome.toml"
COLUMNS = {"countries": "COUNTRY", "hospitals": "HOSPNUM"}
ROUNDS = {"countries": 50, "hospitals": 15}
HOSPITALS = 100
SMALLEST = 20  # fewer patients than this no site may bring: three countries stay out


def write_patients(published: Path, folder: Path, unit: str) -> simulations.DataSet:
    """Write the patients with known outcome, and describe them as a site does."""
    with gzip.open(published, "rt", encoding="latin-1", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["OCCODE"] in {"1", "2", "3", "4"}]
    if unit == "hospitals":
        largest = Counter(row["HOSPNUM"] for row in rows).most_common(HOSPITALS)
        rows = [row for row in rows if row["HOSPNUM"] in dict(largest)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "patients.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    described = simulations.DataSet.read(HERE / "stroke-outcome.data.toml")
    return simulations.DataSet(described.mapping, folder=folder)


def study(unit: str, folder: Path) -> tuple[StudyPlan, simulations.Partition]:
    """Return the plan and the sites."""
    published = Path(os.environ.get("COHORTIUM_DATA", "../shared/data")) / "stroke_ist/IST.csv.gz"
    plan = read_plan(PLAN)
    data = write_patients(published, folder / "data", unit)
    return plan, simulations.by_column(data, plan, COLUMNS[unit], patients_min=SMALLEST)


def compare(
    unit: str,
    folder: Path,
    *,
    epsilons: Sequence[float] = (1.0, 3.0, math.inf),
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    workers: int | None = None,
    baselines: Sequence[str] = ALL_BASELINES,
) -> simulations.Sweep:
    """Run the study at each epsilon with each seed, and write tables, figures and a report."""
    plan, sites = study(unit, folder)
    for words in sites.left_out:
        print(f"left out: {words}", file=sys.stderr)
    found = simulations.sweep(
        plan,
        sites,
        vary={"training.rounds": [ROUNDS[unit]], "privacy.epsilon": epsilons},
        seeds=seeds,
        folder=folder,
        workers=workers,
        baselines=baselines,
        progress=lambda done, kept, runs: print(f"{done} of {runs} made", file=sys.stderr),
    )
    words = f"the International Stroke Trial, {len(sites)} {unit}"
    simulations.write_sweep(found, words=words, left_out=sites.left_out)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("unit", choices=list(COLUMNS))
    parser.add_argument("--epsilon", type=float, nargs="+", default=[1.0, 3.0, math.inf])
    parser.add_argument("--out", type=Path, default=Path("runs/stroke-trial"))
    parser.add_argument("--no-baselines", action="store_true", help="train none beside the cells")
    arguments = parser.parse_args()
    folder = arguments.out / arguments.unit
    beside = () if arguments.no_baselines else ALL_BASELINES
    found = compare(arguments.unit, folder, epsilons=arguments.epsilon, baselines=beside)
    print(found.summary.to_string(index=False))
    print(f"\nreport: {found.folder / 'report.html'}")


if __name__ == "__main__":  # the processes of a sweep import this file
    main()
