"""Death after intensive care in the hospitals of five regions: what does privacy cost, and whom?

    python docs/examples/simulations/icu_regions.py

Sites are the regions of the hospitals of the eICU demo (v2.0.1, ODbL 1.0; Pollard et al., Sci Data
2018;5:180178; those without a region are one more), in the folder eicu_demo of $COHORTIUM_DATA; the
plan is icu-death.toml. A patient with several stays counts with the first, so that nobody is in
two sites or on both sides of a split.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import simulations
from common.study.plan import StudyPlan
from common.study.plan_file import read_plan
from simulations.baselines import ALL_BASELINES

HERE = Path(__file__).parent
PLAN = HERE / "icu-death.toml"
GCS = ["eyes", "motor", "verbal"]


def write_patients(published: Path, folder: Path) -> simulations.DataSet:
    """Write one row for each patient, with the region, and describe the table as a site does."""
    stays = (
        pd.read_csv(published / "patient.csv.gz")
        .merge(pd.read_csv(published / "apacheapsvar.csv.gz"), on="patientunitstayid")
        .merge(pd.read_csv(published / "hospital.csv.gz"), on="hospitalid", how="left")
    )
    stays = stays[stays["hospitaldischargestatus"].isin(["Alive", "Expired"])]
    order = ["uniquepid", "patienthealthsystemstayid", "unitvisitnumber"]
    first = stays.sort_values(order).drop_duplicates("uniquepid")
    is_scored = (first[GCS] > 0).all(axis=1)
    first = first.assign(
        age=first["age"].replace("> 89", "90"),
        gender=first["gender"].where(first["gender"].isin(["Female", "Male"])),
        gcs=first[GCS].sum(axis=1).where(is_scored),
        region=first["region"].fillna("no region"),
    )
    first = first[pd.to_numeric(first["age"]) >= 18]
    folder.mkdir(parents=True, exist_ok=True)
    first.to_csv(folder / "patients.csv", index=False)
    described = simulations.DataSet.read(HERE / "icu-death.data.toml")
    return simulations.DataSet(described.mapping, folder=folder)


def study(folder: Path) -> tuple[StudyPlan, simulations.Partition]:
    """Return the plan and the regions."""
    plan = read_plan(PLAN)
    published = Path(os.environ.get("COHORTIUM_DATA", "../shared/data")) / "eicu_demo"
    data = write_patients(published, folder / "data")
    return plan, simulations.by_column(data, plan, "region")


def compare(
    folder: Path,
    *,
    epsilons: Sequence[float] = (1.0, 3.0, 8.0, math.inf),
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
    words = "the first stays of the eICU demo, by region"
    simulations.write_sweep(found, words=words, left_out=sites.left_out)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/icu-regions"))
    parser.add_argument("--no-baselines", action="store_true", help="train none beside the cells")
    arguments = parser.parse_args()
    beside = () if arguments.no_baselines else ALL_BASELINES
    found = compare(arguments.out, baselines=beside)
    print(found.summary.to_string(index=False))
    print(f"\nreport: {found.folder / 'report.html'}")


if __name__ == "__main__":  # the processes of a sweep import this file
    main()
