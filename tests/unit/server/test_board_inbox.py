"""Each numbered step of the inbox refuses what it names, and nothing else; chains never break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.canonical import digest_bytes
from common.crypto.keys import OpeningKey, SigningKey, X25519OpeningKey
from common.errors import CohortiumError
from common.ids import BoardId, SiteId, StudyId
from common.protocol.monitoring.notice_checks import verify_receipt
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.roster import BoardRole, RosterBoard, Standing
from common.protocol.monitoring.roster_file import sign_key_change
from common.study.report_tensors import ReportKind
from server.monitor_board.notices_out import unpublished
from server.monitor_board.plan_book import take_promotion
from tests.lib.board_world import (
    CONSORTIUM,
    DAY_S,
    STUDY,
    BoardSide,
    World,
    make_board,
    make_world,
    utc_s,
)

NORTH, SOUTH = SiteId("north"), SiteId("south")
USED = ("used", "")


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def board(world: World, tmp_path: Path) -> BoardSide:
    return make_board(world, tmp_path)


def _numbers(board: BoardSide) -> list[str]:
    return [item.number for item in board.store.refusals()]


def test_an_honest_report_is_kept_with_the_counts_that_the_site_sealed(
    world: World, board: BoardSide
) -> None:
    envelope = world.report(NORTH)
    assert board.take(envelope) == [USED]
    (kept,) = board.store.kept_reports(STUDY)
    assert (kept.site_id, kept.period, kept.sequence) == (NORTH, "2026-02", 1)
    assert kept.digest == report_digest(envelope)
    assert list(kept.tensors) == [
        "sentinels/age",
        "sentinels/systolic_bp",
        "sentinels/sex",
        "scores",
        "group_scores/sex",
    ]
    counted = kept.tensors["group_scores/sex"]
    assert counted.values.shape == (3, 4)
    assert counted.sd > 0
    assert abs(counted.values.sum() - 400) < 6 * counted.sd * np.sqrt(12)
    assert board.store.refusals() == ()
    assert board.store.flagged() == ()


def test_the_receipt_names_the_newest_report_and_carries_the_boards_signature(
    world: World, board: BoardSide
) -> None:
    reports = [world.report(NORTH, period=f"2026-0{month}") for month in (1, 2)]
    board.take(*reports, at_s=utc_s(2026, 3, 1))
    with board.database.transaction() as connection:
        (notice,) = unpublished(connection)
    receipt = verify_receipt(notice.notice, world.roster)
    assert receipt == Receipt(
        STUDY, NORTH, 2, report_digest(reports[1]), BoardId("board"), world.clock.seconds
    )


def test_B1_bytes_that_are_no_envelope_are_refused(world: World, board: BoardSide) -> None:
    envelope = bytearray(world.report(NORTH))
    assert board.take(b"FHM1 and nothing", bytes(envelope[:-1])) == [("refused", "B1")] * 2
    assert board.store.chain_ends() == ()


def test_B2_a_report_signed_by_another_key_is_refused(world: World, board: BoardSide) -> None:
    envelope = world.envelope(NORTH, key=world.sites[SOUTH].key)
    assert board.take(envelope) == [("refused", "B2")]


def test_B2_a_site_that_is_not_in_the_roster_is_refused(world: World, board: BoardSide) -> None:
    stranger = make_world(sites=("east", "north"))
    stranger.rosters[0] = world.roster
    assert board.take(stranger.envelope(SiteId("east"))) == [("refused", "B2")]


def test_B3_a_report_under_the_roster_before_counts_within_its_grace_and_not_after(
    world: World, board: BoardSide
) -> None:
    old = [world.report(NORTH, period="2026-01"), world.report(NORTH, period="2026-02")]
    world.clock.seconds += 3600
    board.take_roster(world.next_roster())
    grace_ends_s = world.clock.seconds + world.roster.grace_s
    assert board.take(old[0], at_s=utc_s(2026, 2, 10)) == [USED]
    assert board.take(old[1], at_s=grace_ends_s + 1) == [("refused", "B3")]
    assert board.take(old[1], at_s=grace_ends_s) == [USED]


def test_B3_a_report_under_a_roster_that_is_not_here_yet_waits_for_it(
    world: World, board: BoardSide
) -> None:
    coming = world.next_roster()
    assert board.take(world.report(NORTH)) == [("waits", "B3")]
    assert [item.number for item in board.store.waiting()] == ["B3"]
    board.take_roster(coming)
    assert [item.outcome.value for item in board.inbox.take_waiting()] == ["used"]
    assert board.store.waiting() == ()
    assert len(board.store.kept_reports(STUDY)) == 1


def test_B14_only_a_few_reports_of_a_site_may_wait_for_a_roster(
    world: World, board: BoardSide
) -> None:
    world.next_roster()
    outcomes = board.take(*(world.report(NORTH) for _ in range(12)))
    assert outcomes[:10] == [("waits", "B3")] * 10
    assert outcomes[10:] == [("refused", "B3")] * 2


def test_B2_a_report_that_waits_unverified_for_a_roster_gets_no_place_by_the_one_before_it(
    world: World, board: BoardSide
) -> None:
    first = world.report(NORTH, period="2026-01")
    forged = world.envelope(
        NORTH, key=SigningKey.generate(), roster=digest_bytes("test", b"no roster at all")
    )
    true = world.report(NORTH, period="2026-02")
    assert board.take(forged) == [("waits", "B3")]
    assert board.take(first, at_s=utc_s(2026, 2, 2)) == [USED]
    assert board.take(true) == [USED]
    assert [item.sequence for item in board.store.kept_reports(STUDY)] == [1, 2]


def test_B4_a_weaker_suite_than_the_roster_allows_is_refused(
    world: World, board: BoardSide
) -> None:
    weak = [X25519OpeningKey.generate().sealing_key]
    assert board.take(world.envelope(NORTH, recipients=weak)) == [("refused", "B4")]


def test_B5_a_report_sealed_to_others_than_the_roster_names_is_refused(
    world: World, board: BoardSide
) -> None:
    others = [OpeningKey.generate().sealing_key]
    assert board.take(world.envelope(NORTH, recipients=others)) == [("refused", "B5")]


def test_B5_a_report_of_the_time_before_a_board_joined_has_its_place_and_is_not_used(
    world: World, tmp_path: Path
) -> None:
    before = world.report(NORTH, period="2026-01")
    world.opening[BoardId("late")] = OpeningKey.generate()
    world.signing[BoardId("late")] = SigningKey.generate()
    late = RosterBoard(
        BoardId("late"),
        BoardRole.BOARD,
        world.opening[BoardId("late")].sealing_key,
        world.signing[BoardId("late")].verify_key,
        Standing.ACTIVE,
    )
    first = world.roster_bytes
    second = world.next_roster(boards=(*world.roster.boards, late))
    world.rosters.pop()
    keep = world.rosters[-1]
    side = make_board(world, tmp_path, "late")
    assert first == world.roster_bytes
    assert keep.version == 1
    side.take_roster(second)
    assert side.take(before, at_s=utc_s(2026, 2, 2)) == [("in the chain, not used", "B5")]
    assert [end.sequence for end in side.store.chain_ends()] == [1]


def test_B6_content_that_is_not_what_header_and_plan_say_keeps_its_place_and_is_not_used(
    world: World, board: BoardSide
) -> None:
    wrong: list[dict[str, Any]] = [
        {"counts": np.zeros(2000, dtype=np.int64)},
        {"content_changes": {"period": "2026-01"}},
        {"content_changes": {"mechanisms": ()}},
        {"content_changes": {"delta": 1e-9}},
        {"content": bytes(4096)},
    ]
    for changes in wrong:
        assert board.take(world.report(NORTH, **changes)) == [("in the chain, not used", "B6")]
    assert board.take(world.report(NORTH)) == [USED]
    assert [item.sequence for item in board.store.kept_reports(STUDY)] == [len(wrong) + 1]


def test_B7_a_report_that_comes_again_is_refused(world: World, board: BoardSide) -> None:
    envelope = world.report(NORTH)
    assert board.take(envelope, envelope) == [USED, ("refused", "B7")]
    assert board.take(envelope) == [("refused", "B7")]
    assert len(board.store.kept_reports(STUDY)) == 1


def test_B7_a_second_report_of_the_same_kind_and_period_is_not_used(
    world: World, board: BoardSide
) -> None:
    assert board.take(world.report(NORTH), world.report(NORTH)) == [
        USED,
        ("in the chain, not used", "B7"),
    ]


def test_B8_another_report_with_a_number_that_is_taken_is_refused(
    world: World, board: BoardSide
) -> None:
    fork = world.envelope(NORTH, patients=900)
    assert board.take(world.report(NORTH), fork) == [USED, ("refused", "B8")]


def test_B8_a_report_that_follows_another_than_the_one_held_is_refused(
    world: World, board: BoardSide
) -> None:
    board.take(world.report(NORTH, period="2026-01"), at_s=utc_s(2026, 2, 2))
    fork = world.envelope(NORTH, previous=digest_bytes("test", b"another"))
    assert board.take(fork) == [("refused", "B8")]
    assert board.take(world.report(NORTH)) == [USED]


def test_B9_a_report_after_a_missing_one_waits_and_the_gap_stays_open_until_it_is_filled(
    world: World, board: BoardSide
) -> None:
    first, second, third = (
        world.report(NORTH, period=period) for period in ("2025-12", "2026-01", "2026-02")
    )
    at_s = utc_s(2026, 1, 10)
    assert board.take(third, at_s=utc_s(2026, 3, 2)) == [("waits", "B9")]
    assert [(item.sequence, item.filled_at_s) for item in board.store.gaps()] == [
        (1, None),
        (2, None),
    ]
    assert board.take(first, at_s=at_s) == [USED]
    assert [item.sequence for item in board.store.gaps()] == [2]
    assert board.take(second, at_s=utc_s(2026, 2, 2)) == [USED]
    assert board.store.gaps() == ()
    assert len(board.store.gaps(also_filled=True)) == 2
    assert [item.period for item in board.store.kept_reports(STUDY)] == [
        "2025-12",
        "2026-01",
        "2026-02",
    ]


def test_B9_a_waiting_report_that_does_not_follow_is_refused_and_its_number_is_missing_again(
    world: World, board: BoardSide
) -> None:
    first = world.report(NORTH, period="2026-01")
    lie = world.envelope(NORTH, previous=digest_bytes("test", b"another"))
    true = world.report(NORTH, period="2026-02")
    assert board.take(lie) == [("waits", "B9")]
    assert board.take(first, at_s=utc_s(2026, 2, 2)) == [USED]
    assert _numbers(board) == ["B8"]
    assert [item.sequence for item in board.store.gaps()] == [2]
    assert board.take(true) == [USED]
    assert board.store.gaps() == ()


def test_B9_a_lie_at_a_number_that_is_missing_already_does_not_stop_the_batch(
    world: World, board: BoardSide
) -> None:
    first = world.report(NORTH, period="2026-01")
    lie = world.envelope(NORTH, previous=digest_bytes("test", b"another"))
    world.report(NORTH, period="2025-12")
    later = world.report(NORTH, period="2026-02")
    assert board.take(later, lie) == [("waits", "B9")] * 2
    assert board.take(first, at_s=utc_s(2026, 2, 2)) == [USED]
    assert [item.sequence for item in board.store.gaps()] == [2]


@pytest.mark.parametrize(
    ("at_s", "expected"),
    [
        (utc_s(2026, 2, 28, 23, 59, 59), ("in the chain, not used", "B10")),
        (utc_s(2026, 3, 1), USED),
        (utc_s(2026, 3, 15), USED),
        (utc_s(2026, 3, 15, 0, 0, 1), ("in the chain, not used", "B10")),
    ],
)
def test_B10_a_report_is_used_from_the_end_of_its_period_until_it_is_late(
    world: World, board: BoardSide, at_s: int, expected: tuple[str, str]
) -> None:
    assert board.take(world.report(NORTH), at_s=at_s) == [expected]


def test_B10_a_period_that_is_not_of_the_plans_calendar_is_not_used(
    world: World, board: BoardSide
) -> None:
    envelope = world.report(NORTH, period="2026-W07")
    assert board.take(envelope) == [("in the chain, not used", "B10")]


def test_B11_a_report_of_a_study_without_a_plan_here_is_refused(
    world: World, board: BoardSide
) -> None:
    assert board.take(world.envelope(NORTH, study_id=StudyId("another-study"))) == [
        ("refused", "B11")
    ]


def test_B11_a_report_of_another_plans_schema_is_not_used(world: World, board: BoardSide) -> None:
    envelope = world.report(NORTH, schema=digest_bytes("test", b"another plan"))
    assert board.take(envelope) == [("in the chain, not used", "B11")]


def test_B11_a_report_of_a_model_that_is_promoted_later_is_used_then(
    world: World, board: BoardSide
) -> None:
    model = digest_bytes("test", b"model 2")
    assert board.take(world.report(NORTH, model_version=model)) == [
        ("in the chain, not used", "B11")
    ]
    assert board.inbox.look_again() == 0
    with board.database.transaction() as connection:
        take_promotion(connection, world.promotion(model=model, sequence=2))
    assert board.inbox.look_again() == 1
    assert [item.model_version for item in board.store.kept_reports(STUDY)] == [model]


def test_a_report_of_a_model_that_is_promoted_later_is_looked_through_as_well(
    world: World, board: BoardSide
) -> None:
    model = digest_bytes("test", b"model 2")
    nothing = np.zeros_like(world.noisy(ReportKind.CASE_MIX, 400))
    board.take(world.report(NORTH, model_version=model, counts=nothing))
    with board.database.transaction() as connection:
        take_promotion(connection, world.promotion(model=model, sequence=2))
    assert board.inbox.look_again() == 1
    assert [item.check for item in board.store.flagged()] == ["no-noise"]


def test_B12_a_revoked_site_is_refused_and_a_suspended_one_waits_until_it_is_active(
    world: World, board: BoardSide
) -> None:
    board.take_roster(world.next_roster(sites=world.sites_with(NORTH, status=Standing.SUSPENDED)))
    assert board.take(world.report(NORTH)) == [("waits", "B12")]
    world.clock.seconds += 60
    board.take_roster(world.next_roster(sites=world.sites_with(NORTH, status=Standing.ACTIVE)))
    assert [item.outcome.value for item in board.inbox.take_waiting()] == ["used"]
    board.take_roster(world.next_roster(sites=world.sites_with(SOUTH, status=Standing.REVOKED)))
    assert board.take(world.report(SOUTH)) == [("refused", "B12")]


def test_B13_an_oversized_report_is_refused_before_it_is_read(
    world: World, board: BoardSide
) -> None:
    assert board.take(world.report(NORTH) + bytes(64 << 20)) == [("refused", "B13")]


def test_B14_a_site_cannot_send_more_reports_than_its_plan_has_room_for(
    world: World, board: BoardSide
) -> None:
    assert board.take(world.envelope(NORTH, sequence=10_000)) == [("refused", "B14")]
    assert board.store.gaps() == ()


def test_a_share_keeps_the_chain_whole_and_is_no_report_of_this_board(
    world: World, board: BoardSide
) -> None:
    aggregator = OpeningKey.generate()
    share = RosterBoard(
        BoardId("sum-a"),
        BoardRole.AGGREGATOR_A,
        aggregator.sealing_key,
        SigningKey.generate().verify_key,
        Standing.ACTIVE,
    )
    board.take_roster(world.next_roster(boards=(*world.roster.boards, share)))
    envelope = world.report(NORTH, kind="share-a", content=bytes(4096))
    assert board.take(envelope, world.report(NORTH)) == [
        ("in the chain, not used", "share"),
        USED,
    ]
    assert board.store.envelopes(STUDY, kind="share-a") == (envelope,)


def test_a_new_key_of_a_site_that_its_old_key_countersigned_continues_the_chain(
    world: World, board: BoardSide
) -> None:
    board.take(world.report(NORTH, period="2026-01"), at_s=utc_s(2026, 2, 2))
    site, old = world.sites[NORTH], world.sites[NORTH].key
    site.key, site.key_epoch = SigningKey.generate(), 2
    signed = sign_key_change(
        old, consortium=CONSORTIUM, site_id=NORTH, key_epoch=2, new=site.key.verify_key
    )
    board.take_roster(
        world.next_roster(
            sites=world.sites_with(
                NORTH, verify_key=site.key.verify_key, key_epoch=2, countersignature=signed
            )
        )
    )
    assert board.take(world.envelope(NORTH, key=old)) == [("refused", "B2")]
    assert board.take(world.report(NORTH)) == [USED]
    assert [end.key_epoch for end in board.store.chain_ends()] == [2]


def test_a_stolen_key_that_was_revoked_counts_no_longer_under_the_roster_before(
    world: World, board: BoardSide
) -> None:
    stolen = world.envelope(NORTH)
    board.take_roster(world.next_roster(sites=world.sites_with(NORTH, status=Standing.REVOKED)))
    world.clock.seconds += 60
    new = SigningKey.generate()
    board.take_roster(
        world.next_roster(
            sites=world.sites_with(
                NORTH, verify_key=new.verify_key, key_epoch=2, status=Standing.ACTIVE
            )
        )
    )
    assert board.take(stolen) == [("refused", "B12")]


def test_without_a_roster_in_force_nothing_is_taken_and_nothing_is_lost(
    world: World, board: BoardSide
) -> None:
    envelope = world.report(NORTH)
    world.clock.seconds = world.roster.not_after_s + DAY_S
    with pytest.raises(CohortiumError) as caught:
        board.take(envelope)
    assert caught.value.number == "O9"
    assert board.store.position(f"reports/{STUDY}") == 0
    assert board.store.refusals() == ()


def test_two_boards_hold_the_same_chain_heads_and_the_same_counts(tmp_path: Path) -> None:
    world = make_world(boards=("board", "auditor"))
    sides = [make_board(world, tmp_path, name) for name in ("board", "auditor")]
    envelopes = [world.report(site) for site in (NORTH, SOUTH)]
    for side in sides:
        assert side.take(*envelopes) == [USED, USED]
    ends = [[(end.site_id, end.digest) for end in side.store.chain_ends()] for side in sides]
    assert ends[0] == ends[1]
    kept = [side.store.kept_reports(STUDY) for side in sides]
    for one, other in zip(*kept, strict=True):
        assert one.digest == other.digest
        for name in one.tensors:
            assert np.array_equal(one.tensors[name].values, other.tensors[name].values)
    assert sides[0].store.envelopes(STUDY, kind="case-mix") == tuple(envelopes)
