"""Run a command and measure its whole tree of processes: wall, processor seconds, memory.

Every process that carries our mark in its environment belongs to the tree, also one that left its
session; so do children of such a process, which may have changed its environment. Linux only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.1
PSS_LOOKS = 5  # of so many looks one reads PSS, which costs the kernel a walk over the pages
END_WAIT_S = 5.0
_HZ = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Measured:
    """One run.

    Args:
        wall_s: from the start of the first process to its end, imports included.
        cpu_s: user and system, of all processes, at least: the last look at each one counts.
        rss_mb: highest sum of resident memory; pages that two share count twice.
        pss_mb: highest sum of proportional memory; a shared page counts once.
        processes: most at one time.
        left: processes that outlived the first one by `END_WAIT_S`; they were stopped.
        exit_code: of the first process; None when it was stopped after the limit.
        output: of all of them.
        load: of the machine when the run began: above 0.5 or so wall times tell little.
    """

    wall_s: float
    cpu_s: float
    rss_mb: float
    pss_mb: float
    processes: int
    left: int
    exit_code: int | None
    output: str
    load: float


def measure(
    command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, log: Path, limit_s: float
) -> Measured:
    """Run a command to its end, or for `limit_s` seconds, and return what it took."""
    mark = f"PEERS_MARK={uuid.uuid4().hex}"
    name, value = mark.split("=")
    load, begun = os.getloadavg()[0], time.monotonic()
    with log.open("wb") as stream:
        first = subprocess.Popen(
            command,
            env={**environment, name: value},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        tree = _Tree(mark.encode(), first.pid)
        try:
            _watch(first, tree, until=begun + limit_s)
            wall = time.monotonic() - begun
            # `wait4` alone knows what a process used between our last look and its end.
            in_time = first.poll() is not None
            left = _wait_for_rest(tree) if in_time else 0
        finally:
            tree.stop()
            first.wait()
    return Measured(
        wall_s=wall,
        cpu_s=sum(tree.cpu_s.values()),
        rss_mb=tree.rss / 1e6,
        pss_mb=tree.pss / 1e6,
        processes=tree.most,
        left=left,
        exit_code=first.returncode if in_time else None,
        output=log.read_text(errors="replace"),
        load=load,
    )


def _watch(first: subprocess.Popen[bytes], tree: _Tree, *, until: float) -> None:
    looks = 0
    while time.monotonic() < until:
        tree.look(with_pss=looks % PSS_LOOKS == 0)
        looks += 1
        # The zombie keeps its times until it is waited for: look once more, then reap it.
        if os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            tree.look(with_pss=False)
            return
        time.sleep(LOOK_S)


def _wait_for_rest(tree: _Tree) -> int:
    deadline = time.monotonic() + END_WAIT_S
    while tree.look(with_pss=False) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    return tree.look(with_pss=False)


class _Tree:
    """The processes that carry a mark."""

    def __init__(self, mark: bytes, first: int) -> None:
        self._mark = mark
        self._others: dict[int, int] = {}  # number to start time: numbers are used again
        self._ours = {first: _start_of(first)}
        self.cpu_s: dict[tuple[int, int], float] = {}
        self.rss = self.pss = self.most = 0

    def look(self, *, with_pss: bool) -> int:
        """Look at all processes once; return how many of the tree run."""
        rss = pss = running = 0
        for number in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            fields = _stat(number)
            if fields is None or not self._is_ours(number, fields):
                continue
            started = int(fields[19])
            self.cpu_s[number, started] = (int(fields[11]) + int(fields[12])) / _HZ
            if fields[0] == "Z":
                continue
            running += 1
            rss += int(fields[21]) * _PAGE
            pss += _pss(number) if with_pss else 0
        self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)
        self.most = max(self.most, running)
        return running

    def stop(self) -> None:
        """End what still runs of the tree, each process by its number."""
        for number, started in self._ours.items():
            if _start_of(number) == started:
                try:
                    os.kill(number, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def _is_ours(self, number: int, fields: list[str]) -> bool:
        started, parent = int(fields[19]), int(fields[1])
        if self._ours.get(number) == started:
            return True
        if parent not in self._ours:
            if self._others.get(number) == started:
                return False
            try:
                environment = Path(f"/proc/{number}/environ").read_bytes()
            except OSError:
                return False
            if self._mark not in environment:
                # Between fork and exec a process has no environment yet.
                if environment:
                    self._others[number] = started
                return False
        self._ours[number] = started
        return True


def _stat(number: int) -> list[str] | None:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None


def _start_of(number: int) -> int:
    fields = _stat(number)
    return -1 if fields is None else int(fields[19])


def _pss(number: int) -> int:
    try:
        for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
