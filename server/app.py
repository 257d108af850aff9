"""The Flower `ServerApp`: from a run's study id to the coordinator's rounds."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.clock import SystemClock
from common.crypto.keys import OpeningKey, SigningKey
from common.errors import CohortiumError
from common.ids import StudyId, parse_study_id
from common.protocol.round_states import StudyState
from server.books import Books, open_books
from server.config import HOME_VARIABLE, CoordinatorPaths, read_config
from server.coordinator import Coordinator, CoordinatorKeys, describe_failure
from server.flower_channel import FlowerChannel
from server.flower_replies import FlowerReplies
from server.run_lock import hold_run_lock
from server.study_register import Study

REGISTRATION_WAIT_S = 15.0
"""`launch` writes the run's id just after Flower has accepted the run."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study that the run's config names; its own store says everything else."""
    paths = CoordinatorPaths(Path(os.environ[HOME_VARIABLE]))
    books = open_books(paths, read_config(paths))
    study_id = parse_study_id(str(context.run_config["study"]))
    _log_to(paths.logs / f"study-{study_id}.log")
    with hold_run_lock(paths, study_id):
        study = _wait_for_turn(books, study_id, str(context.run_id))
        if study is not None:
            _run(grid, study, books, paths)


def _log_to(path: Path) -> None:
    # What the coordinator on call reads first; Flower's own log of a run is in its database.
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    logger = logging.getLogger("cohortium")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _wait_for_turn(books: Books, study_id: StudyId, run_id: str) -> Study | None:
    """Return the study once it is carried by this run, or None when another run carries it."""
    deadline = time.monotonic() + REGISTRATION_WAIT_S
    while time.monotonic() < deadline:
        study = books.register.find(study_id)
        if study.state is StudyState.RUNNING and study.flower_run_id == run_id:
            return study
        time.sleep(0.1)
    return None


def _run(grid: Grid, study: Study, books: Books, paths: CoordinatorPaths) -> None:
    def should_stop() -> bool:
        now = books.register.find(study.study_id)
        return now.state is not StudyState.RUNNING or now.flower_run_id != study.flower_run_id

    signing = SigningKey.read(paths.signing_key)
    books.register.verify(study.study_id, signing.verify_key)
    coordinator = Coordinator(
        study,
        books=books,
        keys=CoordinatorKeys(signing=signing, opening=OpeningKey.read(paths.opening_key)),
        channel=FlowerChannel(
            grid, books.sites.all_sites, replies=FlowerReplies(grid), should_stop=should_stop
        ),
        clock=SystemClock(),
        should_stop=should_stop,
    )
    try:
        coordinator.run()
    except CohortiumError as error:
        # Flower keeps what an exception says; ours carry no text from another party.
        if books.register.find(study.study_id).state is StudyState.RUNNING:
            books.register.change_state(
                study.study_id, StudyState.FAILED, reason=describe_failure(error)
            )
        raise
