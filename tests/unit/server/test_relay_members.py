"""What one member may take of the relay, with a clock that moves when told."""

from __future__ import annotations

import pytest

from common.crypto.certificates import board_name
from common.errors import EnrolmentError
from server.config import RelayConfig
from server.relay_members import Member, MemberLimits, TooMuch, member_of

NORTH, EAST = Member("north", is_board=False), Member("east", is_board=False)
BOARD = Member("north", is_board=True)


class Clock:
    """Monotonic seconds that move when told."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def _limits(**changes: int) -> tuple[MemberLimits, Clock]:
    clock = Clock()
    config = RelayConfig.model_validate({"port": 1, "calls_per_minute_max": 6, **changes})
    return MemberLimits(config, clock_s=clock), clock


def _call(limits: MemberLimits, member: Member, times: int = 1) -> None:
    for _ in range(times):
        with limits.call(member):
            pass


def test_a_name_in_a_certificate_is_a_sites_or_a_boards_and_never_both() -> None:
    assert member_of("north") == NORTH
    assert member_of(board_name("north")) == BOARD
    for board_id in ("", "North", "a:b", "-a", "a" * 59, "a\n"):
        with pytest.raises(EnrolmentError):
            board_name(board_id)
    assert len(board_name("a" * 58)) == 64


def test_a_minutes_calls_may_come_at_once_and_then_one_by_one() -> None:
    limits, clock = _limits()
    _call(limits, NORTH, 6)
    with pytest.raises(TooMuch) as caught:
        _call(limits, NORTH)
    clock.seconds += caught.value.wait_ms / 1000
    _call(limits, NORTH)
    with pytest.raises(TooMuch):
        _call(limits, NORTH)


def test_nobody_pays_for_another_and_a_long_pause_saves_up_one_minute_only() -> None:
    limits, clock = _limits()
    _call(limits, NORTH, 6)
    _call(limits, EAST, 6)
    _call(limits, BOARD, 100)
    clock.seconds += 1_000_000
    _call(limits, NORTH, 6)
    with pytest.raises(TooMuch):
        _call(limits, NORTH)


def test_calls_at_once_are_bounded_and_each_gives_its_place_back() -> None:
    limits, _ = _limits(calls_per_minute_max=1000, calls_at_once_max=2)
    with limits.call(NORTH), limits.call(NORTH):
        with pytest.raises(TooMuch), limits.call(NORTH):
            pass
        _call(limits, EAST)
    with pytest.raises(ZeroDivisionError), limits.call(NORTH):
        _ = 1 / 0
    with limits.call(NORTH), limits.call(NORTH):
        pass
