"""Sites for tests of the Flower engine, in a module that Ray's workers can import."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.errors import BudgetError
from common.ids import SiteId
from common.privacy.mechanism import PATIENT_HASH_PARTS
from common.study.columns import feature_columns
from common.study.plan import StudyPlan
from server.site_channel import Arrived, Missing, SiteChannel
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix

LISTENS = "0A"


@dataclass(frozen=True)
class Echo:
    """Sites that send back what they got; one of them may refuse or fail."""

    refusing: str = ""
    failing: str = ""
    folder: Path = Path(__file__).parent

    def answer(self, site_id: SiteId, envelope: bytes) -> bytes:
        """Return the envelope after the site's id."""
        if site_id == self.refusing:
            raise BudgetError("no", expected="less", arrived="more", todo="stop", number="G3")
        if site_id == self.failing:
            raise KeyError("John Doe, born 1950")
        return site_id.encode() + b" " + envelope

    def close(self) -> None:
        """Hold nothing open."""


def small_sites(plan: StudyPlan, count: int) -> list[VirtualSite]:
    """Return sites of 100 patients with one informative column."""
    columns = feature_columns(plan)
    found = []
    for number in range(count):
        rng = np.random.default_rng([7, number])
        x = rng.uniform(-1, 1, size=(100, len(columns))).astype(np.float32)
        y = (rng.random(100) < 1 / (1 + np.exp(-4 * x[:, 0]))).astype(np.float32)
        part = rng.integers(0, PATIENT_HASH_PARTS, 100)
        found.append(VirtualSite(f"site-{number}", 100, FeatureMatrix(columns, x, y, part)))
    return found


@dataclass
class Watched:
    """Goes between coordinator and sites and looks at the sockets of all our processes.

    Attributes:
        listening: hexadecimal addresses, as the kernel writes them.
    """

    channel: SiteChannel
    listening: set[str] = field(default_factory=set)

    def ask(
        self, requests: dict[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask, then look."""
        yield from self.channel.ask(requests, deadline_s=deadline_s)
        self.listening |= listening_addresses(descendants(os.getpid()))


def descendants(of: int) -> set[int]:
    """Return a process and all that it or its children started."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()
                parents[int(name)] = int(stat[1])
    found, grows = {of}, True
    while grows:
        more = {number for number, parent in parents.items() if parent in found} - found
        found |= more
        grows = bool(more)
    return found


def listening_addresses(processes: set[int]) -> set[str]:
    """Return the local addresses on which these processes wait for connections."""
    owned = set()
    for number in processes:
        with contextlib.suppress(OSError):
            for item in Path(f"/proc/{number}/fd").iterdir():
                with contextlib.suppress(OSError):
                    owned.add(os.readlink(item))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENS and f"socket:[{words[9]}]" in owned:
                found.add(words[1].split(":")[0])
    return found
