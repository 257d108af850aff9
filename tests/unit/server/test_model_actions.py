"""Promotions and rollbacks: aliases over a signed chain in which every change is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, select, update

from common.canonical import canonical_bytes, parse_canonical
from common.clock import FixedClock
from common.crypto.keys import SigningKey
from common.crypto.signing import sign
from common.errors import RegistryError, StoreError
from common.ids import Digest
from server.registry.actions import GENESIS, ModelActions
from server.storage.database import Database
from server.storage.tables import model_actions

KEY, OTHER_KEY = SigningKey.generate(), SigningKey.generate()
FIRST, SECOND, THIRD = (Digest(letter * 64) for letter in "abc")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path / 'c.db'}")
    database.migrate()
    return database


@pytest.fixture
def actions(database: Database) -> ModelActions:
    return ModelActions(database, FixedClock(), KEY)


def _promote(actions: ModelActions, version: Digest) -> None:
    actions.promote(version, person="Dr. North", reason="better AUROC")


def _rollback(actions: ModelActions) -> Digest:
    return actions.rollback(person="Dr. South", reason="drift")


def test_without_actions_there_is_no_alias(actions: ModelActions) -> None:
    assert actions.aliases() == {}
    assert actions.log() == ()


def test_promoting_makes_a_champion_and_then_a_previous_one(actions: ModelActions) -> None:
    _promote(actions, FIRST)
    assert actions.aliases() == {"champion": FIRST}
    _promote(actions, SECOND)
    assert actions.aliases() == {"champion": SECOND, "previous": FIRST}
    _promote(actions, THIRD)
    assert actions.aliases() == {"champion": THIRD, "previous": SECOND}


def test_promoting_the_champion_is_refused(actions: ModelActions) -> None:
    _promote(actions, FIRST)
    with pytest.raises(RegistryError):
        _promote(actions, FIRST)
    assert len(actions.log()) == 1


def test_rolling_back_exchanges_champion_and_previous(actions: ModelActions) -> None:
    _promote(actions, FIRST)
    _promote(actions, SECOND)
    assert _rollback(actions) == FIRST
    assert actions.aliases() == {"champion": FIRST, "previous": SECOND}


@pytest.mark.parametrize("promoted", [(), (FIRST,)])
def test_rolling_back_to_nothing_is_refused(
    promoted: tuple[Digest, ...], actions: ModelActions
) -> None:
    for version in promoted:
        _promote(actions, version)
    with pytest.raises(RegistryError):
        _rollback(actions)
    assert len(actions.log()) == len(promoted)


def test_the_log_says_who_did_what_when_and_why(actions: ModelActions) -> None:
    _promote(actions, FIRST)
    _promote(actions, SECOND)
    _rollback(actions)
    log = actions.log()
    assert [(item.sequence, item.action, item.version) for item in log] == [
        (1, "promote", FIRST),
        (2, "promote", SECOND),
        (3, "rollback", FIRST),
    ]
    assert (log[2].person, log[2].reason, log[2].at_s) == (
        "Dr. South",
        "drift",
        FixedClock().seconds,
    )


def _changed(connection: Connection, sequence: int, **values: object) -> bytes:
    entry = connection.execute(
        select(model_actions.c.entry).where(model_actions.c.sequence == sequence)
    ).scalar_one()
    record = parse_canonical(entry)
    assert isinstance(record, dict)
    return canonical_bytes({**record, **values})  # type: ignore[dict-item]


def _set(connection: Connection, number: int, /, **values: object) -> None:
    where = model_actions.c.sequence == number
    connection.execute(update(model_actions).where(where).values(**values))


def _remove(connection: Connection, sequence: int) -> None:
    connection.execute(delete(model_actions).where(model_actions.c.sequence == sequence))


def _renumbered(connection: Connection) -> None:
    _remove(connection, 1)
    for sequence in (2, 3):
        _set(connection, sequence, sequence=sequence - 1)


def _swapped(connection: Connection) -> None:
    for before, after in ((1, 9), (2, 1), (9, 2)):
        _set(connection, before, sequence=after)


def _signed_by_another(connection: Connection) -> None:
    entry = _changed(connection, 3, version=THIRD)
    _set(connection, 3, entry=entry, signature=sign(OTHER_KEY, "model-action", entry))


TAMPERED: dict[str, Callable[[Connection], None]] = {
    "another version in the first": lambda to: _set(to, 1, entry=_changed(to, 1, version=THIRD)),
    "another person in the last": lambda to: _set(
        to, 3, entry=_changed(to, 3, person="Dr. Nobody")
    ),
    "the first removed": lambda to: _remove(to, 1),
    "the middle removed": lambda to: _remove(to, 2),
    "the first removed and the rest renumbered": _renumbered,
    "two swapped": _swapped,
    "the last changed and signed by another": _signed_by_another,
    "no JSON": lambda to: _set(to, 2, entry=b"x"),
    "an empty signature": lambda to: _set(to, 2, signature=b""),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_changed_removed_or_moved_entry_is_seen(
    name: str, database: Database, actions: ModelActions
) -> None:
    _promote(actions, FIRST)
    _promote(actions, SECOND)
    _rollback(actions)
    with database.transaction() as connection:
        TAMPERED[name](connection)
    with pytest.raises(RegistryError) as caught:
        actions.log()
    assert "backup" in caught.value.todo


@pytest.mark.parametrize("name", TAMPERED)
def test_nothing_is_promoted_or_called_champion_on_a_broken_log(
    name: str, database: Database, actions: ModelActions
) -> None:
    _promote(actions, FIRST)
    _promote(actions, SECOND)
    _rollback(actions)
    with database.transaction() as connection:
        TAMPERED[name](connection)
    with pytest.raises(RegistryError):
        _promote(actions, THIRD)
    with pytest.raises(RegistryError):
        actions.aliases()


def test_another_key_verifies_nothing(database: Database, actions: ModelActions) -> None:
    _promote(actions, FIRST)
    with pytest.raises(RegistryError):
        ModelActions(database, FixedClock(), OTHER_KEY).log()


def test_the_first_entry_follows_the_genesis(database: Database, actions: ModelActions) -> None:
    _promote(actions, FIRST)
    with database.transaction() as connection:
        entry = parse_canonical(connection.execute(select(model_actions.c.entry)).scalar_one())
    assert isinstance(entry, dict)
    assert entry["previous"] == GENESIS


def test_two_entries_never_have_the_same_number(database: Database, actions: ModelActions) -> None:
    _promote(actions, FIRST)
    with pytest.raises(StoreError), database.transaction() as connection:
        connection.execute(model_actions.insert().values(sequence=1, entry=b"{}", signature=b""))
