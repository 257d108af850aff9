"""The plaintext of a share of a secure sum: what the site states, then a seed or masked numbers.

Layout (docs/protocol.md, clause V4): as a report's plaintext (F9), with another record and body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.canonical import Canonical, canonical_bytes, canonical_float, digest_bytes
from common.errors import ProtocolError
from common.ids import Digest, SiteId, StudyId, parse_digest
from common.privacy.mechanism import MechanismRecord
from common.protocol.fields import Fields
from common.protocol.mechanisms import mechanism_from_record, mechanism_to_record
from common.protocol.monitoring.refusals import numbered, refusal
from common.protocol.monitoring.report_content import join_content, split_content
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B, ReportHeader, read_period
from common.secure_sum import field
from common.secure_sum.field import Elements
from common.secure_sum.shares import SEED_BYTES, SplitVector, expand
from common.study.report_tensors import ReportKind

_MECHANISMS_MAX: Final = 5
_EPSILON_MAX: Final = 1e6


@dataclass(frozen=True)
class ShareStatement:
    """What a site states in both shares of one vector; nothing of it tells of a patient.

    Args:
        kind, period: of the report that was split.
        check_key: commitment of the key that sites and boards share.
        sum_key: commitment of the secret of this one sum, which was derived from it.
        mechanisms: the site's own noise, as charged to its ledger.
        epsilon_spent, epsilon_remaining, delta, ledger_head: of its monitoring account.
        software_version: of the site.
    """

    kind: ReportKind
    period: str
    check_key: Digest
    sum_key: Digest
    mechanisms: tuple[MechanismRecord, ...]
    epsilon_spent: float
    epsilon_remaining: float
    delta: float
    ledger_head: Digest
    software_version: str


def sum_context(study_id: StudyId, kind: ReportKind, period: str, schema: Digest) -> bytes:
    """Return the bytes that name one sum; its secret is derived for them alone."""
    names = (study_id, kind.value, period, schema)
    return digest_bytes("secure-sum/context", *(name.encode() for name in names)).encode("ascii")


def share_context(context: bytes, site_id: SiteId) -> bytes:
    """Return the bytes that name one site's vector in a sum; its seed is expanded for them."""
    return digest_bytes("secure-sum/site", context, site_id.encode()).encode("ascii")


def encode_shares(statement: ShareStatement, vector: SplitVector) -> tuple[bytes, bytes]:
    """Return the two plaintexts, for aggregators A and B; raises `ProtocolError`."""
    record = statement_to_record(statement)
    return (
        join_content(record, vector.seed),
        join_content(record, field.encode_elements(vector.masked)),
    )


def decode_share(
    plaintext: bytes, header: ReportHeader, *, cells: int
) -> tuple[ShareStatement, Elements]:
    """Return a share's statement and its elements, the tag's last; raises `ProtocolError` B6.

    Args:
        plaintext: opened; what aggregator A gets is expanded here.
        header: of its envelope.
        cells: of the report, without the tag.
    """
    is_seed = header.kind == SHARE_A
    size = SEED_BYTES if is_seed else field.ELEMENT_BYTES * (cells + 1)
    record, body = split_content(plaintext, body_bytes=size)
    with numbered("B6"):
        statement = statement_from_record(record)
        if header.kind not in (SHARE_A, SHARE_B) or statement.period != header.period:
            raise refusal("B6", expected=f"a share of {header.period}", arrived="another report")
        if not is_seed:
            return statement, field.decode_elements(body, count=cells + 1)
    context = sum_context(header.study_id, statement.kind, statement.period, header.schema)
    return statement, expand(body, context=share_context(context, header.site_id), cells=cells)


def statement_to_record(statement: ShareStatement) -> dict[str, Canonical]:
    """Return the canonical record of a statement."""
    return {
        "check_key": statement.check_key,
        "delta": canonical_float(statement.delta),
        "epsilon_remaining": canonical_float(statement.epsilon_remaining),
        "epsilon_spent": canonical_float(statement.epsilon_spent),
        "kind": statement.kind.value,
        "ledger_head": statement.ledger_head,
        "mechanisms": [mechanism_to_record(item) for item in statement.mechanisms],
        "period": statement.period,
        "software_version": statement.software_version,
        "sum_key": statement.sum_key,
        "version": 1,
    }


def statement_from_record(record: Canonical) -> ShareStatement:
    """Return the statement of a canonical record; raises `ProtocolError`."""
    fields = Fields(record, "share's statement")
    fields.integer("version", minimum=1, maximum=1)
    kind = fields.one_of("kind", [item.value for item in ReportKind])
    mechanisms = fields.items("mechanisms", count_max=_MECHANISMS_MAX)
    statement = ShareStatement(
        kind=ReportKind(kind),
        period=read_period(fields, kind),
        check_key=parse_digest(fields.text("check_key")),
        sum_key=parse_digest(fields.text("sum_key")),
        mechanisms=tuple(mechanism_from_record(item) for item in mechanisms),
        epsilon_spent=fields.real("epsilon_spent", minimum=0.0, maximum=_EPSILON_MAX),
        epsilon_remaining=fields.real("epsilon_remaining", minimum=0.0, maximum=_EPSILON_MAX),
        delta=fields.real("delta", minimum=0.0, maximum=1.0),
        ledger_head=parse_digest(fields.text("ledger_head")),
        software_version=fields.text("software_version", length_max=40),
    )
    fields.close()
    if canonical_bytes(statement_to_record(statement)) != canonical_bytes(record):
        raise ProtocolError(
            "a share's statement is refused",
            expected="the one byte form of this record",
            arrived="another form",
            todo="use the same software version on both sides",
        )
    return statement
