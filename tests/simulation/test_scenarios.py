"""Scenarios: whatever goes wrong, every condition holds; a planted fault breaks its condition."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import server.coordinator
import server.update_checks
from common.errors import ConfigError
from common.ids import Digest
from common.privacy.ledger import Ledger
from server.coordinator import Coordinator
from server.round_book import RoundBook
from simulations.scenarios.conditions import CONDITIONS
from simulations.scenarios.operations import Operation
from simulations.scenarios.play import ScenarioResult, play
from simulations.scenarios.scenario import Scenario, check_scenario, read_scenario
from simulations.scenarios.scenario_site import ScenarioSite
from site_client.release.gate import Gate
from site_client.release.release_log import ReleaseLog
from tests.lib.plans import EXAMPLES, make_plan

PLAN = make_plan(training__rounds=3, training__local_steps=1, evaluation__releases=1)
SCENARIOS = sorted((EXAMPLES / "scenarios").glob("*.toml"))
SITES = ("hospital-1", "hospital-2", "hospital-3")
ROUND: dict[str, Any] = {"do": "round"}


def scenario_of(*operations: dict[str, Any], **expect: object) -> Scenario:
    return Scenario.model_validate(
        {
            "title": "of a test",
            "patients": [60, 40, 30],
            "operations": operations,
            "expect": expect,
        }
    )


def played(*operations: dict[str, Any], **expect: object) -> ScenarioResult:
    return play(scenario_of(*operations, **expect), PLAN)


def events_of(result: ScenarioResult) -> str:
    return "\n".join(event for step in result.steps for event in step.events)


SITE = st.sampled_from(SITES)
WHO = st.sampled_from((*SITES, "coordinator"))
WHAT = st.sampled_from(("request", "reply"))
PLACE = st.floats(0, 1)


def operation(do: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"do": st.just(do), **fields})


OPERATIONS = st.one_of(
    st.just(ROUND),
    operation("drop", site=SITE, what=WHAT),
    operation("delay", site=SITE),
    operation("duplicate", site=SITE, what=WHAT, times=st.integers(2, 3)),
    operation("replay", site=SITE),
    operation("corrupt", site=SITE, what=WHAT, place=PLACE),
    operation("impersonate", site=SITE, victim=SITE),
    operation("reorder"),
    operation("kill", who=WHO, after=st.integers(0, 4)),
    operation("restart", who=WHO),
    operation("clock", who=WHO, seconds=st.sampled_from((-86400, -200, 200, 3600, 40_000_000))),
    operation(
        "poison",
        site=SITE,
        how=st.sampled_from(("label_flip", "sign_flip", "scaling", "backdoor", "honest")),
        strength=st.sampled_from((1.0, 1e6)),
    ),
    operation("drift", site=SITE, feature=st.just("age"), by=st.floats(-50, 50)),
    operation("unit_change", site=SITE, feature=st.just("age"), factor=st.floats(0.01, 100)),
    operation("prevalence", site=SITE, share=st.floats(0.05, 0.95)),
)


def check_all(operations: list[dict[str, Any]]) -> None:
    result = played(*operations)
    assert [(step.operation, breach) for step, breach in result.breaches] == []


@given(st.lists(OPERATIONS, max_size=6).map(lambda found: [*found, ROUND]))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
def test_no_short_list_of_operations_breaks_a_condition(operations: list[dict[str, Any]]) -> None:
    check_all(operations)


@pytest.mark.slow
@given(st.lists(st.one_of(OPERATIONS, st.just(ROUND)), min_size=8, max_size=30))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_long_list_of_operations_breaks_a_condition(operations: list[dict[str, Any]]) -> None:
    check_all(operations)


@pytest.mark.slow
@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_example_holds(path: Path) -> None:
    assert play(*read_scenario(path)).breaches == ()


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_example_can_be_read(path: Path) -> None:
    scenario, plan = read_scenario(path)
    assert scenario.operations
    assert plan.study.id == "heart-disease"


def test_each_thing_that_goes_wrong_is_in_the_books_with_its_number() -> None:
    result = played(
        ROUND,
        {"do": "drop", "site": "hospital-1"},
        {"do": "duplicate", "site": "hospital-2"},
        {"do": "replay", "site": "hospital-3"},
        ROUND,
        {"do": "corrupt", "site": "hospital-1"},
        {"do": "corrupt", "site": "hospital-2", "what": "request", "place": 0.99},
        {"do": "impersonate", "site": "hospital-3", "victim": "hospital-1"},
        ROUND,
        state="finished",
    )
    assert result.breaches == ()
    assert events_of(result).splitlines()[1:3] == [
        "round 2: hospital-1 missing, hospital-2 accepted, hospital-2 U3, hospital-3 U3, "
        "hospital-3 accepted",
        "round 3: hospital-1 U1, hospital-2 R2, hospital-1 U1, hospital-3 accepted",
    ]


def test_the_same_seed_plays_the_same_and_another_another() -> None:
    scenario = scenario_of(ROUND, {"do": "kill", "who": "hospital-2"}, ROUND)
    first, again, other = (play(scenario, PLAN, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.auroc != other.auroc


def test_kills_and_restarts_change_no_bit_of_the_model() -> None:
    calm = played(ROUND)
    rough = played(
        {"do": "kill", "who": "coordinator", "after": 2},
        ROUND,
        {"do": "restart", "who": "hospital-1"},
        {"do": "duplicate", "site": "hospital-3", "what": "request"},
        {"do": "kill", "who": "coordinator", "after": 99},
        ROUND,
    )
    assert rough.breaches == ()
    assert rough.auroc_by_site == calm.auroc_by_site


def test_an_expectation_that_is_not_met_is_told_at_the_end() -> None:
    result = played(ROUND, auroc_min=1.0, state="failed")
    assert [breach.condition for _, breach in result.breaches] == [
        "expected state",
        "expected AUROC",
    ]


def test_operations_on_what_is_not_there_are_refused() -> None:
    for wrong in (
        {"do": "drop", "site": "hospital-9"},
        {"do": "drop", "site": "coordinator"},
        {"do": "drift", "site": "hospital-1", "feature": "sex", "by": 1.0},
    ):
        with pytest.raises(ConfigError):
            check_scenario(scenario_of(wrong), PLAN, source="x.toml")


# Planted faults: each must break the condition that names it.


def forget_charges(patch: pytest.MonkeyPatch) -> None:
    """The ledger writes no charge for rounds after the first."""
    reserve = Ledger.reserve

    def forgetful(self: Ledger, release_id: Any, **more: Any) -> Any:
        known = reserve(self, release_id, **more)
        if more["round_number"] > 1:
            self._store._database.rows("DELETE FROM ledger WHERE sequence = ?", known.sequence)  # type: ignore[attr-defined]
            self._raw, self._parsed = self._raw[:-1], self._parsed[:-1]
        return known

    patch.setattr(Ledger, "reserve", forgetful)
    patch.setattr(Ledger, "record_released", lambda self, release_id, digest: None)


def take_repeats(patch: pytest.MonkeyPatch) -> None:
    """The coordinator no longer knows what it has asked for."""
    patch.setattr(server.update_checks, "check_outstanding", lambda *args, **more: None)


def record_no_refusal(patch: pytest.MonkeyPatch) -> None:
    """Refusals are not written down."""
    patch.setattr(RoundBook, "record_refusal", lambda *args: None)


def state_half(patch: pytest.MonkeyPatch) -> None:
    """A site's statement tells half of what it spent."""
    statement = Gate._statement

    def halved(self: Gate, request: Any) -> Any:
        true = statement(self, request)
        return replace(true, epsilon_spent=true.epsilon_spent / 2)

    patch.setattr(Gate, "_statement", halved)


def draw_again(patch: pytest.MonkeyPatch) -> None:
    """A site answers a repeated request with a new draw of noise."""
    patch.setattr(Gate, "resend", lambda self, digest: None)
    patch.setattr(ReleaseLog, "payload", lambda self, release_id: None)
    patch.setattr(ReleaseLog, "append_release", lambda self, *args, **more: None)
    patch.setattr(ReleaseLog, "keep_reply", lambda self, *args: None)
    patch.setattr(Ledger, "record_released", lambda self, release_id, digest: None)
    statement, heads = Gate._statement, itertools.count(1)
    patch.setattr(
        Gate,
        "_statement",
        lambda self, request: replace(
            statement(self, request), ledger_head=Digest(f"{next(heads):064x}")
        ),
    )


def count_updates_twice(patch: pytest.MonkeyPatch) -> None:
    """What the first site sent counts half as much again."""
    take = Coordinator._take

    def doubled(self: Coordinator, event: Any, site: Any, *, mean: Any, **more: Any) -> None:
        before = mean.count
        take(self, event, site, mean=mean, **more)
        if before == 0 and mean.count == 1 and more["expectation"].kind.value == "train":
            mean._sum = {name: total * 1.5 for name, total in mean._sum.items()}

    patch.setattr(Coordinator, "_take", doubled)


def ask_without_end(patch: pytest.MonkeyPatch) -> None:
    """A round without its quorum is asked again and again."""
    patch.setattr(server.coordinator, "ATTEMPTS_PER_ROUND_MAX", 9)


def cut_the_ledger(patch: pytest.MonkeyPatch) -> None:
    """A restart loses the newest entries of the ledger."""

    def losing(self: ScenarioSite) -> None:
        self.close()
        with sqlite3.connect(self._folder.database) as connection:
            connection.execute("DELETE FROM ledger WHERE sequence > 2")
        self._agent = self._open()

    patch.setattr(ScenarioSite, "restart", losing)


def charge_again(patch: pytest.MonkeyPatch) -> None:
    """A release that was charged already is charged anew."""
    patch.setattr(Ledger, "reservation", lambda self, release_id: None)
    patch.setattr(Ledger, "record_released", lambda self, release_id, digest: None)


def refuse_the_true(patch: pytest.MonkeyPatch) -> None:
    """The coordinator takes no update of the model that it sent."""
    refuse = server.update_checks._refuse
    patch.setattr(
        server.update_checks, "check_base", lambda *args: refuse("U6", "another", "a true one")
    )


DUPLICATE = {"do": "duplicate", "site": "hospital-1"}
BOTH_DIE = [{"do": "kill", "who": "hospital-1"}, {"do": "kill", "who": "coordinator"}]
PLANTED: list[tuple[Callable[[pytest.MonkeyPatch], None], list[dict[str, Any]], str]] = [
    (forget_charges, [ROUND, ROUND], "ledger counts enough"),
    (take_repeats, [DUPLICATE, ROUND], "only true answers are taken"),
    (record_no_refusal, [{"do": "drop", "site": "hospital-1"}, ROUND], "each answer is recorded"),
    (state_half, [ROUND], "epsilon shown is the ledgers"),
    (draw_again, [DUPLICATE | {"what": "request"}, ROUND], "resent bytes are the same"),
    (count_updates_twice, [ROUND], "models are made of accepted answers"),
    (
        ask_without_end,
        [{"do": "clock", "who": "coordinator", "seconds": 86400}, ROUND],
        "rounds end",
    ),
    (charge_again, [*BOTH_DIE, ROUND, ROUND], "ledger counts once"),
    (refuse_the_true, [ROUND], "true answers are taken"),
    (
        cut_the_ledger,
        [ROUND, {"do": "restart", "who": "hospital-1"}],
        "ledger only grows",
    ),
]


@pytest.mark.parametrize(
    ("plant", "operations", "broken"), PLANTED, ids=lambda item: getattr(item, "__name__", None)
)
def test_a_planted_fault_breaks_its_condition(
    plant: Callable[[pytest.MonkeyPatch], None],
    operations: list[dict[str, Any]],
    broken: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    found = {breach.condition for _, breach in played(*operations).breaches}
    assert broken in found


def test_every_condition_and_operation_stands_in_the_docs() -> None:
    assert len({item.name for item in CONDITIONS}) == len(CONDITIONS)
    text = (EXAMPLES.parent / "scenarios.md").read_text()
    for item in CONDITIONS:
        assert f"| {item.name} | {item.says} |" in text, item.name
    for kind in get_args(get_args(Operation)[0]):
        [name] = get_args(kind.model_fields["do"].annotation)
        assert f"| `{name}`" in text, name
