"""Each rival's own virtual environment, made when it is first asked for, outside the repository."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER_VARIABLE: Final = "COHORTIUM_PEERS"
TORCH: Final = "torch==2.13.0"
OPACUS: Final = "opacus==1.6.0"
INSTALL_LIMIT_S: Final = 1800
_READY: Final = "installed.txt"


@dataclass(frozen=True)
class Rival:
    """One framework.

    Args:
        name: on the command line.
        title: in the table.
        packages: with exact versions.
        script: in `rivals/`.
        beside: what all rivals of a job have alike, with exact versions.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    script: str
    beside: tuple[str, ...] = (TORCH, OPACUS)


RIVALS: Final = (
    Rival("plain", "plain loop, Opacus", (), "plain.py"),
    Rival("pfl", "pfl-research 0.6.0", ("pfl==0.6.0",), "pfl_job.py"),
    Rival("flower", "Flower 1.41.0 on Ray", ("flwr[simulation]==1.41.0",), "flower_job.py"),
    Rival("nvflare", "NVIDIA FLARE 2.9.0", ("nvflare==2.9.0",), "nvflare_job.py"),
)

EVIDENTLY: Final = Rival(
    "evidently",
    "Evidently 0.7.23",
    # It does not import beside pandas 3, and asks for any.
    ("evidently==0.7.23", "pandas==2.3.3", "numpy==2.4.6", "scipy==1.17.1"),
    "evidently_drift.py",
    beside=(),
)
"""Of the benchmark of alarms, not of the common job."""


class NotInstalled(Exception):
    """A rival cannot be installed here; says why in one line."""


def environments_folder() -> Path:
    """Return where the environments lie: `COHORTIUM_PEERS`, or the user's cache."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "cohortium" / "peers"


def python_of(rival: Rival, folder: Path, *, may_install: bool) -> Path:
    """Return a rival's interpreter, after installing what it needs.

    Raises:
        NotInstalled: when it is not there and cannot be, or must not be, installed.
    """
    home = folder / rival.name
    python = home / "bin" / "python"
    wanted = "\n".join((*rival.beside, *rival.packages)) + "\n"
    ready = home / _READY
    if ready.exists() and ready.read_text() == wanted:
        return python
    if not may_install:
        raise NotInstalled(f"{rival.title} is not in {home}, and --no-install was given")
    if home.exists():
        shutil.rmtree(home)
    home.parent.mkdir(parents=True, exist_ok=True)
    size = "about 1.5 GB" if rival.beside else "about 1 GB"
    print(f"installing {rival.title} into {home} ({size}) ...", file=sys.stderr, flush=True)
    # torch first and alone: together pip may choose another build of it.
    first = [[TORCH]] if TORCH in rival.beside else []
    try:
        _run([sys.executable, "-m", "venv", str(home)], rival)
        for packages in (*first, [*rival.beside, *rival.packages]):
            _run([str(python), "-m", "pip", "install", "--quiet", *packages], rival)
    except NotInstalled:
        # Half an environment is of no use, and the disk may be full of it.
        shutil.rmtree(home, ignore_errors=True)
        raise
    ready.write_text(wanted)
    return python


def installed(python: Path) -> str:
    """Return a short digest of all packages of an environment, for the record."""
    done = subprocess.run(
        [str(python), "-m", "pip", "freeze"], capture_output=True, text=True, check=False
    )
    return hashlib.sha256(done.stdout.encode()).hexdigest()[:12]


def _run(command: Sequence[str], rival: Rival) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=INSTALL_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{rival.title}: pip took more than {INSTALL_LIMIT_S} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise NotInstalled(f"{rival.title} cannot be installed: {lines[-1][:200]}")
