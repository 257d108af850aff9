"""Who promoted which model version: aliases over an append-only, signed, hash-chained log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, insert, select

from common.canonical import Canonical, canonical_bytes, digest_bytes, parse_canonical
from common.clock import Clock
from common.crypto.keys import SigningKey
from common.crypto.signing import sign, verify
from common.errors import CohortiumError, RegistryError
from common.ids import Digest
from server.storage.database import Database
from server.storage.tables import model_actions

_LABEL: Final = "model-action"
GENESIS: Final = digest_bytes("model-actions-genesis")


@dataclass(frozen=True)
class ModelAction:
    """One entry: `promote` makes a version champion, `rollback` brings the previous one back."""

    sequence: int
    action: str
    version: str
    person: str
    reason: str
    at_s: int
    digest: Digest


class ModelActions:
    """Promote, roll back, and say which version is `champion` and which `previous`.

    Args:
        key: the coordinator's; an entry that it did not sign breaks the log, and a broken log has
            no champion.
    """

    def __init__(self, database: Database, clock: Clock, key: SigningKey) -> None:
        self._database = database
        self._clock = clock
        self._key = key

    def promote(self, version: Digest, *, person: str, reason: str) -> None:
        """Make a version the champion; raises `RegistryError` if it already is."""
        if self.aliases().get("champion") == version:
            raise RegistryError(
                "nothing to promote",
                expected="a version that is not the champion",
                arrived=version,
                todo="look at `cohortium-coordinator models list`",
            )
        self._append("promote", version, person, reason)

    def rollback(self, *, person: str, reason: str) -> Digest:
        """Make the previous champion the champion again; raises `RegistryError` if none is."""
        previous = self.aliases().get("previous")
        if previous is None:
            raise RegistryError(
                "nothing to roll back to",
                expected="a previous champion",
                arrived="none",
                todo="promote a version instead",
            )
        self._append("rollback", previous, person, reason)
        return previous

    def aliases(self) -> dict[str, Digest]:
        """Return the aliases that exist: `champion` and `previous`."""
        champions = [Digest(action.version) for action in self.log()]
        aliases: dict[str, Digest] = {}
        if champions:
            aliases["champion"] = champions[-1]
        earlier = [version for version in champions if version != champions[-1]]
        if earlier:
            aliases["previous"] = earlier[-1]
        return aliases

    def log(self) -> tuple[ModelAction, ...]:
        """Return all entries, oldest first.

        Raises:
            RegistryError: when the chain is broken or a signature does not verify.
        """
        with self._database.transaction() as connection:
            return self._read(connection)

    def _append(self, action: str, version: Digest, person: str, reason: str) -> None:
        with self._database.transaction() as connection:
            log = self._read(connection)
            entry: dict[str, Canonical] = {
                "action": action,
                "at_s": self._clock.now_s(),
                "person": person,
                "previous": log[-1].digest if log else GENESIS,
                "reason": reason,
                "sequence": len(log) + 1,
                "version": version,
            }
            content = canonical_bytes(entry)
            # The sequence is the primary key: two writers cannot fork the chain.
            connection.execute(
                insert(model_actions).values(
                    sequence=len(log) + 1,
                    entry=content,
                    signature=sign(self._key, _LABEL, content),
                )
            )

    def _read(self, connection: Connection) -> tuple[ModelAction, ...]:
        rows = connection.execute(select(model_actions).order_by(model_actions.c.sequence)).all()
        actions: list[ModelAction] = []
        head = GENESIS
        for number, row in enumerate(rows, start=1):
            try:
                entry = parse_canonical(row.entry)
                verify(self._key.verify_key, _LABEL, row.signature, row.entry)
            except CohortiumError:
                raise _broken(number) from None
            is_next = (
                isinstance(entry, dict)
                and entry.get("sequence") == number == row.sequence
                and entry.get("previous") == head
            )
            if not is_next or not isinstance(entry, dict):
                raise _broken(number)
            head = digest_bytes("model-action", row.entry)
            actions.append(
                ModelAction(
                    sequence=number,
                    action=str(entry["action"]),
                    version=str(entry["version"]),
                    person=str(entry["person"]),
                    reason=str(entry["reason"]),
                    at_s=int(str(entry["at_s"])),
                    digest=head,
                )
            )
        return tuple(actions)


def _broken(number: int) -> RegistryError:
    return RegistryError(
        f"the model action log is broken at entry {number}",
        expected="an unbroken chain of signed entries",
        arrived="an entry that was changed, removed or put in",
        todo="restore the coordinator's database from its backup and find out who changed it",
    )
