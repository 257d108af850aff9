"""Make the kept results of the worked examples again, with what each takes.

    python -m benchmarks.worked_examples [heart-hospitals icu-regions stroke-countries ...]

Runs each example's own command without baselines in a fresh folder, writes every seed's figures to
docs/examples/simulations/results, and prints the line of docs/simulating-a-study.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples" / "simulations"
COMMANDS = {
    "heart-hospitals": ("heart_hospitals.py",),
    "icu-regions": ("icu_regions.py",),
    "stroke-countries": ("stroke_trial.py", "countries"),
    "stroke-hospitals": ("stroke_trial.py", "hospitals"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="*", help="all when not given")
    for name in parser.parse_args().name or COMMANDS:
        before, began = _cpu_s(), time.monotonic()
        with tempfile.TemporaryDirectory(prefix="cohortium-example-") as folder:
            script, *words = COMMANDS[name]
            command = [
                sys.executable,
                str(EXAMPLES / script),
                *words,
                "--no-baselines",
                "--out",
                folder,
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            tables = Path(folder, *words, "tables")
            keep(name, json.loads((tables / "by_seed.json").read_text()))
        seconds = time.monotonic() - began
        print(f"{name}: wall {seconds:.0f} s, CPU {_cpu_s() - before:.0f} s", flush=True)
        print(line_of(name), flush=True)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def keep(name: str, rows: list[dict[str, Any]]) -> None:
    """Write every seed's figures, one line each."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    path = EXAMPLES / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def line_of(name: str) -> str:
    """Return the means over seeds as the page states them."""
    found: dict[str, list[float]] = {}
    for row in json.loads((EXAMPLES / "results" / f"{name}.json").read_text()):
        epsilon = row["privacy.epsilon"]
        words = "∞" if epsilon == "infinity" else f"{epsilon:g}"
        found.setdefault(words, []).append(row["auroc"])
    return ", ".join(f"{words}: {sum(all_) / len(all_):.3f}" for words, all_ in found.items())


if __name__ == "__main__":
    main()
