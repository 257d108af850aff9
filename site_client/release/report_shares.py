"""A noised report as the two plaintexts of a secure sum: a seed, and the rest.

Both come from one noised vector, are made once and kept: a share that is sealed anew for another
roster still belongs to the other one.
"""

from __future__ import annotations

from common.ids import Digest, SiteId, StudyId
from common.protocol.monitoring.check_key import CheckKey
from common.protocol.monitoring.report_content import ReportContent
from common.protocol.monitoring.share_content import (
    ShareStatement,
    encode_shares,
    share_context,
    sum_context,
)
from common.secure_sum.check_tag import SumKey
from common.secure_sum.shares import split


def split_content(
    content: ReportContent,
    *,
    study_id: StudyId,
    site_id: SiteId,
    schema: Digest,
    check_key: CheckKey,
) -> tuple[bytes, bytes]:
    """Return the plaintexts for aggregators A and B.

    Args:
        content: noised; its counts are split.
        study_id, site_id, schema: of the report; the shares open for them alone.
        check_key: that sites and boards share.

    Raises:
        ProtocolError: a count that receivers would refuse.
    """
    context = sum_context(study_id, content.kind, content.period, schema)
    key = SumKey.derive(check_key.raw, context=context)
    vector = split(content.counts, key=key, context=share_context(context, site_id))
    statement = ShareStatement(
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
    return encode_shares(statement, vector)
