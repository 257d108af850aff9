"""`run`: agent and courier as two child processes, restarted with back-off, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from common.child_process import ending_with_us, stop_children
from site_client.config import SitePaths, read_site_config
from site_client.courier.main import read_courier_config
from site_client.enrolment import check_joined

TICK_S: Final = 0.2
BACK_OFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
STABLE_AFTER_S: Final = 30.0
STOP_WAIT_S: Final = 10.0
# What the courier needs of our environment; nothing else of hospital IT's is handed to it.
_KEPT_VARIABLES: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "PYTHONDONTWRITEBYTECODE",
)


@dataclass
class _Child:
    """One child process and when it may be started again."""

    name: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0


def run_site(paths: SitePaths, *, say: Callable[[str], None]) -> None:
    """Run agent and courier until SIGTERM or SIGINT.

    Raises:
        ConfigError, EnrolmentError: when the site is not ready, instead of trying for ever.
    """
    read_site_config(paths)
    check_joined(paths)
    read_courier_config(paths.courier)
    say(f"the logs are in {paths.logs}")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    children = (_Child("agent"), _Child("courier"))
    paths.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        while not stop.is_set():
            for child in children:
                _keep(child, paths, say)
            stop.wait(TICK_S)
    finally:
        running = [child.process for child in children if child.process is not None]
        stop_children(running, wait_s=STOP_WAIT_S)


def child_environment(name: str) -> Mapping[str, str]:
    """Return the environment of a child: the courier gets a short list only."""
    if name == "agent":
        return dict(os.environ)
    return {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}


def _keep(child: _Child, paths: SitePaths, say: Callable[[str], None]) -> None:
    now = time.monotonic()
    if child.process is not None:
        code = child.process.poll()
        if code is None:
            return
        if now - child.started_at > STABLE_AFTER_S:
            child.failures = 0
        wait_s = BACK_OFF_S[min(child.failures, len(BACK_OFF_S) - 1)]
        child.failures += 1
        child.process, child.start_at = None, now + wait_s
        say(f"the {child.name} ended (exit {code}); starting it again in {wait_s:g} s")
    if now < child.start_at:
        return
    module = "site_client.agent_main" if child.name == "agent" else "site_client.courier.run"
    folder = paths.home if child.name == "agent" else paths.courier
    with (paths.logs / f"{child.name}.log").open("ab") as log:
        child.process = subprocess.Popen(  # noqa: S603 - our own modules
            ending_with_us([sys.executable, "-P", "-m", module, str(folder)]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(child_environment(child.name)),
            start_new_session=True,
        )
    child.started_at = now
    say(f"the {child.name} runs as process {child.process.pid}")
