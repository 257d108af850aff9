"""One aggregator's answer to a closing: its sum of shares, sealed to the boards.

Record: docs/protocol.md, clause V7. A partial sum alone is uniform noise; with the other one it is
the sum over sites and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common import limits
from common.canonical import Canonical, canonical_bytes, canonical_float, parse_canonical
from common.crypto.keys import AnyOpeningKey, AnySealingKey
from common.crypto.sealing import open_sealed, seal
from common.errors import ProtocolError
from common.ids import BoardId, Digest, StudyId, parse_board_id, parse_digest, parse_study_id
from common.protocol.fields import Fields
from common.protocol.frames import join_frames, split_frames
from common.protocol.monitoring.closing import Closing
from common.protocol.monitoring.report_header import read_period
from common.protocol.monitoring.sealed_copies import sealed_from_fields, sealed_to_record
from common.secure_sum import field
from common.secure_sum.field import Elements
from common.study.report_tensors import ReportKind

_LABEL = "partial-sum"


@dataclass(frozen=True)
class PartialSum:
    """What an aggregator publishes.

    Args:
        study_id, period, kind: of the sum.
        closing: digest of the closing that it answers.
        aggregator: who signs.
        sealed: the same content for each receiver: the fingerprint of its key, and what it opens.
    """

    study_id: StudyId
    period: str
    kind: ReportKind
    closing: Digest
    aggregator: BoardId
    sealed: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, eq=False)
class SummedShares:
    """What a board opens.

    Args:
        elements: the sum of one share of each closed site; the tags' sum is the last.
        epsilon_spent_max, epsilon_remaining_min: over the sites, as they stated them.
        delta: the same at all sites.
    """

    elements: Elements
    epsilon_spent_max: float
    epsilon_remaining_min: float
    delta: float


def seal_partial_sum(
    summed: SummedShares,
    closing: Closing,
    *,
    closing_digest: Digest,
    aggregator: BoardId,
    boards: Sequence[AnySealingKey],
) -> PartialSum:
    """Return the answer to a closing, sealed to each board."""
    context = _context(closing_digest, aggregator)
    plaintext = join_frames(
        [canonical_bytes(_statement(summed)), field.encode_elements(summed.elements)]
    )
    sealed = (
        (board.fingerprint, seal(plaintext, to=board, label=_LABEL, context=context))
        for board in boards
    )
    return PartialSum(
        study_id=closing.study_id,
        period=closing.period,
        kind=closing.kind,
        closing=closing_digest,
        aggregator=aggregator,
        sealed=tuple(sorted(sealed)),
    )


def open_partial_sum(partial: PartialSum, *, key: AnyOpeningKey, cells: int) -> SummedShares:
    """Return what was sealed to a board; raises `ProtocolError` or `SealError`."""
    sealed = dict(partial.sealed).get(key.fingerprint)
    if sealed is None:
        raise _refuse(f"a sum sealed to key {key.fingerprint}", "one sealed to others")
    context = _context(partial.closing, partial.aggregator)
    plaintext = open_sealed(sealed, key=key, label=_LABEL, context=context)
    statement, elements = split_frames(plaintext, count=2)
    fields = Fields(parse_canonical(bytes(statement)), "partial sum's statement")
    fields.integer("version", minimum=1, maximum=1)
    summed = SummedShares(
        elements=field.decode_elements(bytes(elements), count=cells + 1),
        epsilon_spent_max=fields.real("epsilon_spent_max", minimum=0.0, maximum=1e6),
        epsilon_remaining_min=fields.real("epsilon_remaining_min", minimum=0.0, maximum=1e6),
        delta=fields.real("delta", minimum=0.0, maximum=1.0),
    )
    fields.close()
    return summed


def partial_sum_to_record(partial: PartialSum) -> dict[str, Canonical]:
    """Return the content of a partial sum's notice."""
    return {
        "aggregator": partial.aggregator,
        "closing": partial.closing,
        "kind": partial.kind.value,
        "period": partial.period,
        "sealed": sealed_to_record(partial.sealed),
        "study_id": partial.study_id,
    }


def partial_sum_from_fields(fields: Fields) -> PartialSum:
    """Consume the fields of a partial sum; raises `ProtocolError`."""
    kind = fields.one_of("kind", [item.value for item in ReportKind])
    return PartialSum(
        study_id=parse_study_id(fields.text("study_id")),
        period=read_period(fields, kind),
        kind=ReportKind(kind),
        closing=parse_digest(fields.text("closing")),
        aggregator=parse_board_id(fields.text("aggregator")),
        sealed=sealed_from_fields(
            fields, count_max=limits.REPORT_RECIPIENTS_MAX, bytes_max=limits.SUMMED_BYTES_MAX
        ),
    )


def _statement(summed: SummedShares) -> dict[str, Canonical]:
    return {
        "delta": canonical_float(summed.delta),
        "epsilon_remaining_min": canonical_float(summed.epsilon_remaining_min),
        "epsilon_spent_max": canonical_float(summed.epsilon_spent_max),
        "version": 1,
    }


def _context(closing: Digest, aggregator: BoardId) -> bytes:
    return join_frames([closing.encode(), aggregator.encode()])


def _refuse(expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        "a partial sum is refused",
        expected=expected,
        arrived=arrived,
        todo="do not use it; ask the aggregator that signed it",
    )
