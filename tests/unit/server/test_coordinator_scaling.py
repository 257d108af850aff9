"""A study that scales: one round before the first, and a scaling that no later round changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.errors import RegistryError, RoundFailed
from common.ids import parse_digest
from common.privacy.calibration import plan_mechanisms
from common.protocol.arrays import Parameters, decode_parameters, encode_parameters
from common.protocol.messages import ReleasedTask
from common.protocol.round_states import StudyState
from common.study.scaling import MOMENTS, Scaling, model_shapes, split_model
from server.coordinator import ATTEMPTS_PER_ROUND_MAX
from server.model_card import render_card
from server.registry.first_model import first_model
from server.round_book import Outcome
from server.study_report import report_study
from tests.lib.memory_channel import (
    GARBAGE,
    Consortium,
    Lie,
    MemoryChannel,
    make_consortium,
    refusal_lie,
)
from tests.lib.plans import make_plan

PLAN = make_plan(scaling={"kind": "dp_mean_variance", "epsilon_fraction": 0.5})
ROUNDS = PLAN.training.rounds


def _model(consortium: Consortium, version: str) -> tuple[Parameters, Scaling]:
    plan = consortium.study.plan
    content = consortium.books.rounds.read_parameters(parse_digest(version))
    arrays = decode_parameters(content, expected=model_shapes(plan), bytes_max=1 << 20)
    trained, scaling = split_model(arrays)
    assert scaling is not None
    return trained, scaling


def _scalings(consortium: Consortium) -> list[Scaling]:
    rounds = consortium.books.rounds.rounds(consortium.study_id)
    return [_model(consortium, item.new_version)[1] for item in rounds]


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path, PLAN)


def test_every_version_carries_the_one_scaling_of_round_0(consortium: Consortium) -> None:
    consortium.run()
    book = consortium.books
    assert book.register.find(consortium.study_id).state is StudyState.FINISHED
    rounds = book.rounds.rounds(consortium.study_id)
    assert [item.round_number for item in rounds] == list(range(ROUNDS + 2))
    first, *later = _scalings(consortium)
    # All sites have half of their patients at 0.2 and half at 0.4, without noise.
    np.testing.assert_allclose(first.mean, 0.3, rtol=1e-6)
    for scaling in later:
        np.testing.assert_array_equal(scaling.mean, first.mean)
        np.testing.assert_array_equal(scaling.deviation, first.deviation)
    versions = book.registry.all_versions(consortium.study_id)
    assert [item.round_number for item in versions] == list(range(1, ROUNDS + 1))
    assert versions[-1].lineage["rounds"][0]["round"] == 0
    assert report_study(book, consortium.study_id).rounds_complete == ROUNDS


def test_a_study_resumed_after_each_round_ends_with_the_same_model(tmp_path: Path) -> None:
    whole, resumed = (make_consortium(tmp_path / name, PLAN) for name in ("1", "2"))
    whole.run()
    book, runs = resumed.books.register, 0
    while book.find(resumed.study_id).state is not StudyState.FINISHED:
        asked, runs = 0, runs + 1

        def stop_after_one_round() -> bool:
            nonlocal asked
            asked += 1
            return asked > 2

        resumed.run(should_stop=stop_after_one_round)
    assert runs > ROUNDS
    assert resumed.final_version == whole.final_version


def test_a_site_that_misses_the_scaling_round_trains_in_the_next(consortium: Consortium) -> None:
    consortium.site("north").lies[0] = Lie(envelope=lambda _: None)
    consortium.run()
    found = consortium.outcomes("north")
    assert found[0] == (0, "missing", "no answer before the deadline")
    assert {outcome for _, outcome, _ in found[1:]} == {"accepted"}


def test_below_the_quorum_the_scaling_round_is_asked_again_and_then_the_study_stops(
    consortium: Consortium,
) -> None:
    for name in ("east", "north", "south"):
        consortium.site(name).lies[0] = Lie(refusal_lie("R13"))
    channel = MemoryChannel(consortium.sites)
    with pytest.raises(RoundFailed, match="round 0"):
        consortium.run(channel)
    assert len(channel.asked) == ATTEMPTS_PER_ROUND_MAX * len(consortium.sites)
    for name in ("east", "north"):
        del consortium.site(name).lies[0]
    consortium.run()
    assert consortium.books.register.find(consortium.study_id).state is StudyState.FINISHED


def _sums(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[ReleasedTask], ReleasedTask]:
    def lie(reply: ReleasedTask) -> ReleasedTask:
        shape = {MOMENTS: (3, 2)}
        sums = decode_parameters(reply.update, expected=shape, bytes_max=1 << 20)[MOMENTS]
        return dataclasses.replace(
            reply, update=encode_parameters({MOMENTS: change(sums).astype(np.float32)})
        )

    return lie


LIES = {
    "NaN": (Lie(_sums(lambda sums: sums * np.nan)), "U9"),
    "huge sums": (Lie(_sums(lambda sums: sums * 1e6)), "U10"),
    "another shape": (Lie(_sums(lambda sums: sums[:, :1])), "U8"),
    "sums that no patients can have": (
        Lie(_sums(lambda sums: sums * np.array([[5.0], [1.0], [0.0]]))),
        "U15",
    ),
    "less noise": (
        Lie(
            lambda reply: dataclasses.replace(
                reply,
                mechanisms=(dataclasses.replace(reply.mechanisms[0], noise_multiplier=0.1),),
            )
        ),
        "U11",
    ),
    "no message": (Lie(envelope=lambda _: GARBAGE), "U1"),
}


@pytest.mark.parametrize("name", LIES)
def test_each_lie_about_sums_is_refused_and_the_others_make_the_scaling(
    tmp_path: Path, name: str
) -> None:
    consortium = make_consortium(tmp_path, PLAN)
    lie, number = LIES[name]
    # The largest site, so that its bounds are the widest.
    consortium.site("west").lies[0] = lie
    consortium.run()
    assert consortium.outcomes("west")[0] == (0, Outcome.REFUSED_BY_COORDINATOR.value, number)
    np.testing.assert_allclose(_scalings(consortium)[0].mean, 0.3, rtol=1e-6)


def test_a_replayed_release_of_sums_counts_once(consortium: Consortium) -> None:
    consortium.run(MemoryChannel(consortium.sites, copies=3))
    once = [item for item in consortium.outcomes("east") if item[:2] == (0, "accepted")]
    assert len(once) == 1
    np.testing.assert_allclose(_scalings(consortium)[0].mean, 0.3, rtol=1e-6)


def test_the_hostile_site_moves_the_mean_by_no_more_than_its_patients_could(
    tmp_path: Path,
) -> None:
    consortium = make_consortium(tmp_path, PLAN)
    size = consortium.site("east").cohort_size
    noise = plan_mechanisms(PLAN).scaling
    assert noise is not None
    consortium.site("east").lies[0] = Lie(
        _sums(lambda sums: np.array([[1.0], [0.5], [1.0]]).repeat(2, axis=1) * size)
    )
    consortium.run()
    others = sum(0.75 * site.cohort_size for site in consortium.sites.values()) - 0.75 * size
    most = (0.3 * others + size) / (others + size)
    assert _scalings(consortium)[0].mean.max() <= most * (1 + 1e-6)


def _warm(consortium: Consortium, **changes: object) -> bytes:
    scaling = {"kind": "of_warm_start", **changes}
    plan = make_plan(
        study__id="next",
        scaling=scaling,
        training__warm_start={"version": consortium.final_version},
    )
    return first_model(plan, registry=consortium.books.registry, rounds=consortium.books.rounds)


def test_a_warm_start_brings_the_scaling_of_its_version_along(tmp_path: Path) -> None:
    first = make_consortium(tmp_path, PLAN)
    first.run()
    stored = first.books.rounds.read_parameters(parse_digest(first.final_version))
    assert _warm(first) == stored
    with pytest.raises(RegistryError, match=r"clipped at deviations_max = 4\.0"):
        _warm(first, deviations_max=5.0)
    with pytest.raises(RegistryError, match="deviation_min"):
        _warm(first, deviation_min=0.9)


def test_a_warm_start_with_and_one_without_scaling_do_not_mix(tmp_path: Path) -> None:
    scaled, plain = make_consortium(tmp_path / "1", PLAN), make_consortium(tmp_path / "2")
    scaled.run()
    plain.run()
    without = make_plan(study__id="next", training__warm_start={"version": scaled.final_version})
    with pytest.raises(RegistryError, match="cannot start from"):
        first_model(without, registry=scaled.books.registry, rounds=scaled.books.rounds)
    with pytest.raises(RegistryError, match="cannot start from"):
        _warm(plain)


def test_a_study_that_takes_its_scaling_over_releases_nothing_for_it() -> None:
    plan = make_plan(scaling={"kind": "of_warm_start"}, training__warm_start={"version": "ab" * 32})
    planned = plan_mechanisms(plan)
    assert planned.scaling is None
    assert planned.train_per_round == plan_mechanisms(make_plan()).train_per_round


def test_the_model_card_shows_means_and_deviations_in_the_plans_units(
    consortium: Consortium,
) -> None:
    consortium.run()
    version = consortium.books.registry.all_versions()[-1]
    _, scaling = _model(consortium, consortium.final_version)
    study = consortium.books.register.find(consortium.study_id)
    report = report_study(consortium.books, consortium.study_id)
    card = render_card(version, study, report, scaling=scaling)
    # 0.3 between 20 and 90 years, and between 90 and 200 mmHg.
    age, pressure = float(scaling.deviation[0]) * 35, float(scaling.deviation[1]) * 55
    for form in (card.markdown, card.html.replace("</td>\n<td>", " | ")):
        assert f"age | 65.5 | {age:.4g} | a" in form
        assert f"systolic_bp | 161.5 | {pressure:.4g} | mm[Hg]" in form
    assert "| scaling | east, north, south, west | none |" in card.markdown
    assert "deviation" not in render_card(version, study, report).markdown
