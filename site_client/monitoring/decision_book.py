"""The board's decisions as this site holds them, each signed by enough deciders, one after another.

A decision is shown. It stops nothing by itself but, to stop: training and reports of its study at
this site; to pause this site: training alone, for whether the model still serves patients must be
seen all the more. That only where `[monitoring] follow_decisions` of site.toml says so; hospital IT
takes it back with `unpause`, whatever the board says. One whose deciders are not active any more
when it comes is shown with that objection and never followed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from common.errors import CohortiumError, LedgerError
from common.ids import Digest, SiteId, StudyId
from common.protocol.monitoring.notice_checks import check_decision_follows, judge_decision
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Action, Decision
from common.protocol.monitoring.roster import MonitoringRoster
from site_client.approvals import Approvals
from site_client.monitoring.outcomes import KNOWN, LATER, TAKEN, refused
from site_client.site_database import SiteDatabase


class DecisionBook:
    """Decisions about the studies of one site.

    Args:
        database, approvals: of the site.
        site_id: the site.
        is_followed: whether a decision that stops this site pauses the study here.
    """

    def __init__(
        self,
        database: SiteDatabase,
        approvals: Approvals,
        site_id: SiteId,
        *,
        is_followed: bool,
    ) -> None:
        self._database = database
        self._approvals = approvals
        self._site_id = site_id
        self._is_followed = is_followed

    def take(self, notice: bytes, rosters: Sequence[MonitoringRoster]) -> str:
        """Take a decision that deciders of a pinned roster signed; return the outcome.

        Args:
            rosters: all that were pinned, the oldest first.
        """
        if not rosters:
            return LATER
        try:
            judged, digest = judge_decision(notice, rosters), read_notice(notice).digest
        except CohortiumError as error:
            return refused(error)
        decision = judged.decision
        held = self._held(decision.study_id)
        if held.get(decision.number) == digest:
            return KNOWN
        number = max(held, default=0)
        if decision.number > number + 1:
            return LATER
        try:
            check_decision_follows(
                decision,
                consortium=rosters[-1].consortium,
                study_id=decision.study_id,
                number=number,
                digest=held.get(number),
            )
        except CohortiumError as error:
            return refused(error)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO monitoring_decisions VALUES (?, ?, ?)",
                (decision.study_id, decision.number, sqlite3.Binary(notice)),
            )
            # Once, with the decision: what a person takes back does not return with a retry.
            if judged.objection:
                connection.execute(
                    "INSERT INTO monitoring_objections VALUES (?, ?, ?)",
                    (decision.study_id, decision.number, judged.objection),
                )
            elif self._is_followed and decision.action is Action.STOP:
                self._approvals.pause_within(connection, decision.study_id)
            elif self._is_followed and self.stops(decision):
                self._approvals.pause_training_within(connection, decision.study_id)
        return TAKEN

    def decisions(self, study_id: StudyId) -> tuple[Decision, ...]:
        """Return a study's decisions, the first one first; raises `LedgerError`."""
        found = []
        for notice in self._notices(study_id):
            content = read_notice(notice).content
            if not isinstance(content, Decision):
                raise _damaged()
            found.append(content)
        return tuple(found)

    def objections(self, study_id: StudyId) -> dict[int, str]:
        """Return why decisions are not followed, by number; raises `LedgerError`."""
        rows = self._database.rows(
            "SELECT number, words FROM monitoring_objections WHERE study_id = ?", study_id
        )
        return {number: str(words) for number, words in rows if isinstance(number, int)}

    def stops(self, decision: Decision) -> bool:
        """Return whether a decision is to stop this site."""
        return decision.action is Action.STOP or (
            decision.action is Action.PAUSE_SITE and decision.site_id == self._site_id
        )

    def _held(self, study_id: StudyId) -> dict[int, Digest]:
        return {
            number: read_notice(notice).digest
            for number, notice in enumerate(self._notices(study_id), start=1)
        }

    def _notices(self, study_id: StudyId) -> list[bytes]:
        rows = self._database.rows(
            "SELECT number, notice FROM monitoring_decisions WHERE study_id = ? ORDER BY number",
            study_id,
        )
        notices = [notice for _, notice in rows if isinstance(notice, bytes)]
        if [number for number, _ in rows] != list(range(1, len(notices) + 1)):
            raise _damaged()
        return notices


def _damaged() -> LedgerError:
    return LedgerError(
        "the board's decisions are damaged here",
        expected="decisions 1, 2, 3 and so on, as they were taken",
        arrived="others",
        todo="restore site/state from its backup",
    )
