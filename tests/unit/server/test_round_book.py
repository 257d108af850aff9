"""Rounds and answers: a file without its row is harmless, a changed file is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.canonical import digest_bytes
from common.errors import StoreError, StudyStateError
from common.ids import Digest, StudyId
from common.protocol.arrays import parameters_digest
from common.protocol.round_states import RoundState
from server.round_book import Outcome, summarise
from server.study_report import evaluation_of
from tests.lib.memory_channel import Consortium, make_consortium
from tests.lib.messages import BASE_VERSION, PARAMETERS, release

STUDY = StudyId("small-study")


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def test_a_complete_round_is_a_checkpoint(consortium: Consortium) -> None:
    book = consortium.books.rounds
    book.open_round(STUDY, 1, BASE_VERSION)
    assert book.last_complete(STUDY) is None
    version = book.complete_round(STUDY, 1, parameters=PARAMETERS, optimizer_state=b"state")
    last = book.last_complete(STUDY)
    assert last is not None
    assert (last.round_number, last.new_version) == (1, version)
    assert book.read_parameters(version) == PARAMETERS
    assert book.read_optimizer_state(Digest(last.optimizer_state)) == b"state"


def test_the_files_are_durable_before_the_row_says_so(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = consortium.books.rounds
    book.open_round(STUDY, 1, BASE_VERSION)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(book, "_close", crash)
    with pytest.raises(KeyboardInterrupt):
        book.complete_round(STUDY, 1, parameters=PARAMETERS, optimizer_state=b"state")
    names = {path.name for path in consortium.paths.models.iterdir()}
    assert names == {
        f"{BASE_VERSION}.safetensors",
        f"{digest_bytes('optimizer-state', b'state')}.optimizer",
    }
    # Files without their row: the round is still open, and completing it again is the same.
    assert book.last_complete(STUDY) is None
    monkeypatch.undo()
    book.complete_round(STUDY, 1, parameters=PARAMETERS, optimizer_state=b"state")
    assert {path.name for path in consortium.paths.models.iterdir()} == names


def test_a_partial_file_of_a_crash_is_harmless(consortium: Consortium) -> None:
    book = consortium.books.rounds
    (consortium.paths.models / f"{BASE_VERSION}.safetensors.partial").write_bytes(b"half")
    assert book.store_parameters(PARAMETERS) == BASE_VERSION
    assert book.read_parameters(BASE_VERSION) == PARAMETERS


@pytest.mark.parametrize("content", [None, b"", PARAMETERS[:-1], PARAMETERS + b"\0"])
def test_a_changed_or_lost_model_file_is_refused(
    content: bytes | None, consortium: Consortium
) -> None:
    book = consortium.books.rounds
    path = consortium.paths.models / f"{book.store_parameters(PARAMETERS)}.safetensors"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError):
        book.read_parameters(BASE_VERSION)


def test_a_changed_optimiser_state_is_refused(consortium: Consortium) -> None:
    book = consortium.books.rounds
    book.open_round(STUDY, 1, BASE_VERSION)
    book.complete_round(STUDY, 1, parameters=PARAMETERS, optimizer_state=b"state")
    last = book.last_complete(STUDY)
    assert last is not None
    (consortium.paths.models / f"{last.optimizer_state}.optimizer").write_bytes(b"other")
    with pytest.raises(StoreError):
        book.read_optimizer_state(Digest(last.optimizer_state))


def test_a_study_with_a_changed_checkpoint_does_not_go_on(consortium: Consortium) -> None:
    consortium.run(should_stop=_after_rounds(consortium, 2))
    version = consortium.final_version
    (consortium.paths.models / f"{version}.safetensors").write_bytes(PARAMETERS)
    with pytest.raises(StoreError):
        consortium.run()


def _after_rounds(consortium: Consortium, count: int):  # type: ignore[no-untyped-def]
    def should_stop() -> bool:
        last = consortium.books.rounds.last_complete(consortium.study_id)
        return last is not None and last.round_number >= count

    return should_stop


def test_a_model_is_named_by_its_bytes(consortium: Consortium) -> None:
    assert consortium.books.rounds.store_parameters(PARAMETERS) == parameters_digest(PARAMETERS)


def test_a_round_follows_its_table_of_states(consortium: Consortium) -> None:
    book = consortium.books.rounds
    with pytest.raises(StoreError):
        book.fail_round(STUDY, 1, reason="never opened")
    book.open_round(STUDY, 1, BASE_VERSION)
    book.fail_round(STUDY, 1, reason="no quorum")
    assert [(item.state, item.reason) for item in book.rounds(STUDY)] == [
        (RoundState.FAILED, "no quorum")
    ]
    with pytest.raises(StudyStateError):
        book.complete_round(STUDY, 1, parameters=PARAMETERS, optimizer_state=b"")
    book.open_round(STUDY, 1, BASE_VERSION)
    book.complete_round(STUDY, 1, parameters=PARAMETERS, optimizer_state=b"")
    for change in (
        lambda: book.open_round(STUDY, 1, BASE_VERSION),
        lambda: book.fail_round(STUDY, 1, reason="late"),
        lambda: book.complete_round(STUDY, 1, parameters=PARAMETERS, optimizer_state=b""),
    ):
        with pytest.raises(StudyStateError):
            change()


def test_answers_keep_what_lineage_and_reports_need(consortium: Consortium) -> None:
    book, reply = consortium.books.rounds, release()
    book.record_accepted(STUDY, consortium.site("north").site_id, reply)
    book.record_refusal(
        STUDY, 1, consortium.site("south").site_id, Outcome.REFUSED_BY_COORDINATOR, "U9"
    )
    accepted, refused = book.answers(STUDY)
    assert accepted.release_id == reply.release_id
    assert accepted.detail["declared_cohort_size"] == 303
    assert accepted.detail["statement"]["epsilon_spent"] == "0.75"
    assert evaluation_of(accepted) == reply.evaluation
    assert evaluation_of(refused) is None
    assert (refused.outcome, refused.number) == (Outcome.REFUSED_BY_COORDINATOR, "U9")
    assert summarise(book.answers(STUDY), 1) == {
        "accepted": 1,
        "refused-by-site": 0,
        "refused-by-coordinator": 1,
        "missing": 0,
    }


def test_no_update_of_a_site_is_kept(consortium: Consortium) -> None:
    marked = b"\x47\x11" * 8
    reply = replace(release(), update=marked)
    consortium.books.rounds.record_accepted(STUDY, consortium.site("north").site_id, reply)
    consortium.database.engine.dispose()
    for path in consortium.paths.home.rglob("*"):
        if path.is_file():
            assert marked not in path.read_bytes()


def test_studies_do_not_see_each_others_rounds(consortium: Consortium) -> None:
    consortium.books.rounds.open_round(STUDY, 1, BASE_VERSION)
    assert consortium.books.rounds.rounds(StudyId("other-study")) == ()
    assert consortium.books.rounds.answers(StudyId("other-study")) == ()
