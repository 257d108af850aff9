"""The check key of secure sums, from the authority to each site and board and to nobody else.

Record: docs/protocol.md, clause V5. Aggregators hold no copy: with the key they could change a sum
and its tag together.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from common import limits
from common.canonical import Canonical, digest_bytes
from common.crypto.keys import AnyOpeningKey, AnySealingKey
from common.crypto.sealing import open_sealed, seal
from common.errors import ProtocolError
from common.ids import Digest, parse_digest
from common.protocol.fields import Fields
from common.protocol.monitoring.report_header import NUMBER_MAX
from common.protocol.monitoring.sealed_copies import sealed_from_fields, sealed_to_record
from common.secure_sum.check_tag import CHECK_KEY_BYTES

_LABEL: Final = "check-key"
_SEALED_BYTES_MAX: Final = 4096
_MEMBERS_MAX: Final = limits.SITES_MAX + limits.ROSTER_BOARDS_MAX


@dataclass(frozen=True, repr=False)
class CheckKey:
    """A key that sites and boards share.

    Args:
        number: 1, 2, ...; a member takes no lower one than it has.
        raw: 32 bytes.
    """

    number: int
    raw: bytes

    @classmethod
    def generate(cls, number: int) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(number, secrets.token_bytes(CHECK_KEY_BYTES))

    @property
    def commitment(self) -> Digest:
        """What everybody may know of it."""
        return digest_bytes("check-key", self.raw)

    def __repr__(self) -> str:
        return f"CheckKey({self.number}, {self.commitment[:8]})"


@dataclass(frozen=True)
class SealedCheckKey:
    """A check key as it travels to all members; signed by the authority.

    Args:
        number, commitment: of the key.
        sealed: for each member, the fingerprint of its sealing key and what it opens.
    """

    number: int
    commitment: Digest
    sealed: tuple[tuple[str, bytes], ...]


def seal_check_key(check_key: CheckKey, *, members: Sequence[AnySealingKey]) -> SealedCheckKey:
    """Return a check key sealed to each member."""
    context = _context(check_key.number, check_key.commitment)
    sealed = (
        (member.fingerprint, seal(check_key.raw, to=member, label=_LABEL, context=context))
        for member in members
    )
    return SealedCheckKey(check_key.number, check_key.commitment, tuple(sorted(sealed)))


def open_check_key(sealed: SealedCheckKey, *, key: AnyOpeningKey) -> CheckKey:
    """Return the key that the authority sealed to a member.

    Raises:
        ProtocolError: none for this member, or another key than every member gets.
        SealError: it does not open.
    """
    found = dict(sealed.sealed).get(key.fingerprint)
    if found is None:
        raise _refuse(f"one sealed to key {key.fingerprint}", "one sealed to others")
    context = _context(sealed.number, sealed.commitment)
    opened = CheckKey(sealed.number, open_sealed(found, key=key, label=_LABEL, context=context))
    if len(opened.raw) != CHECK_KEY_BYTES or opened.commitment != sealed.commitment:
        raise _refuse("the key that every member gets", "another one")
    return opened


def check_key_to_record(sealed: SealedCheckKey) -> dict[str, Canonical]:
    """Return the content of a check key's notice."""
    return {
        "commitment": sealed.commitment,
        "number": sealed.number,
        "sealed": sealed_to_record(sealed.sealed),
    }


def check_key_from_fields(fields: Fields) -> SealedCheckKey:
    """Consume the fields of a check key's notice; raises `ProtocolError`."""
    return SealedCheckKey(
        number=fields.integer("number", minimum=1, maximum=NUMBER_MAX),
        commitment=parse_digest(fields.text("commitment")),
        sealed=sealed_from_fields(fields, count_max=_MEMBERS_MAX, bytes_max=_SEALED_BYTES_MAX),
    )


def _context(number: int, commitment: Digest) -> bytes:
    return f"{number}/{commitment}".encode("ascii")


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "a check key is refused",
        expected=expected,
        arrived=arrived,
        todo="ask the consortium's authority for it again",
    )
