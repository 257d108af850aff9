"""Studies and their states: the signed plan is stored once and never changed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from common.clock import Clock
from common.crypto.keys import SigningKey, VerifyKey
from common.crypto.signing import sign, verify
from common.errors import StudyStateError
from common.ids import Digest, StudyId, parse_digest, parse_study_id
from common.protocol.round_states import StudyState, check_study_change
from common.study.plan import StudyPlan
from common.study.plan_file import plan_bytes, plan_digest, plan_from_bytes
from server.storage.database import Database
from server.storage.tables import studies

PLAN_LABEL = "study-plan"


@dataclass(frozen=True)
class Study:
    """One registered study.

    Args:
        study_id: its id.
        plan: the plan, as signed.
        plan_digest: what sites approve.
        state: where it is.
        reason: why, when it stopped or failed.
        flower_run_id: the newest Flower run that carries it, or empty.
        restarts: how often a new Flower run was needed since a person last started it.
    """

    study_id: StudyId
    plan: StudyPlan
    plan_digest: Digest
    state: StudyState
    reason: str
    flower_run_id: str
    restarts: int


class StudyRegister:
    """Register studies and change their state, one transaction each."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def register(self, plan: StudyPlan, key: SigningKey) -> Study:
        """Store a signed plan; the same plan again changes nothing.

        Raises:
            StudyStateError: when the id belongs to another plan.
        """
        study_id, content = parse_study_id(plan.study.id), plan_bytes(plan)
        with self._database.transaction() as connection:
            row = connection.execute(
                select(studies).where(studies.c.study_id == study_id)
            ).one_or_none()
            if row is not None and row.plan != content:
                raise StudyStateError(
                    "a study's plan never changes",
                    expected=f"the plan with digest {row.plan_digest}",
                    arrived=f"another plan under the id {study_id}",
                    todo="give the changed plan a new study id; sites approve it anew",
                )
            if row is None:
                connection.execute(
                    insert(studies).values(
                        study_id=study_id,
                        plan_digest=plan_digest(plan),
                        plan=content,
                        signature=sign(key, PLAN_LABEL, content),
                        state=StudyState.REGISTERED.value,
                        reason="",
                        flower_run_id="",
                        restarts=0,
                        registered_at_s=self._clock.now_s(),
                    )
                )
        return self.find(study_id)

    def find(self, study_id: StudyId) -> Study:
        """Return one study; raises `StudyStateError` if unknown."""
        for study in self.all_studies():
            if study.study_id == study_id:
                return study
        raise StudyStateError(
            "no such study",
            expected="the id of a registered study",
            arrived=study_id,
            todo="look at `cohortium-coordinator status`, or launch the plan",
        )

    def all_studies(self) -> tuple[Study, ...]:
        """Return every study, oldest first."""
        with self._database.transaction() as connection:
            rows = connection.execute(select(studies).order_by(studies.c.registered_at_s)).all()
        return tuple(
            Study(
                study_id=parse_study_id(row.study_id),
                plan=plan_from_bytes(row.plan),
                plan_digest=parse_digest(row.plan_digest),
                state=StudyState(row.state),
                reason=row.reason,
                flower_run_id=row.flower_run_id,
                restarts=row.restarts,
            )
            for row in rows
        )

    def verify(self, study_id: StudyId, key: VerifyKey) -> None:
        """Check the stored plan's signature; raises `SignatureError`."""
        with self._database.transaction() as connection:
            row = connection.execute(select(studies).where(studies.c.study_id == study_id)).one()
        verify(key, PLAN_LABEL, row.signature, row.plan)

    def change_state(self, study_id: StudyId, after: StudyState, *, reason: str = "") -> None:
        """Change a study's state by the table; raises `StudyStateError`."""
        self._change(study_id, after, reason=reason)

    def start_run(self, study_id: StudyId, flower_run_id: str, *, restarts: int) -> None:
        """Set a study running, carried by this Flower run; raises `StudyStateError`.

        One transaction: `up` must never see a running study without its run.
        """
        self._change(
            study_id,
            StudyState.RUNNING,
            reason="",
            flower_run_id=flower_run_id,
            restarts=restarts,
        )

    def _change(self, study_id: StudyId, after: StudyState, **values: str | int) -> None:
        with self._database.transaction() as connection:
            before = connection.execute(
                select(studies.c.state).where(studies.c.study_id == study_id)
            ).scalar_one()
            check_study_change(StudyState(before), after)
            connection.execute(
                update(studies)
                .where(studies.c.study_id == study_id)
                .values(state=after.value, **values)
            )
