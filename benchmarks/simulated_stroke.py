"""Seconds and memory of the stroke example: 36 countries, 50 rounds, epsilon 3, 5 seeds.

    python -m benchmarks.simulated_stroke

The whole command, without baselines, in a fresh folder so that nothing is read back: imports,
reading of the published table, runs, tables, figures and report. Three of the 36 countries have
fewer than 20 patients, below which no site takes part; the other 33 are asked in every round.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "simulations" / "stroke_trial.py"
GOAL_S = 300


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cohortium-benchmark-") as folder:
        command = [sys.executable, str(EXAMPLE), "countries", "--epsilon", "3", "--no-baselines"]
        command += ["--out", folder]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        told = json.loads((Path(folder) / "countries" / "sweep.json").read_text())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = told["summary"][0]
    print(f"{told['population']}; {told['runs']} runs of {row['training.rounds']} rounds")
    print(f"AUROC {row['auroc']:.4f} ({row['auroc_low']:.4f} to {row['auroc_high']:.4f})")
    print(f"wall {seconds:.1f} s (goal {GOAL_S}), CPU {used.ru_utime + used.ru_stime:.1f} s")
    print(f"peak of the largest process {used.ru_maxrss / 1024:.0f} MB, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
