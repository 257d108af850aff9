"""Which model a site reports about: the newest that the enrolled coordinator promoted."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from common import limits
from common.crypto.keys import VerifyKey
from common.errors import CohortiumError, LedgerError
from common.ids import StudyId
from common.protocol.arrays import Parameters, decode_parameters, parameters_digest
from common.protocol.monitoring.notice_checks import check_promotion_follows, verify_promotion
from common.protocol.monitoring.notices import Promotion
from common.study.plan import StudyPlan
from common.study.scaling import Scaling, model_shapes, split_model
from site_client.monitoring.outcomes import KNOWN, TAKEN, refused
from site_client.site_database import SiteDatabase


@dataclass(frozen=True)
class PromotedModel:
    """One promoted version.

    Args:
        promotion: as the coordinator signed it.
        content: its parameters as they travelled.
    """

    promotion: Promotion
    content: bytes

    def arrays(self, plan: StudyPlan) -> tuple[Parameters, Scaling | None]:
        """Return parameters and scaling; raises `ProtocolError` when they are not the plan's."""
        return split_model(
            decode_parameters(
                self.content,
                expected=model_shapes(plan),
                bytes_max=limits.PARAMETERS_BYTES_MAX,
            )
        )


class PromotedModels:
    """The promoted model of each study, of the coordinator that this site enrolled with."""

    def __init__(self, database: SiteDatabase, coordinator: VerifyKey) -> None:
        self._database = database
        self._coordinator = coordinator

    def take(self, notice: bytes, content: bytes) -> str:
        """Take a promotion whose parameters are the ones it names; return the outcome.

        A study's first promotion fixes its plan: one of another plan is another study.
        """
        try:
            promotion = verify_promotion(notice, self._coordinator)
            held = self.find(promotion.study_id)
            if held is not None and held.promotion == promotion:
                return KNOWN
            check_promotion_follows(promotion, held.promotion if held is not None else None)
        except CohortiumError as error:
            if isinstance(error, LedgerError):
                raise
            return refused(error)
        if (
            len(content) > limits.PARAMETERS_BYTES_MAX
            or parameters_digest(content) != promotion.model_version
        ):
            return "refused B11"
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO monitoring_models VALUES (?, ?, ?)",
                (promotion.study_id, sqlite3.Binary(notice), sqlite3.Binary(content)),
            )
        return TAKEN

    def is_genuine(self, notice: bytes, content: bytes) -> bool:
        """Return whether the coordinator signed a promotion of exactly these parameters."""
        try:
            promotion = verify_promotion(notice, self._coordinator)
        except CohortiumError:
            return False
        return parameters_digest(content) == promotion.model_version

    def find(self, study_id: StudyId) -> PromotedModel | None:
        """Return a study's promoted model; raises `LedgerError` when it is not as it was taken."""
        rows = self._database.rows(
            "SELECT notice, parameters FROM monitoring_models WHERE study_id = ?", study_id
        )
        if not rows:
            return None
        notice, content = rows[0]
        if isinstance(notice, bytes) and isinstance(content, bytes):
            try:
                promotion = verify_promotion(notice, self._coordinator)
            except CohortiumError:
                pass
            else:
                if parameters_digest(content) == promotion.model_version:
                    return PromotedModel(promotion, content)
        raise LedgerError(
            f"the promoted model of {study_id} is damaged",
            expected="a promotion as the coordinator signed it, with its parameters",
            arrived="something else",
            todo="restore site/state from its backup; no report is made until then",
        )

    def studies(self) -> tuple[StudyId, ...]:
        """Return the studies with a promoted model."""
        rows = self._database.rows("SELECT study_id FROM monitoring_models ORDER BY study_id")
        return tuple(StudyId(str(row[0])) for row in rows)
