"""Heart disease in four hospitals: what does privacy cost, and whom?

    python docs/examples/simulations/heart_hospitals.py

Sites are the four hospitals of the UCI heart disease data (CC BY 4.0; Janosi, Steinbrunn,
Pfisterer, Detrano 1989, doi:10.24432/C52P4X), in the folder heart_uci of $COHORTIUM_DATA; the plan
is docs/examples/heart-disease.toml.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import simulations
from common.study.plan import StudyPlan
from common.study.plan_file import read_plan
from simulations.baselines import ALL_BASELINES

HERE = Path(__file__).parent
PLAN = HERE.parent / "heart-disease.toml"
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
COLUMNS = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"),
    *("slope", "ca", "thal", "num"),
)


def write_patients(published: Path, folder: Path) -> simulations.DataSet:
    """Write one table of the four files, with the hospital, and describe it as a site does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "patients.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["hospital", *COLUMNS])
        for hospital in HOSPITALS:
            text = (published / f"processed.{hospital}.data").read_text(encoding="utf-8")
            writer.writerows([hospital, *line.split(",")] for line in text.splitlines() if line)
    described = simulations.DataSet.read(HERE / "heart-disease.data.toml")
    return simulations.DataSet(described.mapping, folder=folder)


def study(folder: Path) -> tuple[StudyPlan, simulations.Partition]:
    """Return the plan and the four hospitals."""
    plan = read_plan(PLAN)
    published = Path(os.environ.get("COHORTIUM_DATA", "../shared/data")) / "heart_uci"
    data = write_patients(published, folder / "data")
    return plan, simulations.by_column(data, plan, "hospital")


def compare(
    folder: Path,
    *,
    epsilons: Sequence[float] = (0.5, 1.0, 3.0, 8.0, math.inf),
    seeds: Sequence[int] = tuple(range(1, 21)),
    workers: int | None = None,
    baselines: Sequence[str] = ALL_BASELINES,
) -> simulations.Sweep:
    """Run the study at each epsilon with each seed, and write tables, figures and a report."""
    plan, sites = study(folder)
    found = simulations.sweep(
        plan,
        sites,
        vary={"privacy.epsilon": epsilons},
        seeds=seeds,
        folder=folder,
        workers=workers,
        baselines=baselines,
        progress=lambda done, kept, runs: print(f"{done} of {runs} made", file=sys.stderr),
    )
    simulations.write_sweep(found, words="the four hospitals of the UCI heart disease data")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/heart-hospitals"))
    parser.add_argument("--no-baselines", action="store_true", help="train none beside the cells")
    arguments = parser.parse_args()
    beside = () if arguments.no_baselines else ALL_BASELINES
    found = compare(arguments.out, baselines=beside)
    print(found.summary.to_string(index=False))
    print(f"\nreport: {found.folder / 'report.html'}")


if __name__ == "__main__":  # the processes of a sweep import this file
    main()
