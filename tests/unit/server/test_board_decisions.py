"""A decision needs two deciders on one text; the coordinator verifies it and acts once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.canonical import digest_bytes
from common.crypto.keys import SigningKey
from common.errors import CohortiumError, ConfigError, StoreError
from common.ids import Digest, SiteId, StudyId
from common.limits import CLOCK_SKEW_S_MAX
from common.protocol.monitoring.notice_checks import judge_decision
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Action
from common.protocol.monitoring.roster import MonitoringRoster, Standing
from common.protocol.round_states import StudyState
from server.board_decisions import ActedDecision, BoardDecisions, open_requests
from server.monitor_board import decisions
from server.monitor_board.decision_book import KeptDecision, read_decisions, take_decision
from server.registry.actions import ModelActions
from server.site_directory import SiteDirectory
from tests.lib.board_world import STUDY, World, make_board, make_world
from tests.lib.deciding import decide
from tests.lib.memory_channel import SITE_IDS, Consortium, make_consortium

FIRST, SECOND = (digest_bytes("test", text) for text in (b"first model", b"second model"))
Change = Callable[[bytes], bytes]


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


class Acting:
    """The coordinator's half, with the sites' news written down."""

    def __init__(self, consortium: Consortium) -> None:
        self.told: list[Digest] = []
        self.actions = ModelActions(consortium.database, consortium.clock, consortium.keys.signing)
        self.board = BoardDecisions(
            consortium.database,
            consortium.books,
            self.actions,
            consortium.clock,
            tell_sites=self.told.append,
        )

    def act(self, notice: bytes, rosters: Sequence[MonitoringRoster]) -> ActedDecision:
        found = self.board.act(notice, rosters)
        assert found is not None
        return found


@pytest.fixture
def acting(consortium: Consortium) -> Acting:
    return Acting(consortium)


def test_a_proposal_shows_who_signed_and_whose_signature_does_not_count(world: World) -> None:
    stranger = SigningKey.generate()
    data = decisions.sign(decide(world, signers=("ada",)), name="eve", key=stranger)
    data = decisions.sign(data, name="ben", key=stranger)
    proposal = decisions.read_proposal(data, world.roster)
    assert (proposal.signers, proposal.others) == (("ada",), ("ben", "eve"))


def test_a_key_that_is_no_active_deciders_cannot_sign(world: World) -> None:
    assert decisions.name_of(world.deciders["cleo"], world.roster) == "cleo"
    with pytest.raises(CohortiumError) as caught:
        decisions.name_of(SigningKey.generate(), world.roster)
    assert caught.value.number == "T4"


def test_an_action_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError) as caught:
        decisions.parse_action("celebrate")
    assert "roll-back" in caught.value.expected


def test_a_board_keeps_decisions_as_a_chain_and_takes_each_once(
    world: World, tmp_path: Path
) -> None:
    side = make_board(world, tmp_path)

    def take(data: bytes) -> None:
        with side.database.transaction() as connection:
            take_decision(connection, data, rosters=[world.roster], now_s=world.clock.seconds)

    def held() -> tuple[KeptDecision, ...]:
        with side.database.transaction() as connection:
            return read_decisions(connection, STUDY)

    first = decide(world, Action.WATCH)
    take(first)
    take(first)
    second = decide(world, Action.RETRAIN, held=held())
    fork = decide(world, Action.STOP, held=held())
    take(second)
    for wrong, number in ((fork, "T6"), (decide(world, signers=("ada",), held=held()), "T4")):
        with pytest.raises(CohortiumError) as caught:
            take(wrong)
        assert caught.value.number == number
    assert [(item.decision.number, item.decision.action) for item in held()] == [
        (1, Action.WATCH),
        (2, Action.RETRAIN),
    ]
    assert held()[0].signers == ("ada", "ben")


def test_the_coordinator_suspends_the_site_that_the_board_pauses(
    world: World, consortium: Consortium, acting: Acting
) -> None:
    site = SITE_IDS[0]
    data = decide(world, Action.PAUSE_SITE, site_id=SiteId(site))
    for _ in range(2):
        assert acting.act(data, [world.roster]).outcome == "done"
    sites = SiteDirectory(consortium.database, consortium.clock)
    assert site not in {item.site_id for item in sites.active_sites()}
    assert len(acting.board.log()) == 1


def test_the_coordinator_rolls_back_once_in_the_deciders_names_and_tells_the_sites(
    world: World, acting: Acting
) -> None:
    for version in (FIRST, SECOND):
        acting.actions.promote(version, person="Dr. North", reason="better")
    data = decide(world, Action.ROLL_BACK, model_version=FIRST)
    for _ in range(2):
        assert acting.act(data, [world.roster]).outcome == "done"
    assert acting.actions.aliases()["champion"] == FIRST
    (*_, last) = acting.actions.log()
    assert (last.action, last.person, len(acting.actions.log())) == ("rollback", "ada, ben", 3)
    assert acting.told == [FIRST]


def test_a_rollback_that_a_crash_cut_short_is_not_made_twice(
    world: World, acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (FIRST, SECOND):
        acting.actions.promote(version, person="Dr. North", reason="better")
    data = decide(world, Action.ROLL_BACK, model_version=FIRST)

    def die(*_: object) -> None:
        raise StoreError("the disk is full", expected="space", arrived="none", todo="free some")

    with monkeypatch.context() as patch:
        patch.setattr(acting.board, "_log", die)
        with pytest.raises(StoreError):
            acting.act(data, [world.roster])
    assert acting.actions.aliases()["champion"] == FIRST
    assert acting.act(data, [world.roster]).outcome == "done"
    assert acting.actions.aliases()["champion"] == FIRST
    assert len(acting.actions.log()) == 3


def test_a_rollback_to_a_version_that_is_not_the_previous_one_is_not_possible(
    world: World, acting: Acting
) -> None:
    acting.actions.promote(SECOND, person="Dr. North", reason="better")
    done = acting.act(decide(world, Action.ROLL_BACK, model_version=FIRST), [world.roster])
    assert done.outcome == "not possible"
    assert "previous champion" in done.detail
    assert acting.told == []


def test_the_coordinator_stops_a_running_study_and_says_who_decided(
    world: World, consortium: Consortium, acting: Acting
) -> None:
    assert acting.act(decide(world, Action.STOP), [world.roster]).outcome == "done"
    study = consortium.books.register.find(consortium.study_id)
    assert (study.state, study.reason) == (StudyState.STOPPED, "stopped by the board: ada, ben")


def test_a_request_to_retrain_is_recorded_and_waits_for_a_person(
    world: World, consortium: Consortium, acting: Acting
) -> None:
    for action in (Action.CONTINUE, Action.RETRAIN):
        held = _held(acting)
        assert acting.act(decide(world, action, held=held), [world.roster]).outcome == ("recorded")
    (request,) = open_requests(consortium.database, consortium.study_id)
    assert (request.action, request.number, request.signers) == ("retrain", 2, "ada, ben")


def _held(acting: Acting) -> tuple[KeptDecision, ...]:
    found = []
    for item in acting.board.log():
        notice = read_notice(item.notice)
        found.append(KeptDecision(notice.content, notice.digest, (), item.notice, 0))  # type: ignore[arg-type]
    return tuple(found)


@pytest.mark.parametrize(
    ("signers", "number"), [(("ada",), "T4"), (("ada", "eve"), "T4"), (("ben", "eve"), "T4")]
)
def test_a_decision_without_two_deciders_of_the_pinned_roster_is_refused_and_does_nothing(
    world: World, acting: Acting, signers: tuple[str, ...], number: str
) -> None:
    world.deciders["eve"] = SigningKey.generate()
    done = acting.act(
        decide(world, Action.PAUSE_SITE, site_id=SiteId(SITE_IDS[0]), signers=signers),
        [world.roster],
    )
    assert done.outcome == "refused"
    assert done.detail.startswith(number)


def test_a_decider_who_was_revoked_no_longer_counts(world: World, acting: Acting) -> None:
    roster = replace(
        world.roster,
        deciders=tuple(
            replace(person, status=Standing.REVOKED) if person.name == "ben" else person
            for person in world.roster.deciders
        ),
    )
    assert acting.act(decide(world), [roster]).outcome == "refused"
    assert acting.act(decide(world, signers=("ada", "cleo")), [roster]).outcome == "recorded"


def _without_ben(world: World) -> None:
    world.next_roster(
        deciders=tuple(
            replace(person, status=Standing.REVOKED) if person.name == "ben" else person
            for person in world.roster.deciders
        )
    )


def test_a_decision_whose_decider_is_revoked_since_is_open_and_blocks_none_behind_it(
    world: World, consortium: Consortium, acting: Acting
) -> None:
    old = decide(world, Action.STOP)
    _without_ben(world)
    found = acting.act(old, world.rosters)
    assert found.outcome == "open"
    assert "signed under roster 1, whose decider ben is revoked now" in found.detail
    study = consortium.books.register.find(consortium.study_id)
    assert study.state is not StudyState.STOPPED
    assert open_requests(consortium.database, consortium.study_id) == (found,)
    anew = decide(world, Action.STOP, held=_held(acting), signers=("ada", "cleo"))
    assert acting.act(anew, world.rosters).outcome == "done"
    study = consortium.books.register.find(consortium.study_id)
    assert study.state is StudyState.STOPPED


def test_a_revoked_deciders_key_makes_no_decision_that_is_done_whatever_date_it_signs(
    world: World, acting: Acting
) -> None:
    _without_ben(world)
    roster = world.rosters[0]
    for opened_at_s in (roster.not_before_s, world.clock.seconds):
        made = decide(world, Action.ROLL_BACK, model_version=FIRST, now_s=opened_at_s)
        assert judge_decision(made, world.rosters).objection
    assert acting.act(made, world.rosters).outcome == "open"
    assert acting.told == []


def test_a_decision_opened_after_the_only_roster_that_allows_it_had_ended_is_refused(
    world: World, acting: Acting
) -> None:
    _without_ben(world)
    late = decide(world, now_s=world.rosters[0].not_after_s + CLOCK_SKEW_S_MAX + 1)
    found = acting.act(late, world.rosters)
    assert (found.outcome, found.detail[:2]) == ("refused", "T4")


def test_a_decision_of_two_where_the_newest_roster_asks_for_three_is_open(
    world: World, acting: Acting
) -> None:
    data = decide(world)
    world.next_roster(decisions_required=3)
    found = acting.act(data, world.rosters)
    assert found.outcome == "open"
    assert "roster 2 asks for 3 deciders" in found.detail


@pytest.mark.parametrize(
    "change", [lambda data: data[:-2], lambda data: data.replace(b"AUROC", b"auroc")]
)
def test_changed_bytes_of_a_decision_are_refused(
    world: World, acting: Acting, change: Change
) -> None:
    assert acting.act(change(decide(world)), [world.roster]).outcome == "refused"


def test_a_decision_that_comes_before_its_turn_waits_and_is_not_logged(
    world: World, acting: Acting
) -> None:
    held = (KeptDecision(None, FIRST, (), b"", 0),)  # type: ignore[arg-type]
    assert acting.board.act(decide(world, held=held), [world.roster]) is None
    assert acting.board.log() == ()


def test_a_second_decision_of_one_number_is_refused(world: World, acting: Acting) -> None:
    acting.act(decide(world), [world.roster])
    done = acting.act(decide(world, Action.STOP), [world.roster])
    assert (done.outcome, done.detail[:2]) == ("refused", "T6")


def test_a_decision_of_another_consortium_of_the_same_deciders_is_refused(
    world: World, acting: Acting
) -> None:
    done = acting.act(decide(world, Action.STOP, consortium="Lung network"), [world.roster])
    assert (done.outcome, done.detail[:2]) == ("refused", "T6")


def test_a_rollback_to_another_studys_version_is_not_possible(
    world: World, consortium: Consortium, acting: Acting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (FIRST, SECOND):
        acting.actions.promote(version, person="Dr. North", reason="better")
    of_another = SimpleNamespace(version=FIRST, study_id=StudyId("another"))
    monkeypatch.setattr(consortium.books.registry, "all_versions", lambda: [of_another])
    done = acting.act(decide(world, Action.ROLL_BACK, model_version=FIRST), [world.roster])
    assert (done.outcome, acting.told) == ("not possible", [])
    assert acting.actions.aliases()["champion"] == SECOND


def test_a_study_that_the_coordinator_does_not_have_is_not_possible(
    world: World, acting: Acting
) -> None:
    done = acting.act(decide(world, study_id=StudyId("elsewhere")), [world.roster])
    assert done.outcome == "not possible"
