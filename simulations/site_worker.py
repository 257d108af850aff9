"""One worker process of the local engine: it works the sites it is asked for, until the pipe ends.

Messages are tuples. To the worker: a group, ((site, envelope), ...). From it: one ("reply", site,
envelope) for each, or ("error", record) once. A thread takes groups from the pipe, so that whoever
sends one never waits for a worker that is itself waiting to send a reply.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Final, TypeAlias

import torch

import common.errors
from common.child_process import end_with
from common.errors import CohortiumError, InternalError
from common.ids import SiteId
from simulations.site_turn import SitesInFolder

Group: TypeAlias = tuple[tuple[SiteId, bytes], ...]

_FIELDS: Final = ("refused", "expected", "arrived", "todo", "number")


def work(sites: SitesInFolder, connection: Connection, parent: int) -> None:
    """Answer groups until the other end of the pipe is closed.

    Args:
        sites: of the run; this process' copy.
        connection: this process' end.
        parent: id of the process that wants the answers.
    """
    end_with(parent)
    torch.set_num_threads(1)
    # What was there before the fork stays: looking at it would copy its pages, and takes time.
    gc.freeze()
    groups: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, groups), daemon=True).start()
    # Whoever asked may have gone: then nobody waits for an answer.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while (group := groups.get()) is not None:
            try:
                for site_id, reply in sites.answer_together(dict(group)):
                    connection.send(("reply", site_id, reply))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                connection.send(("error", error_record(error)))
                break
    sites.close()


def error_record(error: Exception) -> dict[str, str]:
    """Return an error as it crosses the pipe; of one that is not ours only its type."""
    if not isinstance(error, CohortiumError):
        error = InternalError(
            "a simulated site could not be worked",
            expected="an answer, or a numbered refusal",
            arrived=type(error).__name__,
            todo="report this as a fault",
        )
    return {"type": type(error).__name__, **{name: getattr(error, name) for name in _FIELDS}}


def error_of_record(record: Mapping[str, str]) -> CohortiumError:
    """Return the error that `error_record` wrote."""
    kind = getattr(common.errors, record["type"], InternalError)
    refused, *others = (record[name] for name in _FIELDS)
    error: CohortiumError = kind(refused, **dict(zip(_FIELDS[1:], others, strict=True)))
    return error


def _receive(connection: Connection, groups: queue.SimpleQueue[Group | None]) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            groups.put(connection.recv())
    groups.put(None)
