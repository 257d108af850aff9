"""The data steward's signed approval of one exact plan, until a date; and pauses by hospital IT."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from common.canonical import Canonical, canonical_bytes, parse_canonical
from common.clock import Clock, utc_text
from common.crypto.keys import SigningKey, VerifyKey
from common.crypto.signing import sign, verify
from common.errors import ApprovalError, SignatureError
from common.ids import Digest, StudyId, parse_digest, parse_study_id
from common.protocol.fields import Fields
from common.study.plan import StudyPlan
from common.study.plan_file import plan_bytes, plan_digest, plan_from_bytes
from site_client.site_database import SiteDatabase

_LABEL: Final = "plan-approval"


@dataclass(frozen=True)
class Approval:
    """One approved plan.

    Args:
        person: who approved it.
        until_s: last second of the approval, since 1970.
        is_withdrawn: whether it was withdrawn before that.
    """

    study_id: StudyId
    plan_digest: Digest
    plan: StudyPlan
    person: str
    approved_at_s: int
    until_s: int
    is_withdrawn: bool


class Approvals:
    """Approvals and pauses of one site.

    Args:
        key: the site's verify key; a stored approval that it did not sign is refused.
    """

    def __init__(self, database: SiteDatabase, clock: Clock, key: VerifyKey) -> None:
        self._database = database
        self._clock = clock
        self._key = key

    def approve(
        self, plan: StudyPlan, *, person: str, until_s: int, signing_key: SigningKey
    ) -> Approval:
        """Approve one exact plan until a date; raises `ApprovalError` for a date in the past."""
        now_s = self._clock.now_s()
        if until_s <= now_s or not person.strip():
            raise ApprovalError(
                "the approval is refused",
                expected="a person's name and a date in the future",
                arrived=f"until {utc_text(until_s)}",
                todo="give `--as NAME --until YYYY-MM-DD`",
            )
        record: dict[str, Canonical] = {
            "approved_at_s": now_s,
            "person": person.strip(),
            "plan_digest": plan_digest(plan),
            "study_id": plan.study.id,
            "until_s": until_s,
        }
        content = canonical_bytes(record)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO approvals VALUES (?, ?, ?, ?, 0)",
                (
                    plan_digest(plan),
                    sqlite3.Binary(content),
                    sqlite3.Binary(sign(signing_key, _LABEL, content)),
                    sqlite3.Binary(plan_bytes(plan)),
                ),
            )
        return self.find(plan_digest(plan))

    def withdraw(self, study_id: StudyId) -> int:
        """Withdraw every approval of a study and return how many there were.

        Raises:
            ApprovalError: for a study that was never approved here; perhaps a mistyped id.
        """
        self._check_known(study_id)
        withdrawn = [
            item
            for item in self.all_approvals()
            if item.study_id == study_id and not item.is_withdrawn
        ]
        with self._database.transaction() as connection:
            for item in withdrawn:
                connection.execute(
                    "UPDATE approvals SET is_withdrawn = 1 WHERE plan_digest = ?",
                    (item.plan_digest,),
                )
        return len(withdrawn)

    def find(self, digest: Digest) -> Approval:
        """Return the approval of exactly this plan; raises `ApprovalError` R6 if there is none."""
        for item in self.all_approvals():
            if item.plan_digest == digest:
                return item
        raise ApprovalError(
            "this plan is not approved here",
            expected="the digest of an approved plan",
            arrived=digest,
            todo="read the plan and run `cohortium-site approve PLAN --as NAME --until DATE`",
            number="R6",
        )

    def all_approvals(self) -> tuple[Approval, ...]:
        """Return every approval; raises `SignatureError` for one the site did not sign."""
        rows = self._database.rows("SELECT record, signature, plan, is_withdrawn FROM approvals")
        return tuple(_parse(self._key, *row) for row in rows)

    def sign_anew(self, key: SigningKey) -> None:
        """Sign every approval by the site's next key, all or none; those it signed stay.

        Raises:
            SignatureError: one is signed by neither the next key nor the site's.
        """
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT plan_digest, record, signature FROM approvals")
            for digest, record, signature in rows.fetchall():
                try:
                    verify(key.verify_key, _LABEL, signature, record)
                except SignatureError:
                    verify(self._key, _LABEL, signature, record)
                connection.execute(
                    "UPDATE approvals SET signature = ? WHERE plan_digest = ?",
                    (sqlite3.Binary(sign(key, _LABEL, record)), digest),
                )

    def pause(self, study_id: StudyId) -> None:
        """Refuse a study's requests with R17 until `unpause`; raises `ApprovalError` if unknown."""
        self._check_known(study_id)
        with self._database.transaction() as connection:
            self.pause_within(connection, study_id)

    def pause_within(self, connection: sqlite3.Connection, study_id: StudyId) -> None:
        """Pause a study as a part of another change: both are kept, or neither."""
        connection.execute("INSERT OR IGNORE INTO paused VALUES (?)", (study_id,))

    def pause_training_within(self, connection: sqlite3.Connection, study_id: StudyId) -> None:
        """Refuse training as a part of another change; reports of the model in use go on."""
        connection.execute("INSERT OR IGNORE INTO paused_training VALUES (?)", (study_id,))

    def unpause(self, study_id: StudyId) -> None:
        """Answer a study's requests again."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM paused WHERE study_id = ?", (study_id,))
            connection.execute("DELETE FROM paused_training WHERE study_id = ?", (study_id,))

    def is_paused(self, study_id: StudyId) -> bool:
        """Return whether nothing of a study is answered: by hospital IT, or a decision to stop."""
        return bool(self._database.rows("SELECT 1 FROM paused WHERE study_id = ?", study_id))

    def is_training_paused(self, study_id: StudyId) -> bool:
        """Return whether training is not answered: all is paused, or the board paused this site."""
        query = "SELECT 1 FROM paused_training WHERE study_id = ?"
        return self.is_paused(study_id) or bool(self._database.rows(query, study_id))

    def _check_known(self, study_id: StudyId) -> None:
        known = sorted({item.study_id for item in self.all_approvals()})
        if study_id not in known:
            raise ApprovalError(
                "no such study at this site",
                expected=f"one of: {', '.join(known)}" if known else "a study approved here",
                arrived=study_id,
                todo="check the id; a study that was never approved gets nothing anyway",
            )


@lru_cache(maxsize=64)  # every request asks for the same signed bytes
def _parse(
    key: VerifyKey, record: object, signature: object, plan: object, is_withdrawn: object
) -> Approval:
    if not (isinstance(record, bytes) and isinstance(signature, bytes) and isinstance(plan, bytes)):
        raise _damaged()
    verify(key, _LABEL, signature, record)
    fields = Fields(parse_canonical(record), "approval")
    digest, approved = parse_digest(fields.text("plan_digest")), plan_from_bytes(plan)
    if plan_digest(approved) != digest:
        raise _damaged()
    return Approval(
        study_id=parse_study_id(fields.text("study_id")),
        plan_digest=digest,
        plan=approved,
        person=fields.text("person"),
        approved_at_s=fields.integer("approved_at_s", minimum=0, maximum=2**40),
        until_s=fields.integer("until_s", minimum=0, maximum=2**40),
        is_withdrawn=bool(is_withdrawn),
    )


def _damaged() -> ApprovalError:
    return ApprovalError(
        "a stored approval is damaged",
        expected="a signed record and the plan that it names",
        arrived="something else",
        todo="approve the plan again",
    )
