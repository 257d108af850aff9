"""What the relay keeps of boards' notices, and what goes in its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from common.crypto.keys import SigningKey
from common.ids import BoardId, Digest, SiteId, StudyId
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.roster import BoardRole, Standing
from common.protocol.monitoring.signed_notice import NoticeKind
from server.relay_expiry import DAY_S, KeptNotice, expire_notices
from tests.lib.board_world import make_world

WORLD = make_world(boards=("board-a", "board-b"))
NOW_S = 100 * DAY_S


@dataclass
class _Store:
    """Receipts in memory."""

    kept: list[KeptNotice] = field(default_factory=list)

    def add(
        self,
        board: str,
        site: str,
        sequence: int,
        *,
        days_ago: int,
        study: str = "s",
        sender: str = "",
    ) -> int:
        content = Receipt(
            StudyId(study), SiteId(site), sequence, Digest("ab" * 32), BoardId(board), days_ago
        )
        notice = sign_notice(content, {board: SigningKey.generate()})
        position = len(self.kept) + 1
        self.kept.append(KeptNotice(position, sender or board, NOW_S - days_ago * DAY_S, notice))
        return position

    def kept_notices(self, kind: NoticeKind) -> Iterator[KeptNotice]:
        yield from self.kept if kind is NoticeKind.RECEIPT else ()

    def delete_notices(self, positions: Sequence[int]) -> int:
        before = len(self.kept)
        self.kept = [item for item in self.kept if item.position not in positions]
        return before - len(self.kept)

    def left(self) -> list[int]:
        return [item.position for item in self.kept]


def test_old_receipts_go_when_a_newer_one_of_the_same_board_site_and_study_is_there() -> None:
    store = _Store()
    gone = [store.add("board-a", "north", number, days_ago=99 - number) for number in (1, 2)]
    newest = store.add("board-a", "north", 3, days_ago=95)
    for change in ("board-b", "south", "other"):
        board = change if change == "board-b" else "board-a"
        site = change if change == "south" else "north"
        store.add(board, site, 1, days_ago=98, study=change if change == "other" else "s")
    young = [store.add("board-a", "north", number, days_ago=5) for number in (4, 5)]
    assert expire_notices(store, WORLD.roster, receipt_days=90, now_s=NOW_S) == 2
    assert not set(gone) & set(store.left())
    assert {newest, *young} < set(store.left())
    assert len(store.left()) == 6


def test_a_site_that_was_away_for_years_still_finds_the_receipt_of_its_newest_report() -> None:
    store = _Store()
    only = store.add("board-a", "north", 7, days_ago=99)
    assert expire_notices(store, WORLD.roster, receipt_days=1, now_s=NOW_S) == 0
    assert store.left() == [only]


def test_what_a_revoked_board_left_goes_at_once_and_a_retired_keys_board_keeps_all() -> None:
    store = _Store()
    for board in ("board-a", "board-b"):
        store.add(board, "north", 1, days_ago=0)
    first, second = WORLD.roster.boards
    older = replace(second, status=Standing.RETIRED)
    retired = replace(WORLD.roster, boards=(replace(first, status=Standing.REVOKED), older))
    assert expire_notices(store, retired, receipt_days=90, now_s=NOW_S) == 1
    assert store.left() == [2]


def test_every_receipt_of_an_aggregator_stays_for_each_is_about_one_share() -> None:
    store = _Store()
    for number in (1, 2, 3):
        store.add("board-b", "north", number, days_ago=99 - number)
    first, second = WORLD.roster.boards
    roster = replace(WORLD.roster, boards=(first, replace(second, role=BoardRole.AGGREGATOR_A)))
    assert expire_notices(store, roster, receipt_days=1, now_s=NOW_S) == 0
    assert store.left() == [1, 2, 3]


def test_what_a_revoked_board_only_passed_on_of_another_stays() -> None:
    store = _Store()
    store.add("board-b", "north", 1, days_ago=0, sender="board-a")
    first, second = WORLD.roster.boards
    roster = replace(WORLD.roster, boards=(replace(first, status=Standing.REVOKED), second))
    assert expire_notices(store, roster, receipt_days=90, now_s=NOW_S) == 0
