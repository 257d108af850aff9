"""Studies: a signed plan is stored once and never changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from common.crypto.keys import SigningKey
from common.errors import SignatureError, StudyStateError
from common.ids import StudyId
from common.protocol.round_states import StudyState
from common.study.plan_file import plan_digest
from server.storage.tables import studies
from tests.lib.memory_channel import Consortium, make_consortium
from tests.lib.plans import make_plan


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def test_a_plan_comes_back_as_it_was_signed(consortium: Consortium) -> None:
    found = consortium.books.register.find(StudyId("small-study"))
    assert found.plan == make_plan()
    assert found.plan_digest == plan_digest(make_plan())
    consortium.books.register.verify(found.study_id, consortium.keys.signing.verify_key)


def test_the_same_plan_again_changes_nothing(consortium: Consortium) -> None:
    register = consortium.books.register
    before = register.find(consortium.study_id)
    assert register.register(make_plan(), consortium.keys.signing) == before
    assert before.state is StudyState.RUNNING


def test_another_plan_under_the_same_id_is_refused(consortium: Consortium) -> None:
    register = consortium.books.register
    with pytest.raises(StudyStateError) as caught:
        register.register(make_plan(privacy__epsilon=2.9), consortium.keys.signing)
    assert "new study id" in caught.value.todo
    assert register.find(consortium.study_id).plan.privacy.epsilon == 3.0


def test_a_plan_signed_by_another_key_does_not_verify(consortium: Consortium) -> None:
    with pytest.raises(SignatureError):
        consortium.books.register.verify(consortium.study_id, SigningKey.generate().verify_key)


def test_a_plan_changed_in_the_store_does_not_verify(consortium: Consortium) -> None:
    from common.study.plan_file import plan_bytes

    with consortium.database.transaction() as connection:
        connection.execute(update(studies).values(plan=plan_bytes(make_plan(privacy__epsilon=2.9))))
    with pytest.raises(SignatureError):
        consortium.books.register.verify(consortium.study_id, consortium.keys.signing.verify_key)


def test_an_unknown_study_is_named(consortium: Consortium) -> None:
    with pytest.raises(StudyStateError) as caught:
        consortium.books.register.find(StudyId("unheard-of"))
    assert caught.value.arrived == "unheard-of"


def test_a_study_follows_its_table_of_states(consortium: Consortium) -> None:
    register, study_id = consortium.books.register, consortium.study_id
    register.change_state(study_id, StudyState.STOPPED, reason="stopped by a person")
    assert register.find(study_id).reason == "stopped by a person"
    with pytest.raises(StudyStateError):
        register.change_state(study_id, StudyState.FINISHED)
    register.start_run(study_id, "77", restarts=2)
    found = register.find(study_id)
    assert (found.state, found.flower_run_id, found.restarts) == (StudyState.RUNNING, "77", 2)
    assert found.reason == ""
    register.change_state(study_id, StudyState.FINISHED)
    for after in StudyState:
        with pytest.raises(StudyStateError):
            register.change_state(study_id, after)
    with pytest.raises(StudyStateError):
        register.start_run(study_id, "78", restarts=0)
    assert register.find(study_id).flower_run_id == "77"
