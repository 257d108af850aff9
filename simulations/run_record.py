"""What a run's folder says of the run, so that another one is never continued by mistake."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from common.canonical import Canonical, canonical_bytes
from common.errors import StudyStateError
from common.ids import SiteId
from common.study.plan import StudyPlan
from common.study.plan_bytes import plan_digest
from server.durable_file import write_durably
from simulations.randomness import SiteRandomness

_NAME: Final = "engine.json"
_PARTS: Final = ("sites", "coordinator", "keys.secret")


def record_run(
    folder: Path, plan: StudyPlan, sites: Mapping[SiteId, int], randomness: SiteRandomness
) -> None:
    """Write that a run's folder is complete: from now on it can be resumed.

    Args:
        folder: of the run.
        plan: of the study.
        sites: declared number of patients by site.
        randomness: of all sites.
    """
    write_durably(folder / _NAME, _record(plan, sites, randomness))


def check_folder(
    folder: Path,
    plan: StudyPlan,
    sites: Mapping[SiteId, int],
    randomness: SiteRandomness,
    *,
    resume: bool,
) -> bool:
    """Return whether the folder holds this run already.

    A folder in which a run was killed while it was prepared is emptied of what was begun.

    Args:
        folder: of the run.
        plan, sites, randomness: of the run that is asked for.
        resume: whether a run that is there may go on.

    Raises:
        StudyStateError: for another run, or a run that is not to go on.
    """
    path = folder / _NAME
    if not path.exists():
        for part in _PARTS:
            left = folder / part
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
        return False
    is_same = path.read_bytes() == _record(plan, sites, randomness)
    if resume and is_same:
        return True
    raise StudyStateError(
        "the folder holds a run already",
        expected="an empty folder, or with resume the same plan, seed, sites and sizes",
        arrived="a run of the same kind" if is_same else "another plan, seed, site or size",
        todo="resume it, or choose another folder",
    )


def _record(plan: StudyPlan, sites: Mapping[SiteId, int], randomness: SiteRandomness) -> bytes:
    told: dict[str, Canonical] = {
        "version": 1,
        "plan_digest": plan_digest(plan),
        "seed": randomness.seed,
        "randomness": randomness.kind,
        "sites": {str(site_id): sites[site_id] for site_id in sorted(sites)},
    }
    return canonical_bytes(told)
