"""The feature store's real writer, killed with SIGKILL at a line, then opened again.

Runs in a process of its own (`forkserver`), since a process with threads cannot fork.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow as pa

from site_client.features.store import ENTRY, FeatureStore
from site_client.features.store_entry import EntryKey, FeatureEntry, RowsFile, SourceState

TRACED = ("site_client/features/store", "common/whole_file.py")


def entry_of(files: dict[str, RowsFile], *, built_at_s: int = 1) -> FeatureEntry:
    """Return an entry without features for written files."""
    key = EntryKey(plan_digest="a" * 64, fingerprint="b" * 64, software="1")
    state = SourceState(kind="meds", declared="c" * 64, end="", files=[])
    nothing: dict[str, Any] = dict.fromkeys(("rows", "patients", "positive", "recomputed"), 0)
    empty: dict[str, Any] = {
        name: [] for name in ("attrition", "records", "excluded", "unmapped", "features")
    }
    return FeatureEntry(
        key=key,
        study_id="a-study",
        plan="{}",
        built_at_s=built_at_s,
        source=state,
        build="full",
        base="",
        files=files,
        **nothing,
        **empty,
    )


def write(store: FeatureStore, value: float, *, built_at_s: int) -> FeatureEntry:
    """Write an entry of a thousand equal numbers."""
    table = pa.table({"x": [value] * 1000})
    with store.writing() as writer:
        return writer.write({"rows": table}, lambda files: entry_of(files, built_at_s=built_at_s))


def drop(store: FeatureStore, entry_id: str) -> None:
    """Delete an entry."""
    with store.writing() as writer:
        writer.drop(entry_id)


def killed_at_every_line(folder: Path, what: str, *, stride: int) -> tuple[int, int]:
    """Kill writing or dropping a second entry at every `stride`-th line; each time look and retry.

    Returns:
        how many lines there are, and at how many of them the process was killed.

    Raises:
        AssertionError: after some kill an entry is neither as it was nor whole as it should be,
            or something of the dead build outlasts the next.
    """
    start = folder / "start"
    first = write(FeatureStore(start), 1.0, built_at_s=1)
    second = write(FeatureStore(folder / "other"), 2.0, built_at_s=2)
    if what == "drop":
        write(FeatureStore(start), 2.0, built_at_s=2)
    work: dict[str, Callable[[FeatureStore], object]] = {
        "write": lambda store: write(store, 2.0, built_at_s=2),
        "write again": lambda store: write(store, 1.0, built_at_s=2),
        "drop": lambda store: drop(store, second.id),
    }
    lines = _count(folder, start, work[what])
    places = range(1, lines + 1, stride)
    for line in places:
        place = _copy(start, folder / "killed")
        child = os.fork()
        if child == 0:
            _run(FeatureStore(place), work[what], last=line)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), line
        store = FeatureStore(place)
        _check(store, {first.id}, may={second.id})
        work[what](store)
        _check(store, {first.id} | ({second.id} if what == "write" else set()), may=set())
        _check_nothing_left(place)
    return lines, len(places)


def _check(store: FeatureStore, must: set[str], *, may: set[str]) -> None:
    found = {entry.id for entry in store.entries()}
    assert must <= found <= must | may
    assert set(store.names()) == found
    for entry in store.entries():
        store.check(entry)


def _check_nothing_left(folder: Path) -> None:
    assert not list(folder.rglob("*.partial"))
    for path in folder.iterdir():
        if path.is_dir():
            assert (path / ENTRY).exists() and len(list(path.iterdir())) == 2


def _copy(start: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(start, place)
    return place


def _count(folder: Path, start: Path, work: Callable[[FeatureStore], object]) -> int:
    return _run(FeatureStore(_copy(start, folder / "count")), work, last=None)


def _run(store: FeatureStore, work: Callable[[FeatureStore], object], *, last: int | None) -> int:
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        name = frame.f_code.co_filename.replace(os.sep, "/")
        if not any(part in name for part in TRACED):
            return None
        if event == "line":
            lines += 1
            if lines == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        work(store)
    finally:
        sys.settrace(None)
    return lines
