"""Model versions with their lineage: complete, never overwritten, found by their beginning."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from common.errors import RegistryError
from common.ids import StudyId, parse_digest
from common.protocol.arrays import parameters_digest
from tests.lib.memory_channel import Consortium, Lie, make_consortium, refusal_lie
from tests.lib.plans import make_plan

ROUNDS = make_plan().training.rounds


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    consortium = make_consortium(tmp_path)
    consortium.site("north").lies[2] = Lie(refusal_lie("R16"))
    consortium.run()
    return consortium


def test_every_round_made_one_version_named_by_its_bytes(consortium: Consortium) -> None:
    versions = consortium.books.registry.all_versions(consortium.study_id)
    assert [item.round_number for item in versions] == list(range(1, ROUNDS + 1))
    for item in versions:
        content = consortium.books.rounds.read_parameters(item.version)
        assert parameters_digest(content) == item.version
        assert item.plan_digest == consortium.study.plan_digest


def test_lineage_names_plan_rounds_releases_reasons_and_ledgers(consortium: Consortium) -> None:
    final = consortium.books.registry.all_versions()[-1]
    answers = consortium.books.rounds.answers(consortium.study_id)
    rounds = final.lineage["rounds"]
    assert [item["round"] for item in rounds] == list(range(1, ROUNDS + 2))
    assert rounds[1]["absent"] == {"north": "refused-by-site R16"}
    assert set(rounds[1]["releases"]) == {"east", "south", "west"}
    accepted = {
        (item.round_number, item.site_id): item.release_id for item in answers if item.release_id
    }
    for item in rounds:
        for site, release_id in item["releases"].items():
            assert accepted[item["round"], site] == release_id
    for before, after in itertools.pairwise(rounds):
        assert after["base_version"] == before["new_version"]
    assert rounds[-1]["base_version"] == rounds[-1]["new_version"] == final.version
    statement = final.lineage["statements"]["north"]
    assert statement["epsilon_spent"] == repr(0.1 * (ROUNDS + 1))
    assert set(statement) == {"delta", "epsilon_remaining", "epsilon_spent", "ledger_head"}


def test_an_early_version_knows_nothing_of_later_rounds(consortium: Consortium) -> None:
    first = consortium.books.registry.all_versions()[0]
    assert [item["round"] for item in first.lineage["rounds"]] == [1]


def test_registering_again_changes_nothing(consortium: Consortium) -> None:
    registry = consortium.books.registry
    before = registry.all_versions()
    assert registry.register(consortium.study, 1) == before[0]
    assert registry.all_versions() == before


def test_refreshing_again_changes_nothing(consortium: Consortium) -> None:
    before = consortium.books.registry.all_versions()
    consortium.books.registry.refresh_lineage(consortium.study)
    assert consortium.books.registry.all_versions() == before


def test_a_version_is_found_by_six_characters(consortium: Consortium) -> None:
    final = consortium.books.registry.all_versions()[-1]
    for length in (6, 12, 64):
        assert consortium.books.registry.find(final.version[:length]) == final


@pytest.mark.parametrize("name", ["", "a", "zzzzzz", "%", "f" * 64])
def test_what_names_no_single_version_is_refused(name: str, consortium: Consortium) -> None:
    with pytest.raises(RegistryError):
        consortium.books.registry.find(name)


def test_five_characters_are_too_few(consortium: Consortium) -> None:
    final = consortium.books.registry.all_versions()[-1]
    with pytest.raises(RegistryError):
        consortium.books.registry.find(final.version[:5])


def test_another_study_has_no_versions_yet(consortium: Consortium) -> None:
    assert consortium.books.registry.all_versions(StudyId("other-study")) == ()


def test_the_final_version_is_the_last_checkpoint(consortium: Consortium) -> None:
    final = consortium.books.registry.all_versions()[-1]
    assert final.version == parse_digest(consortium.final_version)
