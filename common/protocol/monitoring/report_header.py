"""What a report says of itself to everybody on its way: one canonical record, never a count.

Layout: docs/protocol.md, clauses F2 and F3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from common import limits
from common.canonical import canonical_bytes, digest_bytes, parse_canonical
from common.ids import Digest, SiteId, StudyId, parse_digest, parse_site_id, parse_study_id
from common.protocol.fields import Fields

VERSION: Final = 1
REFERENCE: Final = "reference"
SHARE_A: Final = "share-a"
SHARE_B: Final = "share-b"
KINDS: Final = (REFERENCE, "case-mix", "outcome", SHARE_A, SHARE_B)
PERIOD: Final = re.compile(
    r"reference|[0-9]{4}-(?:(?:0[1-9]|1[0-2])|Q[1-4]|W(?:0[1-9]|[1-4][0-9]|5[0-3]))"
)
FINGERPRINT: Final = re.compile(r"[0-9a-f]{4}(?: [0-9a-f]{4}){7}")
NUMBER_MAX: Final = 2**40
BLOCK_BYTES: Final = 4096


@dataclass(frozen=True)
class ReportDraft:
    """What a site says of a report before it is sealed; the seal adds the rest of the header.

    Args:
        study_id, site_id: whose report it is.
        key_epoch: of the site's signing key, as the roster says.
        kind: one of `KINDS`; a share's kind of report is in its content only.
        period: `reference`, or a calendar period: `2026-W07`, `2026-02`, `2026-Q1`.
        sequence: 1, 2, ... per study and site.
        previous: digest of the site's envelope before this one; `genesis` before the first.
        model_version: of the model that was scored.
        schema: `schema_digest` of the plan for this kind of report.
        roster: digest of the roster that names the receivers.
        sealed_at_s: seconds since 1970, the site's clock.
    """

    study_id: StudyId
    site_id: SiteId
    key_epoch: int
    kind: str
    period: str
    sequence: int
    previous: Digest
    model_version: Digest
    schema: Digest
    roster: Digest
    sealed_at_s: int


@dataclass(frozen=True)
class ReportHeader(ReportDraft):
    """The public header of one report.

    Args:
        version: 1.
        suite: of the seals: 1 X25519, 2 ML-KEM-768 with X25519; HKDF-SHA256 and AES-256-GCM.
        recipients: fingerprints of the sealing keys, rising, in the order of the stanzas.
        body_bytes: length of the plaintext, a multiple of 4096 that the schema determines.
        commitment: H("report-commitment", salt, plaintext); only receivers know the salt.
    """

    version: int
    suite: int
    recipients: tuple[str, ...]
    body_bytes: int
    commitment: Digest


def genesis(study_id: StudyId, site_id: SiteId) -> Digest:
    """Return what the first report of a site in a study names as the one before it."""
    return digest_bytes("monitoring-genesis", study_id.encode(), site_id.encode())


def encode_header(header: ReportHeader) -> bytes:
    """Return the canonical bytes of a header."""
    return canonical_bytes({**vars(header), "recipients": list(header.recipients)})


def decode_header(data: bytes) -> ReportHeader:
    """Return the header in canonical bytes; raises `ProtocolError`."""
    fields = Fields(parse_canonical(data), "report header")
    kind = fields.one_of("kind", KINDS)
    header = ReportHeader(
        version=fields.integer("version", minimum=VERSION, maximum=VERSION),
        suite=fields.integer("suite", minimum=1, maximum=255),
        study_id=parse_study_id(fields.text("study_id")),
        site_id=parse_site_id(fields.text("site_id")),
        key_epoch=fields.integer("key_epoch", minimum=1, maximum=NUMBER_MAX),
        kind=kind,
        period=read_period(fields, kind),
        sequence=fields.integer("sequence", minimum=1, maximum=NUMBER_MAX),
        previous=parse_digest(fields.text("previous")),
        model_version=parse_digest(fields.text("model_version")),
        schema=parse_digest(fields.text("schema")),
        roster=parse_digest(fields.text("roster")),
        recipients=_recipients(fields),
        body_bytes=fields.integer("body_bytes", minimum=1, maximum=limits.REPORT_BYTES_MAX),
        commitment=parse_digest(fields.text("commitment")),
        sealed_at_s=fields.integer("sealed_at_s", minimum=0, maximum=NUMBER_MAX),
    )
    fields.close()
    if header.body_bytes % BLOCK_BYTES:
        raise fields.refuse("body_bytes", f"a multiple of {BLOCK_BYTES}")
    return header


def read_period(fields: Fields, kind: str) -> str:
    """Consume the field `period` of a record about one kind of report; raises `ProtocolError`."""
    period = fields.text("period", length_max=16)
    if not PERIOD.fullmatch(period):
        raise fields.refuse("period", "reference, or a week, month or quarter such as 2026-02")
    # A share may be of any kind of report; which one, only its content says.
    if kind not in (SHARE_A, SHARE_B) and (kind == REFERENCE) != (period == REFERENCE):
        raise fields.refuse("period", "reference exactly when the kind is reference")
    return period


def _recipients(fields: Fields) -> tuple[str, ...]:
    items = fields.items("recipients", count_max=limits.REPORT_RECIPIENTS_MAX)
    found = [item for item in items if isinstance(item, str) and FINGERPRINT.fullmatch(item)]
    if not items or found != items or sorted(set(found)) != found:
        raise fields.refuse("recipients", "fingerprints of sealing keys, rising")
    return tuple(found)
