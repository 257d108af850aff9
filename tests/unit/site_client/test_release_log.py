"""The release log and the site's one file: durable, chained, and whole or refused."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.clock import FixedClock
from common.errors import LedgerError
from common.ids import ReleaseId, parse_digest, parse_study_id
from site_client.release.ledger_file import SqliteLedgerStore
from site_client.release.release_log import KEPT_ROUNDS, ReleaseLog
from site_client.site_database import SiteDatabase

STUDY = parse_study_id("heart")
HEAD = parse_digest("ab" * 32)


def _name(number: int) -> ReleaseId:
    return ReleaseId(parse_digest(f"{number:064x}"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SiteDatabase]:
    made = SiteDatabase(tmp_path / "state" / "site.db")
    yield made
    made.close()


@pytest.fixture
def log(database: SiteDatabase) -> ReleaseLog:
    return ReleaseLog(database, FixedClock(1_800_000_000))


def _release(log: ReleaseLog, number: int, payload: bytes = b"payload") -> None:
    log.append_release(
        _name(number), study_id=STUDY, round_number=number, payload=payload, ledger_head=HEAD
    )


def test_the_file_is_private_and_every_commit_is_synchronous(
    database: SiteDatabase, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "site.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert database.rows("PRAGMA synchronous") == [(2,)]  # FULL
    assert database.rows("PRAGMA journal_mode") == [("wal",)]


def test_a_release_and_its_bytes_are_there_together_and_can_be_read_back(log: ReleaseLog) -> None:
    _release(log, 1)
    (entry,) = log.verify()
    assert (entry.what, entry.round_number, entry.size_bytes) == ("release", 1, 7)
    assert log.payload(_name(1)) == b"payload"
    assert log.payload(_name(2)) is None


def test_the_same_release_cannot_be_logged_twice_and_the_failed_one_leaves_no_entry(
    log: ReleaseLog,
) -> None:
    _release(log, 1)
    with pytest.raises(LedgerError):
        _release(log, 1, b"other noise")
    assert len(log.verify()) == 1
    assert log.payload(_name(1)) == b"payload"


def test_bytes_of_rounds_long_over_are_dropped_and_their_entries_stay(log: ReleaseLog) -> None:
    for number in range(1, 6):
        _release(log, number)
        log.keep_reply(f"request {number}", _name(number), b"envelope")
    kept = [number for number in range(1, 6) if log.payload(_name(number)) is not None]
    assert kept == list(range(6 - KEPT_ROUNDS, 6))
    assert [log.reply(f"request {number}") is not None for number in range(1, 6)] == [
        number in kept for number in range(1, 6)
    ]
    assert len(log.verify()) == 5


def test_the_first_reply_to_a_request_is_the_one_that_is_kept(log: ReleaseLog) -> None:
    _release(log, 1)
    log.keep_reply("request", _name(1), b"first")
    log.keep_reply("request", _name(1), b"second")
    assert log.reply("request") == b"first"
    assert log.reply("another request") is None


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM release_log WHERE sequence = 1",
        "DELETE FROM release_log WHERE sequence = 2",
        "UPDATE release_log SET entry = (SELECT entry FROM release_log WHERE sequence = 1)",
        "UPDATE release_log SET entry = x'00' WHERE sequence = 2",
        "UPDATE release_log SET entry = 'text' WHERE sequence = 2",
        "UPDATE release_log SET sequence = sequence + 10",
        "UPDATE payloads SET payload = x'00' WHERE round = 3",
    ],
)
def test_an_entry_changed_removed_or_put_in_does_not_verify(
    log: ReleaseLog, database: SiteDatabase, change: str
) -> None:
    _release(log, 1)
    log.append_refusal(study_id=STUDY, round_number=2, number="R17", ledger_head=HEAD)
    _release(log, 3)
    assert [entry.what for entry in log.verify()] == ["release", "refusal", "release"]
    with database.transaction() as connection:
        connection.execute(change)
    with pytest.raises(LedgerError, match="broken"):
        log.verify()


def test_a_transaction_that_fails_leaves_nothing_and_the_file_goes_on(
    database: SiteDatabase, log: ReleaseLog
) -> None:
    with pytest.raises(RuntimeError), database.transaction() as connection:
        connection.execute("INSERT INTO paused VALUES ('heart')")
        raise RuntimeError
    assert database.rows("SELECT * FROM paused") == []
    _release(log, 1)
    assert len(log.verify()) == 1


def test_a_full_disk_is_one_clear_error_and_nothing_is_logged(
    database: SiteDatabase, log: ReleaseLog
) -> None:
    _release(log, 1)
    (pages,) = database.rows("PRAGMA page_count")
    database.rows(f"PRAGMA max_page_count = {pages[0]}")  # SQLite then says SQLITE_FULL
    with pytest.raises(LedgerError, match="cannot be written") as caught:
        _release(log, 2, bytes(1 << 20))
    assert "free space" in caught.value.expected
    assert len(log.verify()) == 1
    assert log.payload(_name(2)) is None


def test_a_second_writer_cannot_fork_the_ledger(database: SiteDatabase) -> None:
    store = SqliteLedgerStore(database)
    store.append(1, b"first")
    for sequence in (1, 3):
        with pytest.raises(LedgerError, match="same time"):
            store.append(sequence, b"fork")
    assert store.read_all() == (b"first",)


def test_a_folder_in_the_place_of_the_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "site.db").mkdir()
    with pytest.raises(LedgerError, match="cannot be opened"):
        SiteDatabase(tmp_path / "site.db")


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "site.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(LedgerError, match="cannot be"):
        SiteDatabase(tmp_path / "site.db")


def test_what_was_committed_is_there_for_another_process(
    database: SiteDatabase, log: ReleaseLog, tmp_path: Path
) -> None:
    _release(log, 1)
    other = sqlite3.connect(tmp_path / "state" / "site.db")
    assert other.execute("SELECT COUNT(*) FROM release_log").fetchone() == (1,)
    other.close()
