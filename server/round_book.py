"""Rounds and the sites' answers: every completed round is a checkpoint.

The order makes kill -9 harmless: model and optimiser state are durable files named by their digest
before one transaction says that the round is complete. A file without its row is never read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from common import limits
from common.canonical import Canonical, canonical_bytes, canonical_float, digest_bytes
from common.clock import Clock
from common.errors import StoreError
from common.ids import Digest, SiteId, StudyId, parse_digest, parse_site_id
from common.protocol.arrays import parameters_digest
from common.protocol.counts import CELL_BYTES, decode_counts
from common.protocol.mechanisms import mechanism_to_record
from common.protocol.messages import ReleasedTask, TaskKind
from common.protocol.round_states import RoundState, check_round_change
from server.config import CoordinatorPaths
from server.durable_file import write_durably
from server.storage.database import Database
from server.storage.tables import answers, rounds

_IDS_AT_ONCE: Final = 500
"""SQLite takes a bounded number of values in one statement."""
_NEW_ANSWER: Final = insert(answers)


class Outcome(StrEnum):
    """What became of asking one site in one round."""

    ACCEPTED = "accepted"
    REFUSED_BY_SITE = "refused-by-site"
    REFUSED_BY_COORDINATOR = "refused-by-coordinator"
    MISSING = "missing"


@dataclass(frozen=True)
class Answer:
    """One site's answer in one round.

    Args:
        outcome: what became of it.
        number: refusal number (R or U), or why it is missing.
        detail: for an accepted one, the reply but for its update.
    """

    round_number: int
    site_id: SiteId
    outcome: Outcome
    number: str
    release_id: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class BriefAnswer:
    """An `Answer` without its detail, which is a hundred times as large.

    Args:
        answer_id: by which `RoundBook.details` finds the detail.
    """

    answer_id: int
    round_number: int
    site_id: SiteId
    outcome: Outcome
    number: str
    release_id: str


@dataclass(frozen=True)
class Round:
    """One round as stored."""

    round_number: int
    state: RoundState
    base_version: Digest
    new_version: str
    optimizer_state: str
    reason: str
    started_at_s: int
    finished_at_s: int


class RoundBook:
    """Record rounds and answers of the coordinator's studies.

    Args:
        database, paths, clock: of the coordinator.
        waits_for_disk: False: checkpoints survive a kill of the process, not a power cut.
    """

    def __init__(
        self,
        database: Database,
        paths: CoordinatorPaths,
        clock: Clock,
        *,
        waits_for_disk: bool = True,
    ) -> None:
        self._write = partial(write_durably, waits_for_disk=waits_for_disk)
        self._database = database
        self._paths = paths
        self._clock = clock

    def open_round(self, study_id: StudyId, round_number: int, base_version: Digest) -> None:
        """Say that requests of a round are going out; raises `StudyStateError` if it is over."""
        with self._database.transaction() as connection:
            row = self._row(connection, study_id, round_number)
            if row is not None:
                check_round_change(RoundState(row.state), RoundState.OPEN)
                connection.execute(
                    update(rounds)
                    .where(self._is(study_id, round_number))
                    .values(state=RoundState.OPEN.value, base_version=base_version, reason="")
                )
                return
            connection.execute(
                insert(rounds).values(
                    study_id=study_id,
                    round_number=round_number,
                    state=RoundState.OPEN.value,
                    base_version=base_version,
                    new_version="",
                    optimizer_state="",
                    reason="",
                    started_at_s=self._clock.now_s(),
                    finished_at_s=0,
                )
            )

    def record_accepted(self, study_id: StudyId, site_id: SiteId, reply: ReleasedTask) -> None:
        """Record an accepted release."""
        self._record(
            study_id,
            reply.round_number,
            site_id,
            Outcome.ACCEPTED,
            release_id=reply.release_id,
            detail=_reply_record(reply),
        )

    def record_refusal(
        self, study_id: StudyId, round_number: int, site_id: SiteId, outcome: Outcome, number: str
    ) -> None:
        """Record a numbered refusal by the site or by the coordinator, or why a site is missing."""
        self._record(study_id, round_number, site_id, outcome, number=number)

    def complete_round(
        self, study_id: StudyId, round_number: int, *, parameters: bytes, optimizer_state: bytes
    ) -> Digest:
        """Make the checkpoint of a round durable and return the new version.

        Args:
            parameters: the new model, safetensors bytes.
            optimizer_state: the server optimiser's state, safetensors bytes; may be empty.
        """
        version = self.store_parameters(parameters)
        state_digest = digest_bytes("optimizer-state", optimizer_state)
        self._write(self._paths.models / f"{state_digest}.optimizer", optimizer_state)
        self._close(
            study_id,
            round_number,
            RoundState.COMPLETE,
            new_version=version,
            optimizer_state=state_digest,
        )
        return version

    def complete_count(self, study_id: StudyId, round_number: int) -> None:
        """Say that a count is complete: its answers are its result, and no model changes."""
        self._close(study_id, round_number, RoundState.COMPLETE)

    def fail_round(self, study_id: StudyId, round_number: int, *, reason: str) -> None:
        """Say that a round ended without its quorum."""
        self._close(study_id, round_number, RoundState.FAILED, reason=reason)

    def store_parameters(self, parameters: bytes) -> Digest:
        """Write a model to its file, named by digest, and return the digest."""
        version = parameters_digest(parameters)
        path = self._paths.models / f"{version}.safetensors"
        if not path.exists():
            self._write(path, parameters)
        return version

    def read_parameters(self, version: Digest) -> bytes:
        """Return a stored model's bytes; raises `StoreError` if absent or changed."""
        content = self._read(f"{version}.safetensors")
        if parameters_digest(content) != version:
            raise _damaged(f"{version}.safetensors")
        return content

    def read_optimizer_state(self, digest: Digest) -> bytes:
        """Return a stored optimiser state; raises `StoreError` if absent or changed."""
        content = self._read(f"{digest}.optimizer")
        if digest_bytes("optimizer-state", content) != digest:
            raise _damaged(f"{digest}.optimizer")
        return content

    def rounds(self, study_id: StudyId) -> tuple[Round, ...]:
        """Return a study's rounds in order."""
        with self._database.transaction() as connection:
            found = connection.execute(
                select(rounds).where(rounds.c.study_id == study_id).order_by(rounds.c.round_number)
            ).all()
        return tuple(
            Round(
                round_number=row.round_number,
                state=RoundState(row.state),
                base_version=parse_digest(row.base_version),
                new_version=row.new_version,
                optimizer_state=row.optimizer_state,
                reason=row.reason,
                started_at_s=row.started_at_s,
                finished_at_s=row.finished_at_s,
            )
            for row in found
        )

    def last_complete(self, study_id: StudyId) -> Round | None:
        """Return the newest complete round, from which a study resumes."""
        complete = [item for item in self.rounds(study_id) if item.state is RoundState.COMPLETE]
        return complete[-1] if complete else None

    def answers(self, study_id: StudyId) -> tuple[Answer, ...]:
        """Return every answer of a study, oldest first."""
        with self._database.transaction() as connection:
            found = connection.execute(
                select(answers).where(answers.c.study_id == study_id).order_by(answers.c.id)
            ).all()
        return tuple(
            Answer(
                round_number=row.round_number,
                site_id=parse_site_id(row.site_id),
                outcome=Outcome(row.outcome),
                number=row.number,
                release_id=row.release_id,
                detail=json.loads(row.detail),
            )
            for row in found
        )

    def brief_answers(self, study_id: StudyId) -> tuple[BriefAnswer, ...]:
        """Return every answer of a study without its detail, oldest first."""
        columns = answers.c
        with self._database.transaction() as connection:
            found = connection.execute(
                select(
                    columns.id,
                    columns.round_number,
                    columns.site_id,
                    columns.outcome,
                    columns.number,
                    columns.release_id,
                )
                .where(columns.study_id == study_id)
                .order_by(columns.id)
            ).all()
        return tuple(
            BriefAnswer(
                answer_id=row.id,
                round_number=row.round_number,
                site_id=parse_site_id(row.site_id),
                outcome=Outcome(row.outcome),
                number=row.number,
                release_id=row.release_id,
            )
            for row in found
        )

    def details(self, answer_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the details of some answers, by their ids."""
        found: dict[int, dict[str, Any]] = {}
        with self._database.transaction() as connection:
            for start in range(0, len(answer_ids), _IDS_AT_ONCE):
                some = answer_ids[start : start + _IDS_AT_ONCE]
                rows = connection.execute(
                    select(answers.c.id, answers.c.detail).where(answers.c.id.in_(some))
                )
                found.update((row.id, json.loads(row.detail)) for row in rows)
        return found

    def _close(self, study_id: StudyId, number: int, state: RoundState, **values: str) -> None:
        with self._database.transaction() as connection:
            row = self._row(connection, study_id, number)
            if row is None:
                raise StoreError(
                    "a round that was never opened cannot end",
                    expected="an open round",
                    arrived=f"round {number} of {study_id}",
                    todo="report this as a fault",
                )
            check_round_change(RoundState(row.state), state)
            connection.execute(
                update(rounds)
                .where(self._is(study_id, number))
                .values(state=state.value, finished_at_s=self._clock.now_s(), **values)
            )

    def _record(
        self,
        study_id: StudyId,
        round_number: int,
        site_id: SiteId,
        outcome: Outcome,
        *,
        number: str = "",
        release_id: str = "",
        detail: Canonical = None,
    ) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                _NEW_ANSWER,
                {
                    "study_id": study_id,
                    "round_number": round_number,
                    "site_id": site_id,
                    "outcome": outcome.value,
                    "number": number,
                    "release_id": release_id,
                    "detail": canonical_bytes(detail or {}).decode(),
                    "at_s": self._clock.now_s(),
                },
            )

    def _read(self, name: str) -> bytes:
        try:
            with (self._paths.models / name).open("rb") as stream:
                return stream.read(limits.PARAMETERS_BYTES_MAX * 3)
        except OSError:
            raise _damaged(name) from None

    @staticmethod
    def _row(connection: Connection, study_id: StudyId, number: int) -> Any:
        return connection.execute(
            select(rounds).where(RoundBook._is(study_id, number))
        ).one_or_none()

    @staticmethod
    def _is(study_id: StudyId, number: int) -> Any:
        return (rounds.c.study_id == study_id) & (rounds.c.round_number == number)


def summarise(found: Sequence[Answer], round_number: int) -> dict[str, int]:
    """Return how many answers of a round had each outcome."""
    of_round = [item for item in found if item.round_number == round_number]
    return {outcome.value: sum(item.outcome is outcome for item in of_round) for outcome in Outcome}


def _reply_record(reply: ReleasedTask) -> dict[str, Canonical]:
    evaluation: Canonical = None
    if reply.evaluation is not None:
        evaluation = {
            "counts": [list(row) for row in reply.evaluation.counts],
            "model_version": reply.evaluation.model_version,
            "noise_multiplier": canonical_float(reply.evaluation.noise_multiplier),
        }
    counts: dict[str, Canonical] = {}
    if reply.kind is TaskKind.COUNT:
        cells = len(reply.update) // CELL_BYTES
        counts["counts"] = decode_counts(reply.update, cells=cells).tolist()
    return {
        **counts,
        "declared_cohort_size": reply.declared_cohort_size,
        "evaluation": evaluation,
        "mechanisms": [mechanism_to_record(item) for item in reply.mechanisms],
        "statement": {
            "delta": canonical_float(reply.statement.delta),
            "epsilon_remaining": canonical_float(reply.statement.epsilon_remaining),
            "epsilon_spent": canonical_float(reply.statement.epsilon_spent),
            "ledger_head": reply.statement.ledger_head,
        },
    }


def _damaged(name: str) -> StoreError:
    return StoreError(
        f"{name} is missing or damaged",
        expected="the bytes whose digest is its name",
        arrived="no such file, or other bytes",
        todo="restore the coordinator's models folder from its backup",
    )
