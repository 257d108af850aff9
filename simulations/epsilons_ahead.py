"""Epsilons that a run will ask for, found by a second process while this one loads PyTorch.

Plan rules, calibration and every simulated ledger ask dp-accounting, which loads much of SciPy:
together most of a second of a short run, and as much again in every worker that would ask first.
The second process asks the same code the same questions, of a ledger in memory; this one takes the
answers. A question that was not foreseen is answered here, as without it: only later.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

from common.child_process import end_with

if TYPE_CHECKING:
    from common.privacy.mechanism import MechanismRecord
    from common.study.plan import StudyPlan

ROUNDS_MAX: Final = 60
"""Of longer runs one round's epsilon takes longer to find, and a second at the start is nothing."""
WAIT_S: Final = 20.0
"""After the block; usually the answers are there."""
_ASKS_WITH: Final = "dp_accounting.pld"


@contextlib.contextmanager
def epsilons_ahead(read_plan: Callable[[], StudyPlan]) -> Iterator[None]:
    """Know what a plan's run will ask for at the end of the block, which loads what else it needs.

    Args:
        read_plan: called in the second process; what it raises there is for the caller to find.
    """
    if sys.platform != "linux" or _ASKS_WITH in sys.modules:
        yield
        return
    # Forked: a new interpreter would take as long as is won.
    context: Any = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(read_plan, theirs, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    try:
        yield
        with contextlib.suppress(EOFError):
            from common.privacy.accountant import take_epsilons

            # A fork of a process with threads can stand still: then this one answers by itself.
            if ours.poll(WAIT_S):
                take_epsilons(ours.recv())
    finally:
        ours.close()
        process.kill()
        process.join()
        process.close()


def _work(read_plan: Callable[[], StudyPlan], theirs: Connection, parent: int) -> None:
    end_with(parent)
    # Nothing is told from here: the caller reads the same plan, and says what is wrong with it.
    with contextlib.suppress(Exception):
        ask_as_a_run(read_plan())
        from common.privacy.accountant import epsilons_found

        theirs.send(epsilons_found())
    theirs.close()
    # Not what was open or registered before the fork: that is the parent's to close.
    os._exit(0)


def ask_as_a_run(plan: StudyPlan) -> None:
    """Ask what a virtual site's ledger asks in all rounds of a plan; nothing of a long one."""
    from common.canonical import digest_bytes
    from common.clock import SystemClock
    from common.ids import ReleaseId, StudyId
    from common.privacy.calibration import plan_mechanisms
    from common.privacy.ledger import Ledger, MemoryLedgerStore
    from common.privacy.ledger_entry import Commitment
    from common.study.plan_file import plan_digest
    from simulations.wide_limits import WIDE_LIMITS
    from site_client.release.site_limits import SiteLimits

    planned = plan_mechanisms(plan)
    if plan.selection is not None or planned.rounds > ROUNDS_MAX:
        return
    limits = SiteLimits.of(WIDE_LIMITS).for_plan(plan)
    study, digest = StudyId(plan.study.id), plan_digest(plan)
    promise = Commitment(study, digest, plan.privacy.epsilon, plan.privacy.delta, planned.counted)
    ledger = Ledger(MemoryLedgerStore(), SystemClock())
    ledger.commit(promise, limits)
    for number in range(planned.rounds + 2):
        mechanisms: list[MechanismRecord] = []
        if number == 0 and planned.scaling is not None:
            mechanisms.append(planned.scaling)
        if 1 <= number <= planned.rounds:
            mechanisms.append(planned.train_per_round)
        if number in planned.evaluation_rounds:
            mechanisms.append(planned.evaluation_of(number))
        if mechanisms:
            ledger.reserve(
                ReleaseId(digest_bytes("ahead", str(number).encode())),
                study_id=study,
                round_number=number,
                mechanisms=mechanisms,
                limits=limits,
                plan_digest=digest,
            )
            ledger.spent(study, limits.delta)
