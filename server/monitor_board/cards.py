"""Cards: the public keys of a board or a decider, signed by himself, for the roster's authority.

A card proves that whoever made it holds the keys in it; whose keys they are, two people compare by
telephone, by the fingerprint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field

from common.canonical import canonical_bytes
from common.crypto.keys import AnySealingKey, SigningKey, VerifyKey, parse_sealing_key
from common.crypto.signing import verify
from common.errors import CohortiumError, EnrolmentError
from common.protocol.enrolment_records import KeyText, Record, Slug
from common.protocol.signed_file import read_record, write_record
from server.monitor_board.config import Role

_BOARD_LABEL: Final = "board-card"
_DECIDER_LABEL: Final = "decider-card"


class BoardCard(Record):
    """A board's or aggregator's public keys."""

    version: Literal[1]
    board_id: Slug
    role: Role
    suite: Annotated[int, Field(ge=1, le=255)]
    sealing_key: KeyText
    verify_key: KeyText


class DeciderCard(Record):
    """A decider's public key; `name` is how he signs."""

    version: Literal[1]
    name: Slug
    verify_key: KeyText


CardT = TypeVar("CardT", BoardCard, DeciderCard)


def write_board_card(
    path: Path, *, board_id: str, role: Role, sealing_key: AnySealingKey, key: SigningKey
) -> BoardCard:
    """Write a board's card; raises `EnrolmentError`."""
    card = BoardCard(
        version=1,
        board_id=board_id,
        role=role,
        suite=sealing_key.suite,
        sealing_key=sealing_key.to_text(),
        verify_key=key.verify_key.to_text(),
    )
    write_record(path, card, key, _BOARD_LABEL)
    return card


def write_decider_card(path: Path, *, name: str, key: SigningKey) -> DeciderCard:
    """Write a decider's card; raises `EnrolmentError`."""
    card = DeciderCard(version=1, name=name, verify_key=key.verify_key.to_text())
    write_record(path, card, key, _DECIDER_LABEL)
    return card


def read_board_card(path: Path) -> BoardCard:
    """Read a board's card; raises `EnrolmentError` unless its own key signed it."""
    card = _read(path, BoardCard, _BOARD_LABEL)
    try:
        parse_sealing_key(card.suite, card.sealing_key)
    except CohortiumError as error:
        raise _refused(error) from None
    return card


def read_decider_card(path: Path) -> DeciderCard:
    """Read a decider's card; raises `EnrolmentError` unless its own key signed it."""
    return _read(path, DeciderCard, _DECIDER_LABEL)


def _read(path: Path, model: type[CardT], label: str) -> CardT:
    card, signature = read_record(model, path)
    try:
        key = VerifyKey.from_text(card.verify_key)
        verify(key, label, signature, canonical_bytes(card.model_dump(mode="json")))
    except CohortiumError as error:
        raise _refused(error) from None
    return card


def _refused(error: CohortiumError) -> EnrolmentError:
    return EnrolmentError(
        "a card is refused",
        expected=error.expected,
        arrived=error.arrived,
        todo="ask its holder for it again",
    )
