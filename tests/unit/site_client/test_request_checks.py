"""Each numbered check of a request: what passes, and what is refused with exactly its number."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.crypto.keys import OpeningKey, SigningKey
from common.errors import RequestRefused
from common.ids import ReleaseId, parse_digest, parse_site_id, parse_study_id
from common.privacy.ledger_entry import ReservedEntry
from common.protocol.arrays import Parameters, encode_parameters, parameters_digest
from common.protocol.envelope import read_header
from common.protocol.messages import RefusedTask, ReleasedTask, TaskKind
from common.protocol.refusals import REFUSALS
from common.study.columns import initial_parameters
from site_client import request_checks
from site_client.approvals import Approval
from site_client.release.site_limits import SiteLimits
from tests.lib.sites_in_process import InProcessSite, make_site

NOW_S = 1_800_000_000
OTHER_DIGEST = parse_digest("ab" * 32)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> InProcessSite:
    return make_site(tmp_path_factory.mktemp("site"))


def _number(check: Callable[[], Any]) -> str:
    with pytest.raises(RequestRefused) as caught:
        check()
    assert caught.value.refused == REFUSALS[caught.value.number]
    return caught.value.number


def _open(site: InProcessSite, envelope: bytes, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "site_id": parse_site_id(site.config.site.id),
        "coordinator": site.coordinator.verify_key,
        "opening_key": site.keys.opening,
        "now_s": int(time.time()),
    }
    return request_checks.open_request(envelope, read_header(envelope), **{**arguments, **changes})


def test_an_honest_envelope_opens(site: InProcessSite) -> None:
    assert _open(site, site.envelope(2)).round_number == 2


def test_r1_a_changed_ciphertext_is_refused(site: InProcessSite) -> None:
    envelope = bytearray(site.envelope())
    envelope[-1] ^= 1
    assert _number(lambda: _open(site, bytes(envelope))) in {"R1", "R2", "R3"}


def test_r2_another_coordinators_key_is_refused(site: InProcessSite) -> None:
    other = SigningKey.generate().verify_key
    assert _number(lambda: _open(site, site.envelope(), coordinator=other)) == "R2"


def test_r3_another_site_or_another_key_is_refused(site: InProcessSite) -> None:
    elsewhere, key = parse_site_id("elsewhere"), OpeningKey.generate()
    assert _number(lambda: _open(site, site.envelope(), site_id=elsewhere)) == "R3"
    assert _number(lambda: _open(site, site.envelope(), opening_key=key)) == "R3"


@pytest.mark.parametrize("shift_s", [-3600, 3600])
def test_r4_an_expired_or_early_request_is_refused(site: InProcessSite, shift_s: int) -> None:
    then = int(time.time()) + shift_s
    assert _number(lambda: _open(site, site.envelope(), now_s=then)) == "R4"


def test_r5_a_round_that_differs_from_the_signed_header_is_refused(site: InProcessSite) -> None:
    envelope = site.envelope(2, round_number=3)
    assert read_header(envelope).round_number == 2
    assert _number(lambda: _open(site, envelope)) == "R5"


def _approval(site: InProcessSite, **changes: Any) -> Approval:
    approval = site.tasks._records.approvals.all_approvals()[0]
    return replace(approval, **changes)


def test_r6_no_approval_or_one_for_another_study_is_refused(site: InProcessSite) -> None:
    header = read_header(site.envelope())
    other = _approval(site, study_id=parse_study_id("another"))
    assert _number(lambda: request_checks.check_approval(None, header, now_s=NOW_S)) == "R6"
    assert _number(lambda: request_checks.check_approval(other, header, now_s=NOW_S)) == "R6"


def test_r7_an_approval_holds_until_its_last_second_and_not_after_withdrawal(
    site: InProcessSite,
) -> None:
    header = read_header(site.envelope())
    approval = _approval(site, until_s=NOW_S)
    assert request_checks.check_approval(approval, header, now_s=NOW_S) is approval
    late = NOW_S + 1
    assert _number(lambda: request_checks.check_approval(approval, header, now_s=late)) == "R7"
    ended = replace(approval, is_withdrawn=True)
    assert _number(lambda: request_checks.check_approval(ended, header, now_s=NOW_S)) == "R7"


@pytest.mark.parametrize(
    ("round_number", "kind", "evaluates", "asks", "is_allowed"),
    [
        (1, TaskKind.TRAIN, False, False, True),
        (10, TaskKind.TRAIN, False, False, True),
        (11, TaskKind.EVALUATE, True, True, True),
        (11, TaskKind.TRAIN, True, True, False),  # one round more than approved
        (12, TaskKind.EVALUATE, True, True, False),
        (10, TaskKind.EVALUATE, False, False, False),  # an evaluation in a training round
        (1, TaskKind.TRAIN, False, True, False),  # an evaluation that the plan does not have
        (11, TaskKind.EVALUATE, True, False, False),
    ],
)
def test_r8_only_the_plans_rounds_kinds_and_evaluations_are_allowed(
    site: InProcessSite,
    round_number: int,
    kind: TaskKind,
    evaluates: bool,
    asks: bool,
    is_allowed: bool,
) -> None:
    assert site.plan.training.rounds == 10
    request = _open(site, site.envelope())
    asked = replace(request, round_number=round_number, kind=kind, evaluate=asks)

    def check() -> None:
        request_checks.check_round(asked, site.plan, evaluates=evaluates)

    if is_allowed:
        check()
    else:
        assert _number(check) == "R8"


def _reserved(site: InProcessSite, round_number: int, release_id: str) -> ReservedEntry:
    made = make_entry(site)
    return replace(made, round_number=round_number, release_id=ReleaseId(parse_digest(release_id)))


def make_entry(site: InProcessSite) -> ReservedEntry:
    reply = site.ask(site.envelope())
    assert isinstance(reply, ReleasedTask)
    entry = site.tasks._records.ledger.entries()[1]
    assert isinstance(entry, ReservedEntry)
    return entry


def test_r9_an_answered_round_for_another_model_and_a_passed_round_are_stale(
    site: InProcessSite,
) -> None:
    header = read_header(site.envelope(2))
    ours = ReleaseId(OTHER_DIGEST)

    def check(*entries: ReservedEntry, is_cached: bool = False) -> None:
        request_checks.check_stale(entries, header, release_id=ours, is_cached=is_cached)

    same, other = "ab" * 32, "cd" * 32
    check()
    check(_reserved(site, 1, other))  # an earlier round
    check(_reserved(site, 2, same))  # this very release: completed after a crash
    assert _number(lambda: check(_reserved(site, 2, other))) == "R9"
    assert _number(lambda: check(_reserved(site, 3, other))) == "R9"
    check(_reserved(site, 3, other), is_cached=True)  # kept bytes may be sent again
    elsewhere = replace(_reserved(site, 3, other), study_id=parse_study_id("another"))
    check(elsewhere)


def _with(site: InProcessSite, parameters: Parameters) -> Any:
    encoded = encode_parameters(parameters)
    request = _open(site, site.envelope())
    return replace(request, parameters=encoded, base_version=parameters_digest(encoded))


def test_r10_a_model_that_does_not_fit_the_plan_is_refused(site: InProcessSite) -> None:
    first = initial_parameters(site.plan)
    name = next(iter(first))
    nan = {**first, name: np.full_like(first[name], np.nan)}
    short = {key: value for key, value in first.items() if key != name}
    wide = {**first, name: np.zeros((3, 3), np.float32)}
    assert request_checks.check_model(_with(site, first), site.plan).keys() == first.keys()
    for wrong in (nan, short, wide):
        request = _with(site, wrong)
        assert _number(lambda request=request: request_checks.check_model(request, site.plan)) == (
            "R10"
        )
    lied = replace(_with(site, first), base_version=OTHER_DIGEST)
    assert _number(lambda: request_checks.check_model(lied, site.plan)) == "R10"


def test_r11_and_r13_the_sites_limits_win_and_equality_passes(site: InProcessSite) -> None:
    epsilon = site.plan.privacy.epsilon
    request_checks.check_study_limit(site.plan, SiteLimits(epsilon, 8.0, 1e-3))
    less = SiteLimits(epsilon - 0.01, 8.0, 1e-3)
    assert _number(lambda: request_checks.check_study_limit(site.plan, less)) == "R11"
    request_checks.check_cohort(50, cohort_size_min=50)
    assert _number(lambda: request_checks.check_cohort(49, cohort_size_min=50)) == "R13"


def test_r17_a_paused_study_is_refused_until_it_goes_on(tmp_path: Path) -> None:
    paused = make_site(tmp_path)
    study = parse_study_id(paused.plan.study.id)
    paused.tasks._records.approvals.pause(study)
    reply = paused.ask(paused.envelope())
    assert isinstance(reply, RefusedTask)
    assert reply.number == "R17"
    paused.tasks._records.approvals.unpause(study)
    assert isinstance(paused.ask(paused.envelope()), ReleasedTask)


def test_r17_training_is_refused_where_the_board_paused_the_site(tmp_path: Path) -> None:
    paused = make_site(tmp_path)
    records = paused.tasks._records
    with records.approvals._database.transaction() as connection:
        records.approvals.pause_training_within(connection, parse_study_id(paused.plan.study.id))
    reply = paused.ask(paused.envelope())
    assert isinstance(reply, RefusedTask)
    assert reply.number == "R17"


def test_r16_a_second_request_while_the_first_is_worked_on_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = make_site(tmp_path)
    monkeypatch.setattr("site_client.tasks.BUSY_WAIT_S", 0.05)
    envelope = busy.envelope()
    with busy.tasks._busy:
        reply = busy.ask(envelope)
    assert isinstance(reply, RefusedTask)
    assert reply.number == "R16"
    assert isinstance(busy.ask(envelope), ReleasedTask)
