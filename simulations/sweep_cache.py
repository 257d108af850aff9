"""What was made already, each thing under the digest of everything that it depends on."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from common.canonical import Canonical, digest_record
from common.study.plan_bytes import plan_digest
from common.whole_file import write_whole
from simulations.engine import EngineSettings
from simulations.sweep_run import RunRecord
from simulations.varied_plans import Cell

_LIBRARIES: Final = ("numpy", "torch", "opacus", "dp-accounting", "scikit-learn", "randomgen")
_OURS: Final = ("common", "server", "site_client", "simulations")


class RunCache:
    """Records of runs, or of baselines, as files; one that is cut short by a kill is never read.

    Args:
        folder: made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    def find(self, digest: str) -> RunRecord | None:
        """Return a run's record, or None when it was not made yet."""
        path = self._path(digest)
        if not path.is_file():
            return None
        record: RunRecord = json.loads(path.read_text(encoding="utf-8"))
        return record

    def keep(self, record: RunRecord) -> None:
        """Write a run's record: all of it or nothing."""
        text = json.dumps(record, allow_nan=False)
        write_whole(self._path(record["digest"]), text.encode(), mode=0o600)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.json"


def run_digest(cell: Cell, sites: Sequence[str], seed: int, settings: EngineSettings) -> str:
    """Return the digest of a run: plan, noise or none, sites, seed, engine, software.

    How many processes share the work is no part of it, for it changes no number.

    Args:
        sites: their fingerprints, in order.
    """
    return made_digest(
        "cohortium simulated run",
        {
            "plan": plan_digest(cell.plan),
            "is_noiseless": cell.is_noiseless,
            "sites": list(sites),
            "seed": seed,
            "engine": settings.engine,
            "batched": str(settings.batched),
        },
    )


def made_digest(label: str, facts: Mapping[str, Canonical]) -> str:
    """Return the digest of what something is made from, and of the software that makes it."""
    return digest_record(label, {**facts, "software": dict(software())})


@functools.lru_cache(maxsize=1)
def software() -> tuple[tuple[str, str], ...]:
    """Return the versions of what computes a run, and a digest of this project's own code."""
    versions = [(name, importlib.metadata.version(name)) for name in _LIBRARIES]
    code = hashlib.sha256()
    root = Path(__file__).parents[1]
    for package in _OURS:
        for path in sorted((root / package).rglob("*.py")):
            code.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return (*versions, ("python", platform.python_version()), ("cohortium", code.hexdigest()))
