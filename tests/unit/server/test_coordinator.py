"""The loop of rounds over real envelopes: no bad reply ends a round, no crash changes a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import RoundFailed, StoreError, UpdateRefused
from common.ids import SiteId, parse_digest
from common.protocol.arrays import Parameters, decode_parameters
from common.protocol.round_states import RoundState, StudyState
from common.study.columns import initial_parameters, parameter_shapes
from server.coordinator import ATTEMPTS_PER_ROUND_MAX, describe_failure
from server.round_book import Outcome
from server.run_lock import hold_run_lock
from tests.lib.memory_channel import (
    GARBAGE,
    OTHER_REQUEST,
    Consortium,
    Lie,
    MemoryChannel,
    array_lie,
    make_consortium,
    refusal_lie,
)
from tests.lib.messages import Party
from tests.lib.plans import make_plan

PLAN = make_plan()
ROUNDS = PLAN.training.rounds


def _with(name: str, value: float) -> Callable[[Parameters], Parameters]:
    def change(zeros: Parameters) -> Parameters:
        zeros[name].reshape(-1)[0] = value
        return zeros

    return change


def _other_shape(zeros: Parameters) -> Parameters:
    return {**zeros, "linear.bias": np.zeros(2, dtype=np.float32)}


def _statements(consortium: Consortium) -> dict[str, Any]:
    [final] = [
        item for item in consortium.books.registry.all_versions() if item.round_number == ROUNDS
    ]
    return final.lineage


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def test_an_honest_study_finishes_with_every_round_registered(consortium: Consortium) -> None:
    consortium.run()
    book = consortium.books
    assert book.register.find(consortium.study_id).state is StudyState.FINISHED
    rounds = book.rounds.rounds(consortium.study_id)
    assert [item.round_number for item in rounds] == list(range(1, ROUNDS + 2))
    assert {item.state for item in rounds} == {RoundState.COMPLETE}
    assert [item.round_number for item in book.registry.all_versions()] == list(
        range(1, ROUNDS + 1)
    )
    assert len(_statements(consortium)["rounds"]) == ROUNDS + 1
    assert set(_statements(consortium)["statements"]) == set(consortium.sites)


def test_each_round_adds_the_mean_weighted_by_declared_patients(consortium: Consortium) -> None:
    consortium.run()
    plan = consortium.study.plan
    shapes = parameter_shapes(plan)
    expected = {
        name: array.astype(np.longdouble) for name, array in initial_parameters(plan).items()
    }
    total = sum(site.cohort_size for site in consortium.sites.values())
    for stored in consortium.books.rounds.rounds(consortium.study_id)[:ROUNDS]:
        sums = {name: np.zeros(shape, dtype=np.longdouble) for name, shape in shapes.items()}
        for site in consortium.sites.values():
            request = _request_of(consortium, stored.round_number, stored.base_version)
            update = decode_parameters(
                site.reply(request).update, expected=shapes, bytes_max=1 << 20
            )
            for name in shapes:
                sums[name] += update[name].astype(np.longdouble) * site.cohort_size / total
        content = consortium.books.rounds.read_parameters(parse_digest(stored.new_version))
        found = decode_parameters(content, expected=shapes, bytes_max=1 << 20)
        for name in shapes:
            expected[name] = (expected[name] + sums[name]).astype(np.float32)
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-7)
            expected[name] = found[name].astype(np.longdouble)


def _request_of(consortium: Consortium, number: int, base: str) -> Any:
    from common.protocol.messages import TaskKind, TaskRequest

    return TaskRequest(
        plan_digest=consortium.study.plan_digest,
        round_number=number,
        kind=TaskKind.TRAIN,
        evaluate=False,
        base_version=parse_digest(base),
        parameters=b"",
    )


def test_the_order_in_which_sites_answer_changes_no_model(tmp_path: Path) -> None:
    one, other = make_consortium(tmp_path / "1"), make_consortium(tmp_path / "2")
    one.run()
    other.run(MemoryChannel(other.sites, is_reversed=True))
    assert one.final_version == other.final_version


# What a site does in round 2, and how the coordinator must record it.
_REFUSED = Outcome.REFUSED_BY_COORDINATOR.value
LIES: dict[str, tuple[Callable[[Consortium], Lie], str, str]] = {
    "NaN": (
        lambda _: Lie(array_lie(_with("linear.weight", np.nan), PLAN)),
        _REFUSED,
        "U9",
    ),
    "infinity": (
        lambda _: Lie(array_lie(_with("linear.bias", -np.inf), PLAN)),
        _REFUSED,
        "U9",
    ),
    "a wrong shape": (lambda _: Lie(array_lie(_other_shape, PLAN)), _REFUSED, "U8"),
    "a huge norm": (
        lambda _: Lie(array_lie(_with("linear.weight", 1e30), PLAN)),
        _REFUSED,
        "U10",
    ),
    "a replay of round 1": (
        lambda of: Lie(envelope=lambda _: of.site("north").sent[0]),
        _REFUSED,
        "U3",
    ),
    "another request's id": (
        lambda _: Lie(header=lambda head: replace(head, request_id=OTHER_REQUEST)),
        _REFUSED,
        "U3",
    ),
    "another site's name": (
        lambda _: Lie(header=lambda head: replace(head, site_id=SiteId("south"))),
        _REFUSED,
        "U3",
    ),
    "a stale round in the header": (
        lambda _: Lie(header=lambda head: replace(head, round_number=1)),
        _REFUSED,
        "U3",
    ),
    "a stale round in the reply": (
        lambda _: Lie(lambda reply: replace(reply, round_number=1)),
        _REFUSED,
        "U5",
    ),
    "another site's signature": (
        lambda of: Lie(signing=of.site("south").party.signing),
        _REFUSED,
        "U1",
    ),
    "another site's envelope": (
        lambda of: Lie(envelope=lambda _: of.site("east").sent[-1]),
        _REFUSED,
        "U1",
    ),
    "an outsider's signature": (lambda _: Lie(signing=Party.fresh().signing), _REFUSED, "U1"),
    "an expired envelope": (
        lambda _: Lie(header=lambda head: replace(head, issued_at_s=1, expires_at_s=2)),
        _REFUSED,
        "U1",
    ),
    "garbage": (lambda _: Lie(envelope=lambda _: GARBAGE), _REFUSED, "U1"),
    "no bytes": (lambda _: Lie(envelope=lambda _: b""), _REFUSED, "U1"),
    "a cut envelope": (lambda _: Lie(envelope=lambda sent: sent[:-1]), _REFUSED, "U1"),
    "one changed bit": (
        lambda _: Lie(envelope=lambda sent: sent[:900] + bytes([sent[900] ^ 1]) + sent[901:]),
        _REFUSED,
        "U1",
    ),
    "a release accepted before": (
        lambda of: Lie(
            lambda reply: replace(
                reply,
                release_id=next(
                    item.release_id
                    for item in of.books.rounds.answers(of.study_id)
                    if item.site_id == "north"
                ),
            )
        ),
        _REFUSED,
        "U12",
    ),
    "another number of patients": (
        lambda _: Lie(lambda reply: replace(reply, declared_cohort_size=10_000)),
        _REFUSED,
        "U14",
    ),
    "a refusal by the site": (
        lambda _: Lie(refusal_lie("R6")),
        Outcome.REFUSED_BY_SITE.value,
        "R6",
    ),
    "silence": (
        lambda _: Lie(envelope=lambda _: None),
        Outcome.MISSING.value,
        "no answer before the deadline",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_bad_reply_ends_no_round_and_is_recorded_with_its_number(
    name: str, consortium: Consortium
) -> None:
    make_lie, outcome, number = LIES[name]
    consortium.site("north").lies[2] = make_lie(consortium)
    consortium.run()
    assert consortium.books.register.find(consortium.study_id).state is StudyState.FINISHED
    assert (2, outcome, number) in consortium.outcomes("north")
    # The liar is heard again in the next round, and the others never noticed.
    assert {item[:2] for item in consortium.outcomes("north") if item[0] != 2} == {
        (round_number, "accepted") for round_number in (1, 3, 4, 5)
    }
    for other in ("east", "south", "west"):
        assert [item[1] for item in consortium.outcomes(other)] == ["accepted"] * (ROUNDS + 1)


@pytest.mark.parametrize("name", sorted(set(LIES) - {"silence", "a refusal by the site"}))
def test_a_refused_reply_has_the_same_effect_on_the_model_as_silence(
    name: str, tmp_path: Path
) -> None:
    lying, silent = make_consortium(tmp_path / "1"), make_consortium(tmp_path / "2")
    lying.site("north").lies[2] = LIES[name][0](lying)
    silent.site("north").lies[2] = LIES["silence"][0](silent)
    lying.run()
    silent.run()
    assert lying.final_version == silent.final_version


def test_all_sites_but_the_quorum_may_lie_in_every_round(consortium: Consortium) -> None:
    for number in range(1, ROUNDS + 2):
        consortium.site("north").lies[number] = Lie(envelope=lambda _: GARBAGE)
        consortium.site("south").lies[number] = Lie(envelope=lambda _: None)
    consortium.run()
    assert consortium.books.register.find(consortium.study_id).state is StudyState.FINISHED
    assert set(_statements(consortium)["statements"]) == {"east", "west"}
    first = _statements(consortium)["rounds"][0]
    assert first["absent"] == {
        "north": "refused-by-coordinator U1",
        "south": "missing no answer before the deadline",
    }


def test_an_answer_that_is_delivered_twice_counts_once(tmp_path: Path) -> None:
    once, twice = make_consortium(tmp_path / "1"), make_consortium(tmp_path / "2")
    once.run()
    twice.run(MemoryChannel(twice.sites, copies=2))
    assert once.final_version == twice.final_version
    assert twice.outcomes("north")[:2] == [
        (1, "accepted", ""),
        (1, "refused-by-coordinator", "U3"),
    ]


def test_a_site_that_is_suspended_while_it_trains_is_refused(consortium: Consortium) -> None:
    def suspend(site_id: SiteId) -> None:
        if site_id == "south":
            consortium.books.sites.suspend(site_id)

    channel = MemoryChannel(consortium.sites, before=suspend)
    consortium.run(channel)
    assert consortium.outcomes("south") == [(1, "refused-by-coordinator", "U2")]
    assert channel.asked.count(SiteId("south")) == 1


def test_a_round_without_its_quorum_is_asked_again(consortium: Consortium) -> None:
    misses = dict.fromkeys(("east", "north", "south"), 0)

    def silent_once(name: str) -> Lie:
        def envelope(sent: bytes) -> bytes | None:
            misses[name] += 1
            return None if misses[name] == 1 else sent

        return Lie(envelope=envelope)

    for name in misses:
        consortium.site(name).lies[2] = silent_once(name)
    consortium.run()
    assert consortium.books.register.find(consortium.study_id).state is StudyState.FINISHED
    # `west` answered the failed attempt too: the same release is accepted again, not a replay.
    assert [item for item in consortium.outcomes("west") if item[0] == 2] == [
        (2, "accepted", "")
    ] * 2


def test_a_round_that_keeps_missing_its_quorum_fails_the_study_and_resume_goes_on(
    tmp_path: Path,
) -> None:
    consortium, honest = make_consortium(tmp_path / "1"), make_consortium(tmp_path / "2")
    for name in ("east", "north", "south"):
        consortium.site(name).lies[2] = Lie(refusal_lie("R17"))
    channel = MemoryChannel(consortium.sites)
    with pytest.raises(RoundFailed) as caught:
        consortium.run(channel)
    assert "1 of 2 sites" in caught.value.arrived
    study = consortium.books.register.find(consortium.study_id)
    assert study.state is StudyState.FAILED
    assert study.reason.startswith("round 2: 1 of 2 sites")
    assert channel.asked.count(SiteId("west")) == 1 + ATTEMPTS_PER_ROUND_MAX
    rounds = consortium.books.rounds.rounds(consortium.study_id)
    assert [item.state for item in rounds] == [RoundState.COMPLETE, RoundState.FAILED]
    for site in consortium.sites.values():
        site.lies.clear()
    consortium.run()
    honest.run()
    assert consortium.books.register.find(consortium.study_id).state is StudyState.FINISHED
    assert consortium.final_version == honest.final_version


def test_a_site_that_misses_the_final_evaluation_costs_nothing(consortium: Consortium) -> None:
    for site in consortium.sites.values():
        site.lies[ROUNDS + 1] = Lie(envelope=lambda _: None)
    consortium.run()
    assert consortium.books.register.find(consortium.study_id).state is StudyState.FINISHED


@pytest.mark.parametrize("polls", [1, 2, 3, 5, 8, 9, 10])
def test_a_stopped_study_goes_on_to_the_same_model(polls: int, tmp_path: Path) -> None:
    stopped, honest = make_consortium(tmp_path / "1"), make_consortium(tmp_path / "2")
    honest.run()
    seen = 0

    def should_stop() -> bool:
        nonlocal seen
        seen += 1
        return seen >= polls

    stopped.run(should_stop=should_stop)
    assert stopped.books.register.find(stopped.study_id).state is StudyState.RUNNING
    stopped.run()
    assert stopped.final_version == honest.final_version
    assert stopped.books.register.find(stopped.study_id).state is StudyState.FINISHED


# Every call that writes, as (book, method); a crash is tried before and after each one.
STEPS = [
    ("rounds", "store_parameters"),
    ("rounds", "open_round"),
    ("rounds", "record_accepted"),
    ("rounds", "complete_round"),
    ("rounds", "read_parameters"),
    ("rounds", "_close"),
    ("registry", "register"),
    ("registry", "refresh_lineage"),
    ("register", "change_state"),
]


class _CrashError(Exception):
    """Stands for kill -9."""


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("book", "method"), STEPS, ids=str)
def test_a_crash_at_any_step_of_any_round_changes_no_model_and_loses_no_version(
    book: str, method: str, is_after: bool, tmp_path: Path
) -> None:
    # FedAdam, because it has a state that a resumed run must find again.
    plan = make_plan(
        training__strategy={"kind": "fedadam", "server_learning_rate": 0.1}, training__rounds=2
    )
    honest = make_consortium(tmp_path / "honest", plan)
    honest.run()
    for crash_at in range(1, 20):
        crashed = make_consortium(tmp_path / str(crash_at), plan)
        if not _crashes(crashed, book, method, crash_at, is_after=is_after):
            break
        if crashed.books.register.find(crashed.study_id).state is not StudyState.FINISHED:
            crashed.run()
        assert _summary(crashed) == _summary(honest), f"crash at call {crash_at}"
        if method == "record_accepted" and crash_at >= 5:
            break
    else:
        pytest.fail("the study never got through")


def _crashes(
    consortium: Consortium, book: str, method: str, crash_at: int, *, is_after: bool
) -> bool:
    target = getattr(consortium.books, book)
    real = getattr(target, method)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == crash_at and not is_after:
            raise _CrashError
        result = real(*args, **kwargs)
        if calls == crash_at:
            raise _CrashError
        return result

    setattr(target, method, wrapped)
    try:
        consortium.run()
    except _CrashError:
        return True
    finally:
        delattr(target, method)
    return False


def _summary(consortium: Consortium) -> object:
    study = consortium.books.register.find(consortium.study_id)
    return (
        study.state,
        [
            (item.round_number, item.state, item.base_version, item.new_version)
            for item in consortium.books.rounds.rounds(consortium.study_id)
        ],
        [
            (item.round_number, item.version, item.lineage)
            for item in consortium.books.registry.all_versions()
        ],
    )


def test_a_store_that_cannot_be_written_ends_the_run_with_its_own_error(
    consortium: Consortium,
) -> None:
    consortium.paths.models.rename(consortium.paths.home / "elsewhere")
    with pytest.raises(StoreError):
        consortium.run()


def test_a_failure_is_described_without_text_from_another_party() -> None:
    error = UpdateRefused("x", expected="a", arrived="b from a site", todo="c", number="U4")
    assert describe_failure(error) == "UpdateRefused U4"


def test_the_lock_of_a_study_may_be_held_around_a_run(consortium: Consortium) -> None:
    with hold_run_lock(consortium.paths, consortium.study_id):
        consortium.run()
    assert consortium.books.register.find(consortium.study_id).state is StudyState.FINISHED
