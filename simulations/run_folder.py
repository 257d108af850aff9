"""The folder of one simulated run: claimed once, resumed by the same run only, private by mode."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from common.errors import ConfigError, StoreError
from common.study.plan import StudyPlan
from common.study.plan_file import read_plan
from common.study.plan_toml import plan_toml
from common.whole_file import write_whole

RUN_VERSION: Final = 2
MARK: Final = "EXACT-FIGURES-NOT-FOR-RELEASE.txt"
MARK_TEXT: Final = """\
This folder holds exact figures of held-out patients. They are not differentially private: no noise
was added to them, and no real study could show them. Where the patients are real, treat this folder
as you treat their data: it belongs to whoever may see the rows, and nothing in it may be published
or handed on without the disclosure control that your hospital asks for. The model itself
(model.safetensors) was trained with reproducible randomness, whose seed is in run.json: its noise
can be computed again and subtracted, so the privacy statement does not hold for it either.
"""
_SOFTWARE: Final = (
    "cohortium", "numpy", "torch", "opacus", "dp-accounting", "pandas", "pyarrow", "scipy",
    "matplotlib", "flwr", "ray",
)  # fmt: skip
_IDENTITY: Final = ("plan_digest", "seed", "sites")
"""What a run is: a folder with another of these belongs to another run."""


class RunFolder:
    """Where everything about one run lies.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def work(self) -> Path:
        """The engine's own files, until the run has ended."""
        return self.path / "work"

    @property
    def traffic(self) -> Path:
        """Sizes of envelopes, a line each."""
        return self.path / "traffic.jsonl"

    @property
    def figures(self) -> Path:
        """Figures as PNG and SVG."""
        return self.path / "figures"

    @property
    def model(self) -> Path:
        """The final model."""
        return self.path / "model.safetensors"

    def claim(
        self, plan: StudyPlan, identity: Mapping[str, Any], *, resume: bool
    ) -> dict[str, Any]:
        """Make the folder this run's, or find it so; return `run.json` as it stands.

        Args:
            plan: written beside it.
            identity: plan digest, seed, sites; a folder of another run is refused.
            resume: go on with a run that is there.

        Raises:
            ConfigError: another run's folder, or this run's without `resume`, or a folder with
                other things in it.
            StoreError: it cannot be written.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            return self._take_up(identity, resume=resume)
        with _stored(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
        self.write_text(MARK, MARK_TEXT)
        self.write_text("plan.toml", plan_toml(plan))
        record = {
            "run_version": RUN_VERSION,
            "state": "running",
            **identity,
            "software": _software(),
            "holds": MARK_TEXT.replace("\n", " ").strip(),
        }
        self.write_record(record)
        return record

    def record(self) -> dict[str, Any]:
        """Return `run.json`; raises `ConfigError` where there is no run of this version."""
        try:
            record = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            record = None
        if not isinstance(record, dict) or record.get("run_version") != RUN_VERSION:
            raise ConfigError(
                f"{self.path} is no run's folder",
                expected=f"a folder with a run.json of version {RUN_VERSION}",
                arrived="none, or one of another version",
                todo="name a folder that `cohortium-sim run` wrote, or one that is not there yet",
            )
        return record

    def plan(self) -> StudyPlan:
        """Return the plan that was run; raises `PlanError`."""
        return read_plan(self.path / "plan.toml")

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write `run.json` whole or not at all; raises `StoreError`."""
        with _stored(self.path):
            text = json.dumps(record, indent=2, sort_keys=True) + "\n"
            write_whole(self.path / "run.json", text.encode(), mode=0o600)

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Write a table as Parquet and as JSON records; raises `StoreError`."""
        with _stored(self.path):
            self.write_bytes(f"{name}.parquet", table.to_parquet(index=False))
            self.write_text(f"{name}.json", _json(table))

    def read_table(self, name: str) -> pd.DataFrame:
        """Return a table as it was written; raises `StoreError`."""
        try:
            return pd.read_parquet(self.path / f"{name}.parquet")
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{name}.parquet cannot be read",
                expected=f"a table in {self.path}",
                arrived=type(error).__name__,
                todo="run the study again into another folder",
            ) from None

    def write_text(self, name: str, text: str) -> None:
        """Write a text file that its owner alone can read; raises `StoreError`."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file that its owner alone can read; raises `StoreError`."""
        path = self.path / name
        with _stored(self.path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # one that is there may have another mode
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(os.open(path, flags, 0o600), "wb") as stream:
                stream.write(content)

    def forget_work(self) -> None:
        """Delete the engine's files and the log of envelopes."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.traffic.unlink(missing_ok=True)

    def _take_up(self, identity: Mapping[str, Any], *, resume: bool) -> dict[str, Any]:
        record = self.record()
        asked = json.loads(json.dumps(identity))
        other = [name for name in _IDENTITY if record.get(name) != asked.get(name)]
        if other:
            raise ConfigError(
                f"{self.path} holds another run",
                expected="a folder that is not there yet, or this run's own",
                arrived=f"a run with other {', '.join(name.replace('_', ' ') for name in other)}",
                todo="name another folder; a run is never overwritten",
            )
        if not resume:
            raise ConfigError(
                f"{self.path} holds this run already ({record.get('state')})",
                expected="a folder that is not there yet",
                arrived="one with a run in it",
                todo="resume it (`--resume`), or name another folder",
            )
        return record


def _software() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _SOFTWARE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _json(table: pd.DataFrame) -> str:
    text = table.to_json(orient="records", double_precision=15, indent=1)
    return f"{text}\n"


@contextlib.contextmanager
def _stored(folder: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise StoreError(
            "the run's folder cannot be written",
            expected=f"a writable folder {folder} with free space",
            arrived=error.strerror or type(error).__name__,
            todo="free disk space, correct the permissions, or name another folder",
        ) from None
