"""Seconds, memory and bytes of writing generated patients in each form.

    python benchmarks/generated_patients.py [--patients 20000] [--hospitals 1] [--form meds]

Each form is written by a process of its own, so that its peak memory is its own. 20,000 patients
are about a million events.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from simulations.populations import Form, Hospital, Population


def measure(form: Form, *, patients: int, hospitals: int) -> dict[str, float | int | str]:
    """Write a population of plain hospitals and return what it took."""
    sites = [
        Hospital(site_id=f"hospital-{number}", patients=patients // hospitals)
        for number in range(1, hospitals + 1)
    ]
    with tempfile.TemporaryDirectory() as name:
        wall, cpu = time.perf_counter(), time.process_time()
        written = Population(sites, seed=1).write(Path(name) / "population", form)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        files = [path for path in Path(name).rglob("*") if path.is_file()]
        return {
            "form": form.value,
            "events": sum(item.events for item in written),
            "wall_s": round(wall, 2),
            "cpu_s": round(cpu, 2),
            "written_mb": round(sum(path.stat().st_size for path in files) / 1e6),
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }


def main() -> None:
    """Print one line of JSON for each form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--hospitals", type=int, default=1)
    parser.add_argument("--form", choices=[form.value for form in Form])
    given = parser.parse_args()
    if given.form:
        found = measure(Form(given.form), patients=given.patients, hospitals=given.hospitals)
        print(json.dumps(found), flush=True)
        return
    print(json.dumps({"python": platform.python_version(), "machine": platform.machine()}))
    sizes = [f"--patients={given.patients}", f"--hospitals={given.hospitals}"]
    for form in Form:
        command = [sys.executable, __file__, f"--form={form.value}", *sizes]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
