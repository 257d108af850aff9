"""The one form of every signed record of monitoring that travels to all members.

Layout (docs/protocol.md, clause T1): the canonical bytes of an object with `record` and
`signatures`. What a record means is not looked into here.
"""

from __future__ import annotations

import base64
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common import limits
from common.canonical import Canonical, canonical_bytes, digest_bytes, parse_canonical
from common.crypto.keys import SigningKey, VerifyKey
from common.crypto.signing import sign, verify
from common.errors import CohortiumError, ProtocolError
from common.ids import Digest
from common.protocol.fields import Fields

_SIGNATURE_BYTES: Final = 64
_SIGNATURES_MAX: Final = 16
_SIGNER: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class NoticeKind(enum.Enum):
    """What a notice says; the value is in its record and in its signatures' label."""

    ROSTER = "roster"
    RECEIPT = "receipt"
    DECISION = "decision"
    PROMOTION = "promotion"
    CLOSING = "closing"
    PARTIAL_SUM = "partial-sum"


@dataclass(frozen=True)
class SignedNotice:
    """A notice whose form was checked and whose signatures were not.

    Args:
        kind: what it says.
        record: its content, parsed.
        record_bytes: its content, as signed.
        signatures: each signer's, by his name.
    """

    kind: NoticeKind
    record: Canonical
    record_bytes: bytes
    signatures: Mapping[str, bytes]

    @property
    def digest(self) -> Digest:
        """Names the content, however many have signed it."""
        return record_digest(self.kind, self.record_bytes)


def record_digest(kind: NoticeKind, record_bytes: bytes) -> Digest:
    """Return the digest that names a notice's content."""
    return digest_bytes(f"notice/{kind.value}", record_bytes)


def notice_record(kind: NoticeKind, content: Mapping[str, Canonical]) -> dict[str, Canonical]:
    """Return the record of a notice: its content, its kind and the version of its form."""
    return {**content, "notice": kind.value, "version": 1}


def write_signed(
    kind: NoticeKind, content: Mapping[str, Canonical], signers: Mapping[str, SigningKey]
) -> bytes:
    """Return the signed bytes of a notice; raises `ProtocolError` when they are too large."""
    record_bytes = canonical_bytes(notice_record(kind, content))
    signatures = {name: sign(key, _label(kind), record_bytes) for name, key in signers.items()}
    return _encode(notice_record(kind, content), signatures)


def add_signature(data: bytes, *, by: str, key: SigningKey) -> bytes:
    """Return a notice with one more signature over the same record; raises `ProtocolError`."""
    notice = read_signed(data)
    signature = sign(key, _label(notice.kind), notice.record_bytes)
    return _encode(notice.record, {**notice.signatures, by: signature})


def read_signed(data: bytes) -> SignedNotice:
    """Return a notice in its one form, its signatures not verified; raises `ProtocolError` T1."""
    if len(data) > limits.NOTICE_BYTES_MAX:
        raise _refuse(f"at most {limits.NOTICE_BYTES_MAX} bytes", f"{len(data)} bytes")
    try:
        outer = Fields(parse_canonical(data), "notice")
        record = outer.value("record")
        signatures = _signatures(outer)
        outer.close()
        inner = Fields(record, "notice")
        kind = NoticeKind(inner.one_of("notice", [item.value for item in NoticeKind]))
        inner.integer("version", minimum=1, maximum=1)
    except CohortiumError as error:
        raise _refuse(error.expected, error.arrived) from None
    return SignedNotice(kind, record, canonical_bytes(record), signatures)


def verify_signed(notice: SignedNotice, *, by: str, key: VerifyKey) -> None:
    """Check one signer's signature; raises `SignatureError`, also when there is none."""
    signature = notice.signatures.get(by, b"")
    verify(key, _label(notice.kind), signature, notice.record_bytes)


def content_fields(notice: SignedNotice) -> Fields:
    """Return the fields of a notice's content, without those of its form."""
    fields = Fields(notice.record, notice.kind.value)
    fields.value("notice")
    fields.value("version")
    return fields


def _encode(record: Canonical, signatures: Mapping[str, bytes]) -> bytes:
    data = canonical_bytes(
        {
            "record": record,
            "signatures": [
                {"by": name, "signature": base64.b64encode(signatures[name]).decode()}
                for name in sorted(signatures)
            ],
        }
    )
    read_signed(data)
    return data


def _signatures(outer: Fields) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for item in outer.items("signatures", count_max=_SIGNATURES_MAX):
        fields = Fields(item, "notice signature")
        name = fields.text("by", length_max=63)
        if not _SIGNER.fullmatch(name) or (found and name <= max(found)):
            raise fields.refuse("by", "names of signers, rising, each once")
        found[name] = read_base64(fields, "signature", bytes_max=_SIGNATURE_BYTES)
        fields.close()
        if len(found[name]) != _SIGNATURE_BYTES:
            raise fields.refuse("signature", f"{_SIGNATURE_BYTES} bytes")
    if not found:
        raise outer.refuse("signatures", "at least one")
    return found


def read_base64(fields: Fields, name: str, *, bytes_max: int) -> bytes:
    """Consume a field of bytes in base64, in its one form; raises `ProtocolError`."""
    text = fields.text(name, length_max=4 * (bytes_max // 3 + 1))
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        value = b""
    if base64.b64encode(value).decode() != text or len(value) > bytes_max:
        raise fields.refuse(name, f"at most {bytes_max} bytes in base64")
    return value


def _label(kind: NoticeKind) -> str:
    return f"notice/{kind.value}"


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "a notice is refused",
        expected=expected,
        arrived=arrived,
        todo="do not use it; ask its sender for it again",
        number="T1",
    )
