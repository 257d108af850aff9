"""Mechanism records from the other side: the ledger's one form, refused as protocol."""

from __future__ import annotations

from common.canonical import Canonical
from common.errors import AccountingError, ProtocolError
from common.privacy import mechanism_record
from common.privacy.mechanism import MechanismRecord


def mechanism_to_record(mechanism: MechanismRecord) -> dict[str, Canonical]:
    """Return the canonical record of a mechanism, the same as in the ledger."""
    return mechanism_record.mechanism_to_record(mechanism)


def mechanism_from_record(record: Canonical) -> MechanismRecord:
    """Return the mechanism of a canonical record; raises `ProtocolError`, an unknown kind too."""
    try:
        return mechanism_record.mechanism_from_record(record)
    except AccountingError as error:
        raise ProtocolError(
            "a mechanism record is refused",
            expected=error.expected,
            arrived=error.arrived,
            todo="use the same software version on both sides",
        ) from None
