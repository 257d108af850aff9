"""The common job by us and by the rivals, in turn, in one run: time, processors, memory.

    python -m benchmarks.peers [--job 10x10] [--rival pfl ...] [--repeats 3] [--json peers.json]

Every run is a fresh process; imports, start and end of all its processes count. The order changes
from repeat to repeat. `--job 10x10` is 10 sites and 10 rounds, `100x2` 100 sites and 2 rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import (
    FOLDER_VARIABLE,
    RIVALS,
    NotInstalled,
    Rival,
    environments_folder,
    installed,
    python_of,
)
from benchmarks.peers.process_tree import Measured, measure
from benchmarks.peers.table import print_table, ratio_lines

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "rivals"
JOBS = ("10x10", "100x2", "1000x2", "3x2")
OURS = Rival("ours", "Cohortium, local engine", (), "")
OURS_ON_RAY = Rival("ours-flower", "Cohortium, --engine flower", (), "")
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}


def main() -> None:
    options = _options()
    sites, rounds = (int(number) for number in options.job.split("x"))
    pythons = _pythons(options.rival, may_install=not options.no_install)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        folder = Path(scratch)
        _ours("first_model", str(folder), sites=sites, rounds=rounds)
        for repeat in range(options.repeats):
            # Who runs first changes, so that what warms the machine is nobody's advantage.
            names = list(pythons) if repeat % 2 == 0 else list(reversed(pythons))
            for name in names:
                print(f"{options.job}, repeat {repeat + 1}: {name} ...", file=sys.stderr)
                environment = {
                    "PEERS_SITES": str(sites),
                    "PEERS_ROUNDS": str(rounds),
                    "PEERS_SEED": str(options.seed + repeat),
                    "PEERS_FIRST_MODEL": str(folder / "first.npz"),
                    "PEERS_PLAN": str(folder / "plan.toml"),
                }
                runs[name].append(
                    _run(name, pythons[name], environment, folder, limit_s=options.limit)
                )
        alike = None
        if not options.no_agreement:
            words = _ours("agreement", str(options.seed), sites=sites, rounds=rounds)
            alike = json.loads(words.splitlines()[-1])
    record = {
        "job": options.job,
        "repeats": options.repeats,
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {sys.version.split()[0]}",
        "packages": {name: installed(python) for name, python in pythons.items()},
        "runs": runs,
        "agreement": alike,
    }
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    titles = {rival.name: rival.title for rival in (OURS, OURS_ON_RAY, *RIVALS)}
    print_table(
        options.job, titles, runs, our_epsilon=None if alike is None else alike["epsilon_ours"]
    )
    for line in ratio_lines(titles, runs):
        print(line)
    if alike is not None:
        print(_alike_line(alike))
        if not alike["is_alike"]:
            raise SystemExit("not alike: the two programs do not compute the same")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"The rivals' environments lie in {environments_folder()} ({FOLDER_VARIABLE}).",
    )
    names = [rival.name for rival in (*RIVALS, OURS_ON_RAY)]
    parser.add_argument("--job", choices=JOBS, default="10x10", help="sites x rounds")
    parser.add_argument("--rival", choices=names, action="append", help="again for another one")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the first repeat")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds of one run at most")
    parser.add_argument("--json", type=Path, help="write all runs here")
    parser.add_argument("--no-install", action="store_true", help="skip who is not installed")
    parser.add_argument("--no-agreement", action="store_true", help="skip the check of equality")
    options = parser.parse_args()
    options.rival = options.rival or [rival.name for rival in RIVALS]
    return options


def _pythons(names: Sequence[str], *, may_install: bool) -> dict[str, Path]:
    """Return the interpreter of everyone who runs, us first; say who is skipped and why."""
    found = {OURS.name: Path(sys.executable)}
    for rival in (OURS_ON_RAY, *RIVALS):
        if rival.name not in names:
            continue
        if not rival.packages:  # ourselves, and the plain loop with the same torch and Opacus
            found[rival.name] = Path(sys.executable)
            continue
        try:
            found[rival.name] = python_of(rival, environments_folder(), may_install=may_install)
        except NotInstalled as error:
            print(f"skipped: {error}", file=sys.stderr)
    return found


def _run(
    name: str, python: Path, job: dict[str, str], folder: Path, *, limit_s: float
) -> dict[str, Any]:
    scratch = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    of_rival = {rival.name: rival.script for rival in RIVALS}
    script = of_rival.get(name)
    command = [str(python), str(SCRIPTS / script)] if script else [str(python), "-m"]
    if script is None:
        command += ["benchmarks.peers.ours", "local" if name == OURS.name else "flower"]
    measured = measure(
        command,
        environment=_environment(python, job | {"PEERS_SCRATCH": str(scratch)}),
        cwd=scratch if script else ROOT,
        log=scratch / "log.txt",
        limit_s=limit_s,
    )
    return _figures(measured)


def _environment(python: Path, more: dict[str, str]) -> dict[str, str]:
    # A rival finds its own programs first, and of ours the common task alone.
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, **QUIET, **more, "PATH": path, "PYTHONPATH": str(SCRIPTS)}


def _figures(measured: Measured) -> dict[str, Any]:
    figures = asdict(measured)
    output = figures.pop("output")
    told = [line for line in output.splitlines() if line.startswith("PEERS ")]
    if measured.exit_code == 0 and told:
        return figures | {"told": json.loads(told[-1].removeprefix("PEERS "))}
    print(f"no result, the end of its output:\n{output[-2000:]}", file=sys.stderr)
    return figures | {"told": None}


def _ours(module: str, *words: str, sites: int, rounds: int) -> str:
    """Run one of our own steps as a process, so that this one imports nothing that is measured."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.peers.{module}", *words],
        cwd=ROOT,
        env={**os.environ, "PEERS_SITES": str(sites), "PEERS_ROUNDS": str(rounds)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def _alike_line(alike: dict[str, Any]) -> str:
    words = "equal" if alike["is_alike"] else "NOT equal"
    return (
        f"\nAlike (plain loop with our draws), to 3 decimals {words}: AUROC "
        f"{alike['auroc_ours']:.6f} (ours) and {alike['auroc_plain']:.6f}; epsilon by Opacus "
        f"{alike['epsilon_ours']:.6f} (our records) and {alike['epsilon_plain']:.6f} (its own "
        f"steps); our ledger's tighter count of the same steps {alike['epsilon_ledger']:.4f}.\n"
        f"Largest difference of a parameter: {alike['largest_difference']:.1e}."
    )


if __name__ == "__main__":
    main()
