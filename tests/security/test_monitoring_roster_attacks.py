"""Attacks on who takes part in monitoring and on what members tell each other in notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from common import limits
from common.crypto.keys import SigningKey
from common.errors import ProtocolError, SignatureError
from common.ids import Digest, StudyId
from common.protocol.monitoring.notice_checks import (
    check_decision_follows,
    check_promotion_follows,
    verify_decision,
    verify_promotion,
    verify_receipt,
)
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.roster import MonitoringRoster, RosterBoard, Standing
from common.protocol.monitoring.roster_file import (
    sign_roster,
    verify_roster,
    verify_roster_chain,
)
from common.protocol.monitoring.signed_notice import add_signature
from tests.lib.monitoring import (
    AUDITOR,
    AUTHORITY,
    BOARD,
    BOARD_KEYS,
    CONSORTIUM,
    COORDINATOR,
    DAY_S,
    DECIDER_KEYS,
    NORTH,
    NOW_S,
    SITE_KEYS,
    SOUTH,
    STUDY,
    make_notices,
    make_roster,
    next_roster,
    opening_key,
    refused,
    rotated,
    signing_key,
    with_site,
)

ROSTER = make_roster()
STRANGER = signing_key(99)


# Somebody who wants to change the roster.


def take(
    roster: MonitoringRoster | bytes,
    *,
    pinned: MonitoringRoster | None,
    key: SigningKey = AUTHORITY,
    now_s: int = NOW_S + 3 * DAY_S,
) -> MonitoringRoster:
    data = roster if isinstance(roster, bytes) else sign_roster(roster, key)
    return verify_roster(data, authority=AUTHORITY.verify_key, now_s=now_s, pinned=pinned)


def test_a_roster_rolled_back_is_refused() -> None:
    second = next_roster(ROSTER)
    assert take(second, pinned=ROSTER) == second
    assert take(second, pinned=second) == second
    with pytest.raises(ProtocolError, match="rollback") as caught:
        take(ROSTER, pinned=second)
    assert caught.value.number == "O5"


def test_another_roster_of_the_same_version_is_refused() -> None:
    refused("O5", lambda: take(replace(ROSTER, grace_s=0), pinned=ROSTER))


def test_a_roster_that_follows_another_history_is_refused() -> None:
    other = next_roster(replace(ROSTER, grace_s=0))
    refused("O5", lambda: take(other, pinned=ROSTER))
    refused("O5", lambda: take(next_roster(ROSTER, consortium="Other"), pinned=ROSTER))


def test_a_reader_who_missed_versions_takes_them_in_order_and_only_so() -> None:
    second = next_roster(ROSTER, not_after_s=NOW_S + 2 * DAY_S)  # over by now
    third = next_roster(second, not_after_s=ROSTER.not_after_s)
    refused("O5", lambda: take(third, pinned=ROSTER))
    found = verify_roster_chain(
        [sign_roster(roster, AUTHORITY) for roster in (second, third)],
        authority=AUTHORITY.verify_key,
        now_s=NOW_S + 3 * DAY_S,
        pinned=ROSTER,
    )
    assert found == third


def test_a_coordinator_cannot_name_a_receiver() -> None:
    mine = make_roster(opening=[opening_key(66), opening_key(67)])
    with pytest.raises(SignatureError):
        sign_roster(mine, COORDINATOR)
    foreign = replace(mine, authority=COORDINATOR.verify_key)
    with pytest.raises(SignatureError) as caught:
        take(foreign, pinned=None, key=COORDINATOR)
    assert caught.value.number == "O2"


def test_a_second_signature_on_a_roster_is_refused() -> None:
    data = add_signature(sign_roster(ROSTER, AUTHORITY), by="coordinator", key=COORDINATOR)
    refused("O2", lambda: take(data, pinned=None))


def test_an_expired_roster_and_one_from_the_future_are_refused() -> None:
    refused("O9", lambda: take(ROSTER, pinned=None, now_s=ROSTER.not_after_s + 1))
    early_s = ROSTER.not_before_s - limits.CLOCK_SKEW_S_MAX
    refused("O9", lambda: take(ROSTER, pinned=None, now_s=early_s - 1))
    take(ROSTER, pinned=None, now_s=early_s)


def test_a_new_site_key_without_the_old_ones_word_is_refused() -> None:
    new = signing_key(50)
    refused("O8", lambda: take(rotated(ROSTER, new, countersignature=None), pinned=ROSTER))
    refused("O8", lambda: take(rotated(ROSTER, new, countersignature=bytes(64)), pinned=ROSTER))
    thief = signing_key(51)
    refused("O8", lambda: take(rotated(ROSTER, new, verify_key=thief.verify_key), pinned=ROSTER))


def test_after_a_revocation_a_site_gets_another_key_and_never_the_old_one() -> None:
    revoked = next_roster(ROSTER, sites=with_site(ROSTER, NORTH, status=Standing.REVOKED))
    new = with_site(ROSTER, NORTH, verify_key=signing_key(50).verify_key, key_epoch=2)
    take(next_roster(revoked, sites=new), pinned=revoked)
    refused("O8", lambda: take(next_roster(revoked, sites=ROSTER.sites), pinned=revoked))


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_key_epoch_goes_up_by_one_with_each_new_key(epoch: int) -> None:
    refused("O7", lambda: take(rotated(ROSTER, signing_key(50), key_epoch=epoch), pinned=ROSTER))


def test_a_key_epoch_does_not_change_while_the_key_stays() -> None:
    sites = with_site(ROSTER, NORTH, key_epoch=2)
    refused("O7", lambda: take(next_roster(ROSTER, sites=sites), pinned=ROSTER))


def test_a_site_cannot_be_dropped_and_come_back_with_another_key() -> None:
    refused("O6", lambda: take(next_roster(ROSTER, sites=ROSTER.sites[1:]), pinned=ROSTER))


def _same_key_twice() -> MonitoringRoster:
    key = SITE_KEYS[NORTH].verify_key
    return replace(ROSTER, sites=with_site(ROSTER, SOUTH, verify_key=key))


def _decider_with_a_boards_key() -> MonitoringRoster:
    first, *others = ROSTER.deciders
    return replace(
        ROSTER, deciders=(replace(first, verify_key=BOARD_KEYS[BOARD].verify_key), *others)
    )


def _sealing_key_twice() -> MonitoringRoster:
    first, second = ROSTER.boards
    return replace(ROSTER, boards=(first, replace(second, sealing_key=first.sealing_key)))


def _two_active_keys() -> MonitoringRoster:
    first, second = ROSTER.boards
    third = replace(second, sealing_key=opening_key(70).sealing_key)
    boards = (first, second, third)
    return replace(ROSTER, boards=tuple(sorted(boards, key=_board_order)))


def _board_order(board: RosterBoard) -> tuple[str, str]:
    return board.board_id, board.sealing_key.fingerprint


@pytest.mark.parametrize(
    ("number", "make"),
    [
        ("O3", _same_key_twice),
        ("O3", _decider_with_a_boards_key),
        ("O3", _sealing_key_twice),
        ("O3", _two_active_keys),
        ("O3", lambda: replace(ROSTER, sites=(ROSTER.sites[0], *ROSTER.sites))),
        ("O3", lambda: replace(ROSTER, sites=ROSTER.sites[::-1])),
        ("O4", lambda: replace(ROSTER, suites=())),
        ("O4", lambda: replace(ROSTER, suites=(1,))),
        ("O4", lambda: replace(ROSTER, suites=(2, 1))),
        ("O4", lambda: replace(ROSTER, suites=(2, 3))),
        ("O4", lambda: replace(ROSTER, receipts_required=3)),
        ("O4", lambda: replace(ROSTER, boards=())),
        ("O4", lambda: replace(ROSTER, previous=Digest("0" * 64))),
        ("O1", lambda: replace(ROSTER, decisions_required=1)),
        ("O1", lambda: replace(ROSTER, consortium="a\nb")),
    ],
)
def test_a_roster_that_makes_no_sense_is_not_signed(
    number: str, make: Callable[[], MonitoringRoster]
) -> None:
    refused(number, lambda: sign_roster(make(), AUTHORITY))


# Somebody who wants to speak for a board, the deciders or the coordinator.


def test_a_receipt_of_no_board_or_of_another_is_refused() -> None:
    receipt = make_notices().receipt
    good = sign_notice(receipt, {BOARD: BOARD_KEYS[BOARD]})
    assert verify_receipt(good, ROSTER) == receipt
    refused("T3", lambda: verify_receipt(sign_notice(receipt, {BOARD: STRANGER}), ROSTER))
    refused(
        "T3",
        lambda: verify_receipt(sign_notice(receipt, {AUDITOR: BOARD_KEYS[AUDITOR]}), ROSTER),
    )
    retired = tuple(replace(board, status=Standing.RETIRED) for board in ROSTER.boards)
    refused("T3", lambda: verify_receipt(good, replace(ROSTER, boards=retired)))


def test_a_second_signature_on_a_receipt_is_refused() -> None:
    data = sign_notice(make_notices().receipt, {name: BOARD_KEYS[name] for name in BOARD_KEYS})
    refused("T3", verify_receipt, data, ROSTER)


def test_one_decider_alone_decides_nothing() -> None:
    decision = make_notices().decision
    alone = sign_notice(decision, {"ada": DECIDER_KEYS["ada"]})
    refused("T4", lambda: verify_decision(alone, ROSTER))
    twice = add_signature(alone, by="ada", key=DECIDER_KEYS["ada"])
    refused("T4", lambda: verify_decision(twice, ROSTER))
    as_ben = add_signature(alone, by="ben", key=DECIDER_KEYS["ada"])
    refused("T4", lambda: verify_decision(as_ben, ROSTER))
    stranger = add_signature(alone, by="zoe", key=STRANGER)
    refused("T4", lambda: verify_decision(stranger, ROSTER))
    both = add_signature(alone, by="ben", key=DECIDER_KEYS["ben"])
    assert verify_decision(both, ROSTER) == decision


def test_a_revoked_decider_decides_nothing() -> None:
    both = sign_notice(
        make_notices().decision, {name: DECIDER_KEYS[name] for name in ("ada", "ben")}
    )
    first, *others = ROSTER.deciders
    roster = replace(ROSTER, deciders=(replace(first, status=Standing.REVOKED), *others))
    refused("T4", lambda: verify_decision(both, roster))


def test_a_decision_replayed_or_out_of_order_is_refused() -> None:
    decision = make_notices().decision
    check_decision_follows(decision, consortium=CONSORTIUM, study_id=STUDY, number=0, digest=None)
    for consortium, study, number, digest in (
        (CONSORTIUM, STUDY, 1, Digest("0" * 64)),
        (CONSORTIUM, STUDY, 0, Digest("0" * 64)),
        (CONSORTIUM, StudyId("other-study"), 0, None),
        ("Another consortium of the same deciders", STUDY, 0, None),
    ):
        with pytest.raises(ProtocolError) as caught:
            check_decision_follows(
                decision, consortium=consortium, study_id=study, number=number, digest=digest
            )
        assert caught.value.number == "T6"


def test_a_promotion_is_the_coordinators_and_never_goes_back() -> None:
    promotion = make_notices().promotion
    good = sign_notice(promotion, {"coordinator": COORDINATOR})
    assert verify_promotion(good, COORDINATOR.verify_key) == promotion
    refused("T5", lambda: verify_promotion(good, STRANGER.verify_key))
    check_promotion_follows(promotion, None)
    check_promotion_follows(replace(promotion, sequence=2), promotion)
    for other in (
        promotion,
        replace(promotion, sequence=2, study_id=StudyId("other-study")),
        replace(promotion, sequence=2, plan_digest=Digest("0" * 64)),
    ):
        refused("T6", check_promotion_follows, other, promotion)


def test_a_notice_of_one_kind_is_none_of_another() -> None:
    receipt = sign_notice(make_notices().receipt, {"coordinator": COORDINATOR})
    refused("T2", verify_promotion, receipt, COORDINATOR.verify_key)
    promotion = sign_notice(make_notices().promotion, {BOARD: BOARD_KEYS[BOARD]})
    refused("T2", verify_receipt, promotion, ROSTER)
