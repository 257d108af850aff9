"""An approval: signed, for exactly one plan, until a date, and ended by a withdrawal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.clock import FixedClock
from common.crypto.keys import SigningKey
from common.errors import ApprovalError, SignatureError
from common.ids import parse_study_id
from common.study.plan_file import plan_bytes, plan_digest
from site_client.approvals import Approval, Approvals
from site_client.site_database import SiteDatabase
from tests.lib.plans import make_plan

NOW_S = 1_800_000_000
PLAN = make_plan()
STUDY = parse_study_id(PLAN.study.id)


@dataclass
class Desk:
    """One steward's desk."""

    approvals: Approvals
    database: SiteDatabase
    key: SigningKey

    def approve(self, *, until_s: int = NOW_S + 60, person: str = "Dr A. Steward") -> Approval:
        return self.approvals.approve(PLAN, person=person, until_s=until_s, signing_key=self.key)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    database, key = SiteDatabase(tmp_path / "site.db"), SigningKey.generate()
    yield Desk(Approvals(database, FixedClock(NOW_S), key.verify_key), database, key)
    database.close()


def test_an_approval_is_found_by_the_plans_digest_and_holds_the_plan(desk: Desk) -> None:
    made = desk.approve()
    found = desk.approvals.find(plan_digest(PLAN))
    assert found == made
    assert (found.plan, found.person, found.approved_at_s) == (PLAN, "Dr A. Steward", NOW_S)


def test_another_plan_is_not_approved_with_it(desk: Desk) -> None:
    desk.approve()
    other = make_plan(privacy__epsilon=PLAN.privacy.epsilon + 0.1)
    with pytest.raises(ApprovalError) as caught:
        desk.approvals.find(plan_digest(other))
    assert caught.value.number == "R6"


@pytest.mark.parametrize(("until_s", "person"), [(NOW_S, "A"), (NOW_S - 1, "A"), (NOW_S + 9, "  ")])
def test_a_date_that_has_passed_or_nobodys_name_is_refused(
    desk: Desk, until_s: int, person: str
) -> None:
    with pytest.raises(ApprovalError):
        desk.approve(until_s=until_s, person=person)
    assert desk.approvals.all_approvals() == ()


def test_a_withdrawn_approval_says_so_and_approving_again_renews_it(desk: Desk) -> None:
    desk.approve()
    assert desk.approvals.withdraw(STUDY) == 1
    assert desk.approvals.find(plan_digest(PLAN)).is_withdrawn
    assert not desk.approve().is_withdrawn
    desk.approvals.withdraw(STUDY)
    assert desk.approvals.withdraw(STUDY) == 0  # nothing was left to withdraw


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE approvals SET record = replace(record, 'Steward', 'Nobody.')",
        "UPDATE approvals SET record = CAST(replace(CAST(record AS TEXT), '1800000060', "
        "'1900000060') AS BLOB)",
        "UPDATE approvals SET signature = zeroblob(64)",
    ],
)
def test_an_approval_the_site_did_not_sign_is_never_used(desk: Desk, change: str) -> None:
    desk.approve()
    with desk.database.transaction() as connection:
        connection.execute(change)
    with pytest.raises((SignatureError, ApprovalError)):
        desk.approvals.find(plan_digest(PLAN))


def test_a_stored_plan_that_was_exchanged_is_never_used(desk: Desk) -> None:
    desk.approve()
    other = make_plan(privacy__epsilon=PLAN.privacy.epsilon + 0.1)
    with desk.database.transaction() as connection:
        connection.execute("UPDATE approvals SET plan = ?", (plan_bytes(other),))
    with pytest.raises(ApprovalError):
        desk.approvals.find(plan_digest(PLAN))


def test_a_pause_is_for_one_study_and_can_be_repeated(desk: Desk) -> None:
    desk.approve()
    desk.approvals.pause(STUDY)
    desk.approvals.pause(STUDY)
    assert desk.approvals.is_paused(STUDY)
    assert not desk.approvals.is_paused(parse_study_id("another"))
    desk.approvals.unpause(STUDY)
    desk.approvals.unpause(STUDY)
    assert not desk.approvals.is_paused(STUDY)


def test_withdrawing_or_pausing_a_mistyped_study_is_an_error_that_names_the_known(
    desk: Desk,
) -> None:
    desk.approve()
    for act in (desk.approvals.withdraw, desk.approvals.pause):
        with pytest.raises(ApprovalError, match="no such study") as caught:
            act(parse_study_id("smal-study"))
        assert STUDY in caught.value.expected
