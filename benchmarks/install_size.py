"""Time and size of installing the site extra alone, into a fresh virtual environment.

python benchmarks/install_size.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "venv"
        started = time.perf_counter()
        venv.create(folder, with_pip=True)
        python = str(folder / "bin" / "python")
        constraints = str(ROOT / "constraints.txt")
        subprocess.run([python, *PIP, "torch==2.13.0"], check=True)
        subprocess.run([python, *PIP, "-c", constraints, f"{ROOT}[site]"], check=True)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        done = subprocess.run(
            [python, "-m", "pip", "list", "--format=freeze"],
            capture_output=True,
            text=True,
            check=True,
        )
        names = [line.split("==")[0] for line in done.stdout.splitlines()]
        torch = sum(
            path.stat().st_size
            for path in folder.rglob("site-packages/torch/**/*")
            if path.is_file()
        )
    print("| what | value |\n|---|---|")
    print(f"| seconds | {seconds:.0f} |\n| MB | {size / 1e6:.0f} |")
    print(f"| of it torch, MB | {torch / 1e6:.0f} |\n| packages | {len(names)} |")
    for name in ("ray", "scikit-learn"):
        if name in names:
            print(f"the site has {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
