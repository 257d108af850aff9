"""What the coordinator does about the board's decisions: verify each, act once, log the outcome.

A decision is looked at in these steps, each refusal with its reason:
    (1) it is signed by enough active deciders of the newest pinned roster (T1, T2, T4); one that
        only an earlier one allows keeps its place, is logged as `open`, and waits for a person
    (2) it follows the study's decision before it (T6); one that comes ahead of it waits, unlogged
    (3) it can be done: the study is there, and the site, or the version, which is of the study
A decision of a number that is held is never looked at again, so nothing is done twice; an action
that was cut short by a crash is found done, or is done again to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Row, insert, select

from common.canonical import digest_bytes
from common.clock import Clock
from common.errors import (
    CohortiumError,
    EnrolmentError,
    ProtocolError,
    RegistryError,
    SignatureError,
    StudyStateError,
)
from common.ids import Digest, StudyId
from common.protocol.monitoring.notice_checks import check_decision_follows, judge_decision
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Action, Decision
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.signed_notice import read_signed
from common.protocol.round_states import StudyState
from server.books import Books
from server.registry.actions import ModelActions
from server.storage.database import Database
from server.storage.tables import board_decisions

_NOT_POSSIBLE: Final = (EnrolmentError, RegistryError, StudyStateError)


@dataclass(frozen=True)
class ActedDecision:
    """One decision as the coordinator logged it.

    Args:
        number: in its study; 0 when the bytes are no decision.
        outcome: `done`, `recorded`, `open`, `not possible` or `refused`.
        detail: what was done, or why not.
    """

    study_id: str
    number: int
    action: str
    signers: str
    outcome: str
    detail: str
    at_s: int
    notice: bytes


class BoardDecisions:
    """Acts for one coordinator.

    Args:
        database: the coordinator's.
        books: studies and sites.
        actions: the signed log of promotions and rollbacks.
        tell_sites: gives sites a model version after a rollback; the same again changes nothing.
    """

    def __init__(
        self,
        database: Database,
        books: Books,
        actions: ModelActions,
        clock: Clock,
        *,
        tell_sites: Callable[[Digest], object],
    ) -> None:
        self._database = database
        self._books = books
        self._actions = actions
        self._clock = clock
        self._tell_sites = tell_sites

    def act(self, notice: bytes, rosters: Sequence[MonitoringRoster]) -> ActedDecision | None:
        """Verify and do one decision; the same bytes again change nothing and are not verified.

        Args:
            notice: as the relay holds it.
            rosters: all that are pinned, the oldest first.

        Returns:
            How it is logged; None when one before it is not here yet: then act again after that.

        Raises:
            StoreError: nothing is logged; act again.
        """
        digest = digest_bytes("board-decision", notice)
        known = self._find(digest)
        if known is not None:
            return known
        try:
            judged = judge_decision(notice, rosters)
            if not self._has_turn(judged.decision, rosters[-1].consortium):
                return None
        except (ProtocolError, SignatureError) as error:
            return self._log(notice, digest, "refused", _reason(error))
        if judged.objection:
            return self._log(notice, digest, "open", f"not done: {judged.objection}")
        try:
            outcome, detail = self._do(
                judged.decision, read_signed(notice).digest, _signers(notice)
            )
        except _NOT_POSSIBLE as error:
            outcome, detail = "not possible", _reason(error)
        return self._log(notice, digest, outcome, detail)

    def log(self) -> tuple[ActedDecision, ...]:
        """Return every decision that was looked at, in the order of looking."""
        return acted_decisions(self._database)

    def _has_turn(self, decision: Decision, consortium: str) -> bool:
        """Return whether the decisions before it are here; raises T6 if it does not follow them."""
        table = board_decisions
        query = (
            select(table.c.notice)
            .where(table.c.study_id == decision.study_id, table.c.outcome != "refused")
            .order_by(table.c.id)
        )
        with self._database.reading() as connection:
            held = connection.execute(query).scalars().all()
        if decision.number > len(held) + 1:
            return False
        check_decision_follows(
            decision,
            consortium=consortium,
            study_id=decision.study_id,
            number=len(held),
            digest=read_signed(held[-1]).digest if held else None,
        )
        return True

    def _do(self, decision: Decision, digest: Digest, signers: str) -> tuple[str, str]:
        study = self._books.register.find(decision.study_id)
        doing: Mapping[Action, Callable[[], str]] = {
            Action.PAUSE_SITE: lambda: self._pause(decision),
            Action.ROLL_BACK: lambda: self._roll_back(decision, digest, signers),
            Action.STOP: lambda: self._stop(decision, study.state, signers),
        }
        do = doing.get(decision.action)
        if do is None:
            return "recorded", f"{decision.action.value} is recorded for {study.study_id}"
        return "done", do()

    def _pause(self, decision: Decision) -> str:
        if decision.site_id is None:
            message = "a decision to pause names a site"
            raise TypeError(message)
        self._books.sites.suspend(decision.site_id)
        return f"{decision.site_id} takes part in no new round; `readmit` lets it in again"

    def _roll_back(self, decision: Decision, digest: Digest, signers: str) -> str:
        version = decision.model_version
        if version is None:
            message = "a decision to roll back names a version"
            raise TypeError(message)
        self._check_of_study(version, decision.study_id)
        mark = f"decision {digest}"
        if not any(mark in item.reason for item in self._actions.log()):
            previous = self._actions.aliases().get("previous")
            if previous != version:
                raise RegistryError(
                    "the board's rollback is not possible",
                    expected=f"the previous champion {version[:12]}",
                    arrived=str(previous)[:12],
                    todo="promote the version by hand, or let the board decide anew",
                )
            self._actions.rollback(person=signers, reason=f"{decision.reason} ({mark})")
        self._tell_sites(version)
        return f"{version[:12]} is the champion again"

    def _check_of_study(self, version: Digest, study_id: StudyId) -> None:
        # There is one champion: what one study's board decided must not move another's model.
        for item in self._books.registry.all_versions():
            if item.version == version and item.study_id != study_id:
                raise RegistryError(
                    "the board's rollback is not possible",
                    expected=f"a version of {study_id}",
                    arrived=f"{version[:12]}, of {item.study_id}",
                    todo="let the board decide anew",
                )

    def _stop(self, decision: Decision, state: StudyState, signers: str) -> str:
        if state is StudyState.FINISHED:
            return "the study's rounds had ended; its model is not to be used"
        self._books.register.change_state(
            decision.study_id, StudyState.STOPPED, reason=f"stopped by the board: {signers}"
        )
        return "no new round is started"

    def _find(self, digest: Digest) -> ActedDecision | None:
        with self._database.reading() as connection:
            return _find(connection, digest)

    def _log(self, notice: bytes, digest: Digest, outcome: str, detail: str) -> ActedDecision:
        content = _content(notice)
        with self._database.transaction() as connection:
            if _find(connection, digest) is None:
                connection.execute(
                    insert(board_decisions).values(
                        digest=digest,
                        study_id=content.study_id if content else "",
                        number=content.number if content else 0,
                        action=content.action.value if content else "",
                        signers=_signers(notice) if content else "",
                        outcome=outcome,
                        detail=detail,
                        at_s=self._clock.now_s(),
                        notice=notice,
                    )
                )
            found = _find(connection, digest)
        if found is None:
            message = "a row that was just written is there"
            raise LookupError(message)
        return found


def acted_decisions(database: Database) -> tuple[ActedDecision, ...]:
    """Return every decision that the coordinator looked at, in the order of looking."""
    with database.reading() as connection:
        rows = connection.execute(select(board_decisions).order_by(board_decisions.c.id))
        return tuple(_acted(row) for row in rows)


def study_named_in(notice: bytes) -> str:
    """Return the id of the study that a decision is about, nothing verified; empty for none."""
    content = _content(notice)
    return content.study_id if content else ""


def open_requests(database: Database, study_id: StudyId) -> tuple[ActedDecision, ...]:
    """Return what waits for a person: requests to retrain or recalibrate, and what is open."""
    wanted = (Action.RETRAIN.value, Action.RECALIBRATE.value)
    return tuple(
        item
        for item in acted_decisions(database)
        if item.study_id == study_id
        and (item.outcome == "open" or (item.outcome == "recorded" and item.action in wanted))
    )


def _find(connection: Connection, digest: Digest) -> ActedDecision | None:
    query = select(board_decisions).where(board_decisions.c.digest == digest)
    row = connection.execute(query).one_or_none()
    return None if row is None else _acted(row)


def _acted(row: Row[tuple[object, ...]]) -> ActedDecision:
    return ActedDecision(
        study_id=row.study_id,
        number=row.number,
        action=row.action,
        signers=row.signers,
        outcome=row.outcome,
        detail=row.detail,
        at_s=row.at_s,
        notice=row.notice,
    )


def _content(notice: bytes) -> Decision | None:
    try:
        content = read_notice(notice).content
    except CohortiumError:
        return None
    return content if isinstance(content, Decision) else None


def _signers(notice: bytes) -> str:
    return ", ".join(sorted(read_signed(notice).signatures))


def _reason(error: CohortiumError) -> str:
    number = f"{error.number} " if error.number else ""
    return f"{number}{error.refused}: expected {error.expected}; arrived {error.arrived}"
