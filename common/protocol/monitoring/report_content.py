"""The plaintext of a report: a small record, then the counts, at a length they alone determine.

Layout (docs/protocol.md, clauses F9 to F11): the record's length (4 bytes, big-endian), the record
(canonical JSON), the body, zeros. The whole length is a function of the body's length alone, so
what an observer sees tells nothing that the plan does not.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common import limits
from common.canonical import Canonical, canonical_bytes, canonical_float, parse_canonical
from common.errors import ProtocolError
from common.ids import Digest, parse_digest
from common.privacy.mechanism import MechanismRecord
from common.protocol.fields import Fields
from common.protocol.mechanisms import mechanism_from_record, mechanism_to_record
from common.protocol.monitoring.refusals import numbered, refusal
from common.protocol.monitoring.report_header import BLOCK_BYTES, ReportHeader, read_period
from common.study.report_tensors import ReportKind

META_BYTES_MAX: Final = 1532  # with its length 1.5 KiB: 640 counts fit into the first block
_MECHANISMS_MAX: Final = 5  # families of tensors
_INT32 = np.iinfo(np.int32)
_CELL_BYTES: Final = 4
_EPSILON_MAX: Final = 1e6


@dataclass(frozen=True, eq=False)
class ReportContent:
    """What only the receivers of a report read.

    Args:
        kind, period: as in the header.
        mechanisms: one for each family of the report's tensors, as charged to the site's ledger.
        epsilon_spent, epsilon_remaining, delta, ledger_head: of the site's monitoring account.
        software_version: of the site.
        counts: [cells] int64, noised; tensor after tensor as `report_tensors(plan, kind)` says.
    """

    kind: ReportKind
    period: str
    mechanisms: tuple[MechanismRecord, ...]
    epsilon_spent: float
    epsilon_remaining: float
    delta: float
    ledger_head: Digest
    software_version: str
    counts: npt.NDArray[np.int64]


def content_bytes(body_bytes: int) -> int:
    """Return the length of a plaintext whose body has this length."""
    return -(-(4 + META_BYTES_MAX + body_bytes) // BLOCK_BYTES) * BLOCK_BYTES


def join_content(meta: Canonical, body: bytes) -> bytes:
    """Return record and body as a plaintext of fixed length; raises `ProtocolError`."""
    head = canonical_bytes(meta)
    if len(head) > META_BYTES_MAX:
        raise _refuse(f"a record of at most {META_BYTES_MAX} bytes", f"{len(head)} bytes")
    filled = struct.pack(">I", len(head)) + head + body
    return filled.ljust(content_bytes(len(body)), b"\0")


def split_content(plaintext: bytes, *, body_bytes: int) -> tuple[Canonical, bytes]:
    """Return the record and the body of a plaintext; raises `ProtocolError` B6."""
    if len(plaintext) != content_bytes(body_bytes):
        raise _refuse(f"{content_bytes(body_bytes)} bytes", f"{len(plaintext)} bytes")
    (length,) = struct.unpack_from(">I", plaintext)
    start = 4 + length
    if length > META_BYTES_MAX or any(plaintext[start + body_bytes :]):
        raise _refuse("a record, a body and zeros", "another layout")
    with numbered("B6"):
        meta = parse_canonical(plaintext[4:start])
    return meta, plaintext[start : start + body_bytes]


def encode_content(content: ReportContent) -> bytes:
    """Return the plaintext of a report; raises `ProtocolError` when it has none."""
    counts = content.counts
    if counts.ndim != 1 or counts.size > limits.COUNTED_CELLS_MAX:
        raise _refuse(f"a row of at most {limits.COUNTED_CELLS_MAX} counts", "another shape")
    if counts.size and (counts.min() < _INT32.min or counts.max() > _INT32.max):
        raise _refuse("counts of 32 bits", "a larger count")
    return join_content(_meta(content), counts.astype("<i4").tobytes())


def decode_content(plaintext: bytes, *, cells: int) -> ReportContent:
    """Return the content of a report with this many counts; raises `ProtocolError` B6."""
    meta, body = split_content(plaintext, body_bytes=_CELL_BYTES * cells)
    with numbered("B6"):
        fields = Fields(meta, "report content")
        fields.integer("version", minimum=1, maximum=1)
        kind = _kind(fields)
        content = ReportContent(
            kind=kind,
            period=read_period(fields, kind.value),
            mechanisms=_mechanisms(fields),
            epsilon_spent=fields.real("epsilon_spent", minimum=0.0, maximum=_EPSILON_MAX),
            epsilon_remaining=fields.real("epsilon_remaining", minimum=0.0, maximum=_EPSILON_MAX),
            delta=fields.real("delta", minimum=0.0, maximum=1.0),
            ledger_head=parse_digest(fields.text("ledger_head")),
            software_version=fields.text("software_version", length_max=40),
            counts=np.frombuffer(body, dtype="<i4").astype(np.int64),
        )
        fields.close()
    return content


def check_content(header: ReportHeader, content: ReportContent) -> None:
    """Refuse content of another kind or period than its header says; raises `ProtocolError` B6."""
    if (content.kind.value, content.period) != (header.kind, header.period):
        raise _refuse(f"{header.kind} of {header.period}", "a report of another kind or period")


def _meta(content: ReportContent) -> Canonical:
    return {
        "delta": canonical_float(content.delta),
        "epsilon_remaining": canonical_float(content.epsilon_remaining),
        "epsilon_spent": canonical_float(content.epsilon_spent),
        "kind": content.kind.value,
        "ledger_head": content.ledger_head,
        "mechanisms": [mechanism_to_record(item) for item in content.mechanisms],
        "period": content.period,
        "software_version": content.software_version,
        "version": 1,
    }


def _kind(fields: Fields) -> ReportKind:
    return ReportKind(fields.one_of("kind", [kind.value for kind in ReportKind]))


def _mechanisms(fields: Fields) -> tuple[MechanismRecord, ...]:
    items = fields.items("mechanisms", count_max=_MECHANISMS_MAX)
    return tuple(mechanism_from_record(item) for item in items)


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return refusal("B6", expected=expected, arrived=arrived)
