"""The relay's store over SQLite and PostgreSQL: one suite, the same answers."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from common.canonical import digest_bytes
from common.clock import FixedClock
from common.errors import ProtocolError, StoreError
from common.ids import Digest, SiteId, StudyId
from common.protocol.monitoring.report_header import genesis
from common.protocol.monitoring.signed_notice import NoticeKind
from server.config import RelayConfig
from server.relay import SealedReport
from server.relay_notices import RelayedNotice
from server.relay_quotas import DAY_S, RelayQuotas
from server.relay_store import BODY_PART_BYTES, PAGE_BYTES, PAGE_ROWS, RelayStore
from server.storage.database import Database
from tests.lib.postgresql import postgresql_server

STUDY, NORTH = StudyId("stroke"), SiteId("north")
START = genesis(STUDY, NORTH)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    server, name = request.getfixturevalue("server"), f"relay{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    yield server.replace("postgresql://", "postgresql+psycopg://").replace(
        "/postgres?", f"/{name}?"
    )


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    built = Database(url)
    built.migrate()
    yield built
    built.engine.dispose()


@pytest.fixture
def store(database: Database) -> RelayStore:
    return RelayStore(database, FixedClock())


def _report(
    sequence: int, previous: Digest, *, text: str = "", site_id: SiteId = NORTH
) -> SealedReport:
    envelope = f"{site_id} {sequence} {text}".encode()
    digest = digest_bytes("any", envelope)
    return SealedReport((STUDY, site_id, sequence), previous, digest, envelope)


def _chain(count: int, *, site_id: SiteId = NORTH) -> list[SealedReport]:
    made: list[SealedReport] = []
    for sequence in range(1, count + 1):
        previous = made[-1].digest if made else genesis(STUDY, site_id)
        made.append(_report(sequence, previous, site_id=site_id))
    return made


def _notice(text: str, *, site_id: str = "", body: bytes = b"") -> RelayedNotice:
    content = text.encode()
    return RelayedNotice("receipt", site_id, digest_bytes("any", content), content, body)


def _everything(store: RelayStore, *, study_id: str = STUDY) -> list[bytes]:
    found: list[bytes] = []
    after = 0
    while page := store.reports_after(study_id, after, 10**6):
        found += [item.envelope for item in page]
        after = page[-1].position
    return found


def test_reports_come_back_in_order_each_once_page_by_page(store: RelayStore) -> None:
    chain = _chain(3 * PAGE_ROWS + 1)
    assert store.append_reports(chain[:5]) == [1, 2, 3, 4, 5]
    assert store.append_reports(chain[3:]) == list(range(4, len(chain) + 1))
    assert store.append_reports([chain[0], chain[0]]) == [1, 1]
    assert _everything(store) == [item.envelope for item in chain]
    assert _everything(store, study_id="") == [item.envelope for item in chain]
    assert _everything(store, study_id="another") == []
    assert len(store.reports_after(STUDY, 2, 3)) == 3


def _day(clock: FixedClock, database: Database, **limits: int) -> RelayStore:
    config = RelayConfig(port=8445, **{"report_bytes_per_day_max": 1 << 20, **limits})
    return RelayStore(database, clock, RelayQuotas(config))


def _numbers(answers: Sequence[int | Exception]) -> list[int | str]:
    return [item if isinstance(item, int) else getattr(item, "number", "") for item in answers]


def test_b14_a_site_leaves_so_many_reports_of_a_study_in_a_day_also_over_a_restart(
    database: Database,
) -> None:
    clock = FixedClock(10 * DAY_S)
    chain, [other] = _chain(6), _chain(1, site_id=SiteId("east"))
    store = _day(clock, database, reports_per_day_max=3)
    assert _numbers(store.append_reports(chain[:4])) == [1, 2, 3, "B14"]
    again = _day(clock, database, reports_per_day_max=3)
    assert _numbers(again.append_reports([chain[3], chain[0], other])) == ["B14", 1, 4]
    clock.seconds += DAY_S
    assert _numbers(again.append_reports(chain[3:])) == [5, 6, 7]


def test_b14_a_sites_day_has_so_many_bytes(database: Database) -> None:
    store = _day(FixedClock(), database)
    first, second, third = _chain(3)
    half = replace(first, envelope=bytes(1 << 19))
    large = replace(second, envelope=bytes((1 << 19) + 1))
    assert _numbers(store.append_reports([half, large])) == [1, "B14"]
    assert _numbers(store.append_reports([second, third])) == [2, 3]


def test_b14_a_board_leaves_so_many_notices_in_a_day_and_the_coordinator_any(
    database: Database,
) -> None:
    clock = FixedClock()
    store = _day(clock, database, board_notices_per_day_max=2)
    notices = [replace(_notice(f"{number}"), sender="board-a") for number in range(3)]
    others = [replace(_notice("other"), sender="board-b"), _notice("own")]
    assert _numbers(store.append_notices(notices + others)) == [1, 2, "B14", 3, 4]
    again = _day(clock, database, board_notices_per_day_max=2)
    assert _numbers(again.append_notices(notices)) == [1, 2, "B14"]
    few = _day(clock, database, board_notice_bytes_per_day_max=1 << 20)
    large = replace(_notice("x" * (1 << 20)), sender="board-c")
    small = replace(_notice("y"), sender="board-c")
    assert _numbers(few.append_notices([large, small])) == [5, "B14"]


def test_what_a_rolled_back_transaction_counted_does_not_count(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _day(FixedClock(), database, reports_per_day_max=2)
    chain = _chain(2)
    with monkeypatch.context() as patch:
        patch.setattr("server.relay_store._report_row", lambda *_: {"position": None})
        with pytest.raises(StoreError):
            store.append_reports(chain)
    assert _numbers(store.append_reports(chain)) == [1, 2]


def test_a_failed_write_of_notices_takes_no_count_from_the_thread_that_writes_reports(
    database: Database,
) -> None:
    quotas = RelayQuotas(RelayConfig(port=1, reports_per_day_max=2))
    (report,) = _chain(1)
    with quotas.counting_reports(database) as connection:
        assert quotas.refuse_report(connection, report, now_s=DAY_S) is None
        with pytest.raises(KeyboardInterrupt), quotas.counting_notices(_NoDatabase()):  # type: ignore[arg-type]
            pass
        refused = [quotas.refuse_report(connection, report, now_s=DAY_S) for _ in range(2)]
    assert [item is None for item in refused] == [True, False]


class _NoDatabase:
    """One whose write is cut short."""

    def transaction(self) -> Any:
        raise KeyboardInterrupt


def test_deleted_notices_leave_the_others_where_they_are_and_no_position_comes_twice(
    store: RelayStore,
) -> None:
    store.append_notices([_notice(f"{number}", body=b"body") for number in range(4)])
    assert store.delete_notices([1, 3, 4]) == 2
    assert [item.position for item in store.notices_after(None, 0, 10)] == [2, 4]
    assert store.body_part(1, 0) == b""
    assert store.append_notices([_notice("next")]) == [5]


def test_a_page_has_so_many_bytes_and_at_least_one_row(store: RelayStore) -> None:
    large = [
        replace(_report(1, START), envelope=bytes(2 * PAGE_BYTES)),
        replace(_report(2, digest_bytes("any", b"north 1 ")), envelope=bytes(PAGE_BYTES // 2)),
        replace(_report(9, START), envelope=bytes(PAGE_BYTES // 2)),
        replace(_report(11, START), envelope=b"one more"),
    ]
    assert store.append_reports(large) == [1, 2, 3, 4]
    pages = [[item.position for item in store.reports_after("", after, 100)] for after in (0, 1, 3)]
    assert pages == [[1], [2, 3], [4]]
    assert store.reports_after("", 4, 100) == []


def test_b8_forks_are_refused_in_one_batch_and_over_several(store: RelayStore) -> None:
    first, second, third = _chain(3)
    twin = _report(1, START, text="twin")
    orphan = _report(2, Digest("f" * 64), text="orphan")
    [one, refused, two, other] = store.append_reports([first, twin, second, orphan])
    assert (one, two) == (1, 2)
    for error in (refused, other, *store.append_reports([twin, orphan])):
        assert isinstance(error, ProtocolError)
        assert error.number == "B8"
    # After a gap, the report before it must be the one that is named.
    fifth = _report(5, Digest("e" * 64))
    assert store.append_reports([fifth]) == [3]
    [wrong] = store.append_reports([_report(4, third.digest)])
    assert isinstance(wrong, ProtocolError)
    assert store.append_reports([third]) == [4]


def test_two_sites_chains_are_apart(store: RelayStore) -> None:
    east = SiteId("east")
    assert store.append_reports([*_chain(2), *_chain(2, site_id=east)]) == [1, 2, 3, 4]


def test_a_site_gets_its_own_notices_and_everybodys_and_a_body_in_parts(
    store: RelayStore,
) -> None:
    body = bytes(range(256)) * 5000
    notices = [
        _notice("to all"),
        _notice("to north", site_id="north"),
        _notice("to east", site_id="east"),
        _notice("with parameters", body=body),
    ]
    assert store.append_notices(notices) == [1, 2, 3, 4]
    assert store.append_notices(notices[1:3]) == [2, 3]
    seen = {
        name: [item.position for item in store.notices_after(name, 0, 100)]
        for name in ("north", "east", None)
    }
    assert seen == {"north": [1, 2, 4], "east": [1, 3, 4], None: [1, 2, 3, 4]}
    assert store.notices_after(None, 3, 1)[0].body_bytes == len(body)
    parts = [store.body_part(4, part) for part in range(-(-len(body) // BODY_PART_BYTES) + 1)]
    assert b"".join(parts) == body
    assert parts[-1] == b""
    assert store.notices_of(NoticeKind.RECEIPT)[0] == b"to all"
    assert store.counts() == (0, 4)


def test_a_roster_that_is_not_verified_changes_nothing(store: RelayStore) -> None:
    def refuse(_: bytes | None) -> tuple[int, Digest]:
        raise KeyError

    assert store.pin_roster(_notice("one"), lambda _: (1, Digest("a" * 64))) == 1
    with pytest.raises(KeyError):
        store.pin_roster(_notice("two"), refuse)
    assert [item.content for item in store.rosters()] == [b"one"]
    assert store.counts() == (0, 1)
    assert store.pin_roster(_notice("one"), refuse) == 1  # the pinned one again


def test_two_writers_never_give_one_position_twice(url: str, database: Database) -> None:
    chains = {name: _chain(40, site_id=SiteId(name)) for name in ("a", "b")}
    stored: list[int] = []

    def write(name: str) -> None:
        own = Database(url)
        store = RelayStore(own, FixedClock())
        for report in chains[name]:
            position = None
            while position is None:
                try:
                    [position] = store.append_reports([report])
                except StoreError:
                    continue  # another writer was first: the same bytes again
            assert isinstance(position, int)
            stored.append(position)
        own.engine.dispose()

    threads = [threading.Thread(target=write, args=(name,)) for name in chains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(stored) == list(range(1, 81))
    assert len(_everything(RelayStore(database, FixedClock()))) == 80


def test_storing_looks_reports_up_and_never_reads_through_all_of_them(tmp_path: Path) -> None:
    # Found by the benchmark: a list of triples in one question was a scan of the whole table.
    database = Database(f"sqlite:///{tmp_path / 'store.db'}")
    database.migrate()
    asked: list[tuple[str, Any]] = []

    def listen(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        asked.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", listen)
    store = RelayStore(database, FixedClock())
    store.append_reports(_chain(3))
    store.reports_after("", 0, 10)
    store.notices_after("north", 0, 10)
    event.remove(database.engine, "before_cursor_execute", listen)
    questions = [item for item in asked if item[0].startswith("SELECT")]
    assert len(questions) >= 7
    for statement, parameters in questions:
        with database.reading() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        assert not [row for row in plan if str(row[-1]).startswith("SCAN")], statement
