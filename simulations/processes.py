"""Child processes that never outlive us: started in their own session, stopped as a group."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from common.child_process import ending_with_us, signal_session, stop_children
from common.errors import ServiceError

STOP_WAIT_S = 15.0


class ProcessGroup:
    """Named child processes, each the leader of its own session.

    Used as a context manager: leaving it stops every child and its descendants, first by SIGTERM,
    then by SIGKILL after `STOP_WAIT_S` seconds.
    """

    def __init__(self, log_folder: Path) -> None:
        self.log_folder = log_folder
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()

    def start(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a child whose output goes to `<name>.log`; raises `ServiceError`."""
        self.log_folder.mkdir(parents=True, exist_ok=True)
        if shutil.which(command[0]) is None:
            raise ServiceError(
                f"{name} does not start",
                expected=f"an executable {command[0]}",
                arrived="none",
                todo="install the project with `make install`",
            )
        with (self.log_folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - our own console scripts
                ending_with_us(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        self._children[name] = child
        return child

    def is_running(self, name: str) -> bool:
        """Return whether the named child is still running."""
        child = self._children.get(name)
        return child is not None and child.poll() is None

    def kill(self, name: str) -> None:
        """Send SIGKILL to the named child and everything in its session's group."""
        child = self._children.pop(name)
        signal_session(child, signal.SIGKILL)
        child.wait()

    def stop_all(self) -> None:
        """Stop every child, newest first, and wait until each is gone."""
        children = list(self._children.values())
        self._children.clear()
        stop_children(children, wait_s=STOP_WAIT_S)
