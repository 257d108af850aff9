"""A noised report as two envelopes for a secure sum: a seed to one aggregator, the rest to another.

Both come from one noised vector. If a site is killed before it kept them and splits the vector
again, the new shares are of the same numbers; no noise is drawn here.
"""

from __future__ import annotations

import dataclasses

from common.crypto.keys import AnySealingKey, SigningKey
from common.protocol.monitoring.check_key import CheckKey
from common.protocol.monitoring.report_content import ReportContent
from common.protocol.monitoring.report_envelope import report_digest, seal_report
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B, ReportDraft
from common.protocol.monitoring.share_content import (
    ShareStatement,
    encode_shares,
    share_context,
    sum_context,
)
from common.secure_sum.check_tag import SumKey
from common.secure_sum.shares import split


def split_report(
    content: ReportContent,
    draft: ReportDraft,
    *,
    check_key: CheckKey,
    signing_key: SigningKey,
    aggregator_a: AnySealingKey,
    aggregator_b: AnySealingKey,
) -> tuple[bytes, bytes]:
    """Return the envelopes for aggregators A and B.

    Args:
        content: noised; its counts are split.
        draft: of the whole report. The first envelope has its sequence and previous digest, the
            second the next sequence and the first one's digest.
        check_key: that sites and boards share.
        signing_key: the site's.
        aggregator_a, aggregator_b: the sealing keys in the roster.

    Raises:
        ProtocolError: a count, header or size that receivers would refuse.
    """
    context = sum_context(draft.study_id, content.kind, content.period, draft.schema)
    key = SumKey.derive(check_key.raw, context=context)
    vector = split(content.counts, key=key, context=share_context(context, draft.site_id))
    first, second = encode_shares(_statement(content, check_key, key), vector)
    envelope_a = seal_report(
        first,
        dataclasses.replace(draft, kind=SHARE_A),
        signing_key=signing_key,
        recipients=[aggregator_a],
    )
    following = dataclasses.replace(
        draft,
        kind=SHARE_B,
        sequence=draft.sequence + 1,
        previous=report_digest(envelope_a),
    )
    envelope_b = seal_report(second, following, signing_key=signing_key, recipients=[aggregator_b])
    return envelope_a, envelope_b


def _statement(content: ReportContent, check_key: CheckKey, key: SumKey) -> ShareStatement:
    return ShareStatement(
        kind=content.kind,
        period=content.period,
        check_key=check_key.commitment,
        sum_key=key.commitment,
        mechanisms=content.mechanisms,
        epsilon_spent=content.epsilon_spent,
        epsilon_remaining=content.epsilon_remaining,
        delta=content.delta,
        ledger_head=content.ledger_head,
        software_version=content.software_version,
    )
