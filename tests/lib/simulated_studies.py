"""Small simulated studies, and processes that run one until something kills them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.ids import SiteId
from common.study.columns import feature_columns
from common.study.plan import StudyPlan
from server.site_channel import Arrived, Missing, SiteChannel
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix
from tests.lib.plans import make_plan


def small_plan(**changes: Any) -> StudyPlan:
    """Return a plan of few short rounds."""
    return make_plan(
        **{
            "training__rounds": 3,
            "training__local_steps": 2,
            "training__sampling_probability": 0.2,
            "training__update_norm_max": 1e6,
            "privacy__epsilon": 8.0,
            "evaluation__releases": 1,
            **changes,
        }
    )


def plan_that_remembers(**changes: Any) -> StudyPlan:
    """Return a plan in which coordinator and sites keep all that they can from round to round."""
    return small_plan(
        **{
            "scaling": {"kind": "dp_mean_variance"},
            "training__strategy": {"kind": "fedadam", "server_learning_rate": 0.1},
            "training__optimizer": {"kind": "adam", "learning_rate": 0.05},
            "training__model_average_decay": 0.5,
            **changes,
        }
    )


def patients_of(plan: StudyPlan, count: int, seed: int) -> FeatureMatrix:
    """Return patients whose risk goes up with the first column."""
    rng = np.random.default_rng(seed)
    columns = feature_columns(plan)
    x = rng.uniform(-1, 1, (count, len(columns))).astype(np.float32)
    y = (rng.random(count) < 1 / (1 + np.exp(-3 * x[:, 0]))).astype(np.float32)
    return FeatureMatrix(columns, x, y, rng.integers(0, 10**6, count))


def small_sites(
    plan: StudyPlan, count: int = 3, *, patients: int = 60, **more: Any
) -> list[VirtualSite]:
    """Return sites of different sizes."""
    return [
        VirtualSite(
            f"site-{number:04d}",
            patients + 10 * (number % 4),
            patients_of(plan, patients + 10 * (number % 4), number),
            **more,
        )
        for number in range(count)
    ]


def start(run: Callable[[], object]) -> BaseProcess:
    """Start a process of ours that runs something and knows nothing of pytest."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(run,))
    process.start()
    return process


def children_of(pid: int, *, but: Collection[int] = ()) -> list[int]:
    """Return the ids of a process' children, without those that it is known to have had before.

    A test's own process may have some: a fork server and its tracker outlive the test that
    started them.
    """
    tasks = Path(f"/proc/{pid}/task")
    children = [
        int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()
    ]
    return [child for child in children if child not in but]


def is_running(pid: int) -> bool:
    """Return whether a process exists and is more than an entry that nobody has read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class KillsAfter:
    """A channel that kills this process when so many replies have come; none: before the first.

    Args:
        channel: the real one.
        replies: how many are let through.
    """

    def __init__(self, channel: SiteChannel, replies: int) -> None:
        self._channel = channel
        self._left = replies

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask as `SiteChannel` does."""
        for event in self._channel.ask(requests, deadline_s=deadline_s):
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
            yield event


def die_at(owner: type, name: str, *, call: int, is_done: bool) -> None:
    """Make this process kill itself at one call of a method.

    Args:
        owner: the class.
        name: of the method.
        call: which, from 1.
        is_done: whether after the call, or before it.
    """
    method, calls = getattr(owner, name), itertools.count(1)

    def dying(*args: Any, **kwargs: Any) -> Any:
        number = next(calls)
        if number == call and not is_done:
            os.kill(os.getpid(), signal.SIGKILL)
        done = method(*args, **kwargs)
        if number == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(owner, name, dying)


def _alone(run: Callable[[], object]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    run()
