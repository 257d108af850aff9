"""The signed and sealed wrapper that binds sender, receiver, study, site and round.

Layout (docs/protocol.md, clauses E1 to E9): the magic bytes, then three frames: header (canonical
JSON), sealed body, signature. The body is sealed to the receiver under the header's digest; the
signature covers header and body. So a relay may read the header and check the signature, but can
neither open the body, nor change the header, nor move the body under another header.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from common import limits
from common.canonical import canonical_bytes, digest_bytes, parse_canonical
from common.crypto.keys import OpeningKey, SealingKey, SigningKey, VerifyKey
from common.crypto.sealing import open_sealed, seal
from common.crypto.signing import sign, verify
from common.errors import ProtocolError
from common.ids import Digest, parse_request_id, parse_site_id, parse_study_id
from common.protocol.fields import Fields
from common.protocol.frames import join_frames, split_frames
from common.protocol.messages import Direction, EnvelopeHeader

MAGIC: Final = b"CHE1"
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{4}(?: [0-9a-f]{4}){7}")
_TIME_MAX: Final = 2**40
_OVERHEAD_BYTES_MAX: Final = limits.HEADER_BYTES_MAX + 4096  # header, seal, signature, lengths


def seal_envelope(
    header: EnvelopeHeader, plaintext: bytes, *, signing_key: SigningKey, recipient: SealingKey
) -> bytes:
    """Return the envelope of `plaintext` for one receiver.

    Args:
        header: its fingerprints must be those of the two keys given.
        plaintext: encoded message.
        signing_key: the sender's.
        recipient: the receiver's sealing key.

    Raises:
        ProtocolError: the header or the size is one that the receiver would refuse.
    """
    _check_fingerprints(header, signing_key.fingerprint, recipient.fingerprint)
    head = _header_bytes(header)
    _parse_header(head)
    if len(plaintext) > limits.ENVELOPE_BYTES_MAX - _OVERHEAD_BYTES_MAX:
        raise _refuse(
            f"at most {limits.ENVELOPE_BYTES_MAX - _OVERHEAD_BYTES_MAX} bytes of content",
            f"{len(plaintext)} bytes",
        )
    label = f"envelope/{header.direction.value}"
    body = seal(plaintext, to=recipient, label=label, context=head)
    signature = sign(signing_key, label, head, body)
    return join_frames([head, body, signature], magic=MAGIC)


def read_header(data: bytes) -> EnvelopeHeader:
    """Return an envelope's header, nothing verified; raises `ProtocolError`."""
    return _parse_header(bytes(_split(data)[0]))


def open_envelope(
    data: bytes, *, verify_key: VerifyKey, opening_key: OpeningKey, direction: Direction
) -> tuple[EnvelopeHeader, bytes]:
    """Return header and plaintext of an envelope.

    Checks, in this order: (1) shape and size, (2) header fields, (3) direction, (4) fingerprints,
    (5) signature, (6) seal.

    Raises:
        ProtocolError: checks 1 to 4.
        SignatureError: check 5.
        SealError: check 6.
    """
    head, body, signature = _split(data)
    head_bytes = bytes(head)
    header = _parse_header(head_bytes)
    if header.direction is not direction:
        raise _refuse(f"a {direction.value}", f"a {header.direction.value}")
    _check_fingerprints(header, verify_key.fingerprint, opening_key.fingerprint)
    label = f"envelope/{direction.value}"
    sealed = bytes(body)
    verify(verify_key, label, bytes(signature), head_bytes, sealed)
    return header, open_sealed(sealed, key=opening_key, label=label, context=head_bytes)


def check_fresh(header: EnvelopeHeader, now_s: int) -> None:
    """Refuse an envelope that has expired or was issued in the future; raises `ProtocolError` R4.

    The sender's clock may differ from ours by `CLOCK_SKEW_S_MAX` either way. An envelope that is
    accepted for that much longer gains nothing: the same request gets the same reply.
    """
    skew_s = limits.CLOCK_SKEW_S_MAX
    is_fresh = (
        header.issued_at_s - skew_s <= now_s <= header.expires_at_s + skew_s
        and 0 <= header.expires_at_s - header.issued_at_s <= limits.REQUEST_AGE_S_MAX
    )
    if not is_fresh:
        raise ProtocolError(
            "an envelope is too old or comes from the future",
            expected=f"issued before and expiring after {now_s} (seconds since 1970), "
            f"give or take {skew_s} s",
            arrived=f"issued {header.issued_at_s}, expires {header.expires_at_s}",
            todo="compare the clocks of the two machines; ask again",
            number="R4",
        )


def envelope_digest(data: bytes) -> Digest:
    """Return the digest that names one envelope, byte for byte."""
    return digest_bytes("envelope", data)


def _split(data: bytes) -> list[memoryview]:
    if len(data) > limits.ENVELOPE_BYTES_MAX:
        raise _refuse(f"at most {limits.ENVELOPE_BYTES_MAX} bytes", f"{len(data)} bytes")
    if data[: len(MAGIC)] != MAGIC:
        raise _refuse("an envelope of version CHE1", "other bytes")
    frames = split_frames(memoryview(data)[len(MAGIC) :], count=3)
    if len(frames[0]) > limits.HEADER_BYTES_MAX:
        raise _refuse(f"a header of at most {limits.HEADER_BYTES_MAX} bytes", "a larger one")
    return frames


def _header_bytes(header: EnvelopeHeader) -> bytes:
    return canonical_bytes(
        {
            "direction": header.direction.value,
            "expires_at_s": header.expires_at_s,
            "issued_at_s": header.issued_at_s,
            "recipient": header.recipient_fingerprint,
            "request_id": header.request_id,
            "round": header.round_number,
            "sender": header.sender_fingerprint,
            "site": header.site_id,
            "study": header.study_id,
            "version": 1,
        }
    )


# Routing, turn and opening each read the header of one envelope.
@lru_cache(maxsize=64)
def _parse_header(head: bytes) -> EnvelopeHeader:
    fields = Fields(parse_canonical(head), "envelope header")
    fields.integer("version", minimum=1, maximum=1)
    direction = fields.text("direction")
    if direction not in tuple(item.value for item in Direction):
        raise fields.refuse("direction", "request or reply")
    header = EnvelopeHeader(
        direction=Direction(direction),
        study_id=parse_study_id(fields.text("study")),
        site_id=parse_site_id(fields.text("site")),
        round_number=fields.integer("round", minimum=0, maximum=limits.ROUNDS_MAX + 1),
        request_id=parse_request_id(fields.text("request_id")),
        issued_at_s=fields.integer("issued_at_s", minimum=0, maximum=_TIME_MAX),
        expires_at_s=fields.integer("expires_at_s", minimum=0, maximum=_TIME_MAX),
        sender_fingerprint=_fingerprint(fields, "sender"),
        recipient_fingerprint=_fingerprint(fields, "recipient"),
    )
    fields.close()
    if _header_bytes(header) != head:
        raise _refuse("the one byte form of this header", "another form")
    return header


def _fingerprint(fields: Fields, name: str) -> str:
    text = fields.text(name, length_max=64)
    if not _FINGERPRINT.fullmatch(text):
        raise fields.refuse(name, "eight groups of four hexadecimal digits")
    return text


def _check_fingerprints(header: EnvelopeHeader, sender: str, recipient: str) -> None:
    if header.sender_fingerprint != sender:
        raise _refuse(f"a message from key {sender}", f"one from {header.sender_fingerprint!r}")
    if header.recipient_fingerprint != recipient:
        raise _refuse(f"a message to key {recipient}", f"one to {header.recipient_fingerprint!r}")


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "an envelope is refused",
        expected=expected,
        arrived=arrived,
        todo="check that both sides hold each other's current keys; send it again",
    )
