"""FHM/1: one report, sealed once for several receivers and signed by its site over every byte.

Layout (docs/protocol.md, clauses F1 to F8): the magic bytes, then four frames: header (canonical
JSON), body (AES-256-GCM under a key of one use), stanzas (that key and the commitment's salt,
sealed to each receiver), signature. Whoever holds no opening key can verify everything but the
content.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common import limits
from common.canonical import digest_bytes
from common.crypto.keys import (
    HYBRID_SUITE,
    X25519_SUITE,
    AnyOpeningKey,
    AnySealingKey,
    SigningKey,
    VerifyKey,
)
from common.crypto.sealing import open_sealed, seal
from common.crypto.signing import sign, verify
from common.errors import SealError
from common.ids import Digest
from common.protocol.frames import join_frames, split_frames
from common.protocol.monitoring.refusals import numbered, refusal
from common.protocol.monitoring.report_header import (
    VERSION,
    ReportDraft,
    ReportHeader,
    decode_header,
    encode_header,
)

MAGIC: Final = b"FHM1"
STANZA_BYTES: Final = {X25519_SUITE: 32 + 64 + 16, HYBRID_SUITE: 1120 + 64 + 16}
_LABEL: Final = "report"
_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16
_NONCE: Final = bytes(12)  # each content key seals one body


@dataclass(frozen=True)
class _Parts:
    head: bytes
    body: bytes
    stanzas: bytes
    signature: bytes


def seal_report(
    content: bytes,
    draft: ReportDraft,
    *,
    signing_key: SigningKey,
    recipients: Sequence[AnySealingKey],
) -> bytes:
    """Return the envelope of one report.

    Args:
        content: the plaintext, as `join_content` makes it.
        draft: what the site says of it.
        signing_key: the site's, of the draft's epoch.
        recipients: sealing keys of one suite, in any order.

    Raises:
        ProtocolError: a header, size or mixture of suites that receivers would refuse.
    """
    suites = {key.suite for key in recipients}
    if len(suites) != 1:
        raise refusal("B4", expected="receivers of one suite", arrived=f"{len(suites)} suites")
    in_order = sorted(recipients, key=lambda key: key.fingerprint)
    content_key, salt = secrets.token_bytes(_KEY_BYTES), secrets.token_bytes(_KEY_BYTES)
    header = ReportHeader(
        **asdict(draft),
        version=VERSION,
        suite=suites.pop(),
        recipients=tuple(key.fingerprint for key in in_order),
        body_bytes=len(content),
        commitment=_commitment(salt, content),
    )
    head = encode_header(header)
    decode_header(head)
    bound = _header_digest(head)
    body = AESGCM(content_key).encrypt(_NONCE, content, bound)
    stanzas = b"".join(
        seal(content_key + salt, to=key, label=_LABEL, context=bound + key.fingerprint.encode())
        for key in in_order
    )
    signature = sign(signing_key, _LABEL, head, body, stanzas)
    envelope = join_frames([head, body, stanzas, signature], magic=MAGIC)
    _split(envelope)
    return envelope


def read_report_header(envelope: bytes) -> ReportHeader:
    """Return a report's header, nothing verified; raises `ProtocolError` B1, B4, B13."""
    return _read(envelope)[1]


def verify_report(envelope: bytes, *, verify_key: VerifyKey) -> ReportHeader:
    """Return the header of a report that its site signed; what a relay without keys can check.

    Checks, in this order: (1) size, (2) shape and header, (3) known suite and the lengths that
    follow from the header, (4) signature over all bytes.

    Raises:
        ProtocolError: B13, B1, B4.
        SignatureError: B2.
    """
    return verify_report_by(envelope, lambda _: verify_key)


def verify_report_by(envelope: bytes, key_of: Callable[[ReportHeader], VerifyKey]) -> ReportHeader:
    """Return the header of a report that is signed by the key which its header calls for.

    The checks of `verify_report`, and their errors; `key_of` comes before the signature, and what
    it raises ends them.
    """
    parts, header = _read(envelope)
    verify_key = key_of(header)
    with numbered("B2"):
        verify(verify_key, _LABEL, parts.signature, parts.head, parts.body, parts.stanzas)
    return header


def open_report(
    envelope: bytes, *, verify_key: VerifyKey, opening_key: AnyOpeningKey
) -> tuple[ReportHeader, bytes]:
    """Return header and plaintext of a report.

    After the checks of `verify_report`: (5) there is a stanza for this key, (6) stanza and body
    open, (7) the plaintext is the one that the site committed to, the same for every receiver.

    Raises:
        ProtocolError: B13, B1, B4; B5 for check 5, B6 for check 7.
        SignatureError: B2.
        SealError: B5 for check 6.
    """
    header = verify_report(envelope, verify_key=verify_key)
    parts, _ = _read(envelope)
    fingerprint = opening_key.fingerprint
    if fingerprint not in header.recipients or opening_key.suite != header.suite:
        raise refusal("B5", expected=f"a stanza for key {fingerprint}", arrived="none")
    size = STANZA_BYTES[header.suite]
    place = header.recipients.index(fingerprint) * size
    bound = _header_digest(parts.head)
    with numbered("B5"):
        secret = open_sealed(
            parts.stanzas[place : place + size],
            key=opening_key,
            label=_LABEL,
            context=bound + fingerprint.encode(),
        )
        plaintext = _open_body(secret[:_KEY_BYTES], parts.body, bound)
    if not hmac.compare_digest(_commitment(secret[_KEY_BYTES:], plaintext), header.commitment):
        raise refusal(
            "B6",
            expected="the plaintext that the site committed to in the signed header",
            arrived="another plaintext: the site shows its receivers different reports",
            todo="keep the envelope as evidence; compare with the other receivers",
        )
    return header, plaintext


def report_digest(envelope: bytes) -> Digest:
    """Return the digest that names one report, byte for byte; the next one's `previous`."""
    return digest_bytes("report-envelope", envelope)


def _read(envelope: bytes) -> tuple[_Parts, ReportHeader]:
    parts = _split(envelope)
    with numbered("B1"):
        header = decode_header(parts.head)
    if header.suite not in STANZA_BYTES:
        raise refusal("B4", expected="a suite we know", arrived=f"suite {header.suite}")
    expected = (header.body_bytes + _TAG_BYTES, len(header.recipients) * STANZA_BYTES[header.suite])
    if (len(parts.body), len(parts.stanzas)) != expected:
        raise refusal("B1", expected="the lengths that the header states", arrived="other lengths")
    return parts, header


def _split(envelope: bytes) -> _Parts:
    if len(envelope) > limits.REPORT_BYTES_MAX:
        raise refusal(
            "B13",
            expected=f"at most {limits.REPORT_BYTES_MAX} bytes",
            arrived=f"{len(envelope)} bytes",
        )
    if envelope[: len(MAGIC)] != MAGIC:
        raise refusal("B1", expected="an envelope of version FHM1", arrived="other bytes")
    with numbered("B1"):
        frames = split_frames(memoryview(envelope)[len(MAGIC) :], count=4)
    if len(frames[0]) > limits.HEADER_BYTES_MAX:
        raise refusal(
            "B1", expected=f"a header of at most {limits.HEADER_BYTES_MAX} bytes", arrived="more"
        )
    return _Parts(*(bytes(frame) for frame in frames))


def _header_digest(head: bytes) -> bytes:
    return digest_bytes("report-header", head).encode("ascii")


def _commitment(salt: bytes, plaintext: bytes) -> Digest:
    return digest_bytes("report-commitment", salt, plaintext)


def _open_body(content_key: bytes, body: bytes, bound: bytes) -> bytes:
    try:
        return AESGCM(content_key).decrypt(_NONCE, body, bound)
    except InvalidTag:
        raise SealError(
            "a report's body does not open",
            expected="a body sealed under this header with the key in the stanza",
            arrived="a body sealed otherwise",
            todo="do not use it; ask the site",
        ) from None
