"""A decision whose decider is revoked since keeps its place here, is shown, and moves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Action
from common.protocol.monitoring.roster import MonitoringRoster, Standing
from tests.lib.monitored_site import DAY_S, MonitoredSite, make_monitored_site


@pytest.fixture
def site(tmp_path: Path) -> MonitoredSite:
    return make_monitored_site(tmp_path)


def _after(roster: MonitoringRoster, **changes: object) -> MonitoringRoster:
    successor = replace(roster, version=roster.version + 1, previous=roster.digest)
    return replace(successor, **changes)  # type: ignore[arg-type]


def _without_ben(roster: MonitoringRoster) -> MonitoringRoster:
    return _after(
        roster,
        deciders=tuple(
            replace(person, status=Standing.REVOKED) if person.name == "ben" else person
            for person in roster.deciders
        ),
    )


def _check_chain_goes_on(site: MonitoredSite, old: bytes) -> None:
    assert site.mailbox.deliver(old) == "taken"
    assert not site.site.records.approvals.is_paused(site.study_id)
    book = site.mailbox.decisions
    words = "signed under roster 1, whose decider ben is revoked now"
    assert book.objections(site.study_id) == {1: words}
    assert [item.action for item in book.decisions(site.study_id)] == [Action.STOP]
    follows = {"number": 2, "previous": read_notice(old).digest}
    anew = site.decision(Action.STOP, by=("ada", "cem"), **follows)
    assert site.mailbox.deliver(anew) == "taken"
    assert site.site.records.approvals.is_paused(site.study_id)
    assert book.objections(site.study_id) == {1: words}


def test_a_decision_that_comes_after_its_decider_was_revoked_pauses_nothing_and_blocks_nothing(
    site: MonitoredSite,
) -> None:
    site.begin()
    old = site.decision(Action.STOP)
    first = site.mailbox.pin.roster()
    assert first is not None
    assert site.mailbox.deliver(site.signed(_without_ben(first))) == "taken"
    _check_chain_goes_on(site, old)


def test_a_site_that_joins_late_takes_the_decisions_of_rosters_that_have_ended(
    site: MonitoredSite,
) -> None:
    pin, now_s = site.mailbox.pin, site.clock.seconds
    pin.trust(site.members.authority.verify_key)
    ended = site.roster(not_before_s=now_s - 9 * DAY_S, not_after_s=now_s - DAY_S)
    newest = _without_ben(_after(ended))
    newest = replace(newest, not_after_s=now_s + 9 * DAY_S)
    second = _after(ended)
    old = site.decision(Action.STOP, opened_at_s=now_s - 5 * DAY_S)
    third = replace(newest, version=3, previous=second.digest)
    outcomes = [site.mailbox.deliver(site.signed(item)) for item in (ended, second, third)]
    assert outcomes == ["later", "later", "taken"]
    assert [item.version for item in pin.rosters()] == [1, 2, 3]
    late = site.decision(Action.STOP, opened_at_s=now_s)
    assert site.mailbox.deliver(late) == "refused T4"  # no roster with ben was in force then
    assert site.mailbox.deliver(old) == "taken"
    assert not site.site.records.approvals.is_paused(site.study_id)
    words = site.mailbox.decisions.objections(site.study_id)[1]
    assert words == "signed under roster 2, whose decider ben is revoked now"


def test_an_earlier_roster_that_the_pinned_one_does_not_build_on_counts_for_nothing(
    site: MonitoredSite,
) -> None:
    pin, now_s = site.mailbox.pin, site.clock.seconds
    pin.trust(site.members.authority.verify_key)
    ended = site.roster(not_before_s=now_s - 9 * DAY_S, not_after_s=now_s - DAY_S)
    other = replace(ended, grace_s=1)
    newest = replace(_without_ben(other), not_after_s=now_s + 9 * DAY_S)
    assert site.mailbox.deliver(site.signed(ended)) == "later"
    assert site.mailbox.deliver(site.signed(newest)) == "taken"
    assert [item.version for item in pin.rosters()] == [2]
    old = site.decision(Action.STOP, opened_at_s=now_s - 5 * DAY_S)
    assert site.mailbox.deliver(old) == "refused T4"


def test_a_decision_that_comes_while_no_roster_is_in_force_waits_for_the_next_one(
    site: MonitoredSite,
) -> None:
    site.begin()
    first = site.mailbox.pin.roster()
    assert first is not None
    decision = site.decision(Action.STOP)
    site.clock.seconds = first.not_after_s + 1
    assert site.mailbox.deliver(decision) == "later"
    assert not site.site.records.approvals.is_paused(site.study_id)
    second = _after(first, not_before_s=site.clock.seconds, not_after_s=site.clock.seconds + DAY_S)
    assert site.mailbox.deliver(site.signed(second)) == "taken"
    assert site.site.records.approvals.is_paused(site.study_id)
