"""A monitoring report on real files, killed with SIGKILL at a line, then made and sealed anew.

Runs in a process of its own (`forkserver`), since a process whose torch has threads cannot fork.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from common.study.report_tensors import ReportKind
from tests.lib.monitored_site import MonitoredSite, make_monitored_site, seconds

TRACED = (
    "site_client/release/re",
    "site_client/release/gate.py",
    "site_client/site_database.py",
    "site_client/monitoring/outbox.py",
    "site_client/monitoring/mailbox.py",
    "common/privacy/ledger.py",
    "common/privacy/spending_limits.py",
)
"""The files of the report's sequence: the process dies at any of their lines."""


class _LineCounter:
    def __init__(self, last: int | None) -> None:
        self.lines = 0
        self._last = last

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> _LineCounter | None:
        if event == "call":
            name = frame.f_code.co_filename.replace(os.sep, "/")
            return self if any(part in name for part in TRACED) else None
        if event == "line":
            self.lines += 1
            if self.lines == self._last:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def _report(site: MonitoredSite) -> tuple[bytes, ...]:
    study = site.monitor.study(site.study_id)
    site.monitor.make(site.monitor.asked(study, "2026-02", ReportKind.CASE_MIX))
    return site.mailbox.outbox()


def _counted(site: MonitoredSite, last: int | None) -> int:
    counter = _LineCounter(last)
    sys.settrace(counter)
    try:
        _report(site)
    finally:
        sys.settrace(None)
    return counter.lines


def report_killed_at_lines(folder: Path, *, stride: int) -> tuple[int, int]:
    """Kill a report at every `stride`-th line of its sequence; each time open the site and retry.

    Returns:
        how many lines the sequence has, and at how many of them it was killed.

    Raises:
        AssertionError: after some kill less is charged than may have left, or the retry is charged
            again, draws a second noise for what was kept, or sends other bytes.
    """
    made = make_monitored_site(folder / "site")
    made.begin()
    made.clock.seconds = seconds("2026-03-05")
    made.site.database.close()
    # Once before: what is remembered in memory from then on takes no lines.
    shutil.copytree(folder / "site", folder / "warm")
    _report(_at(made, folder / "warm"))
    shutil.copytree(folder / "site", folder / "count")
    lines = _counted(_at(made, folder / "count"), None)
    places = range(1, lines + 1, stride)
    for line in places:
        place = folder / "killed"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / "site", place)
        child = os.fork()
        if child == 0:
            _counted(_at(made, place), line)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), line
        _check_retried(_at(made, place), line)
    return lines, len(places)


def _at(site: MonitoredSite, folder: Path) -> MonitoredSite:
    return replace(site, paths=replace(site.paths, home=folder)).reopened()


def _check_retried(site: MonitoredSite, line: int) -> None:
    records, study = site.site.records, site.study_id
    before = records.ledger.entries()
    logged, sealed = records.log.reports(), site.mailbox.chain.sealed(study)
    # Whatever was kept may have left, so it is reserved, and its plan was committed before; what
    # was sealed may be at the relay, so the ledger names its content.
    kinds = [entry.kind for entry in before]
    assert kinds == ["committed", "reserved", "released"][: len(kinds)], line
    assert len(logged) <= 1, line
    assert not logged or len(before) >= 2, line
    assert not sealed or len(before) == 3, line
    envelopes = _report(site)
    after = records.ledger.entries()
    assert after[: len(before)] == before, line
    assert [entry.kind for entry in after] == ["committed", "reserved", "released"], line
    now = records.log.reports()
    assert now[: len(logged)] == logged, line
    assert len(now) == 1, line
    assert [item.envelope for item in sealed] == list(envelopes[: len(sealed)]), line
    header, content = site.opened(envelopes[0])
    assert (header.sequence, header.period) == (1, content.period), line
    assert _report(site.reopened()) == envelopes, line
    assert records.ledger.entries() == after, line
    assert [entry.what for entry in records.log.verify()] == ["report"], line
