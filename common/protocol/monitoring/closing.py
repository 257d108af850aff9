"""A board's word which shares of one period are to be added: a signed notice to both aggregators.

Record: docs/protocol.md, clause V6. A closing names each share by its envelope's digest, so that
both aggregators add the two halves of the same vectors, and nobody can add another set under it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from common import limits
from common.canonical import Canonical
from common.ids import (
    BoardId,
    Digest,
    SiteId,
    StudyId,
    parse_board_id,
    parse_digest,
    parse_site_id,
    parse_study_id,
)
from common.protocol.fields import Fields
from common.protocol.monitoring.report_header import NUMBER_MAX, read_period
from common.study.report_tensors import ReportKind

SUM_SITE_ID: Final = SiteId("all")
"""Under this name the board keeps a sum over sites; no site of a sum may have it."""


@dataclass(frozen=True)
class ClosedSite:
    """One site of a sum, and the digests of the two envelopes with its shares."""

    site_id: SiteId
    share_a: Digest
    share_b: Digest


@dataclass(frozen=True)
class Closing:
    """Which sites' shares of one kind of report of a period both aggregators shall add.

    Args:
        schema: of the reports, `schema_digest(plan, kind)`.
        model_version: which all of them judge.
        sum_key: commitment of the secret that all check tags were made with.
        board_id: who signs.
        sites: rising by id.
        closed_at_s: seconds since 1970, the board's clock.
    """

    study_id: StudyId
    period: str
    kind: ReportKind
    schema: Digest
    model_version: Digest
    sum_key: Digest
    board_id: BoardId
    sites: tuple[ClosedSite, ...]
    closed_at_s: int

    @property
    def site_ids(self) -> tuple[SiteId, ...]:
        """The sites, rising."""
        return tuple(site.site_id for site in self.sites)


def closing_from_fields(fields: Fields) -> Closing:
    """Consume the fields of a closing; raises `ProtocolError`."""
    kind = fields.one_of("kind", [item.value for item in ReportKind])
    closing = Closing(
        study_id=parse_study_id(fields.text("study_id")),
        period=read_period(fields, kind),
        kind=ReportKind(kind),
        schema=parse_digest(fields.text("schema")),
        model_version=parse_digest(fields.text("model_version")),
        sum_key=parse_digest(fields.text("sum_key")),
        board_id=parse_board_id(fields.text("board_id")),
        sites=tuple(_site(item) for item in fields.items("sites", count_max=limits.SITES_MAX)),
        closed_at_s=fields.integer("closed_at_s", minimum=0, maximum=NUMBER_MAX),
    )
    is_rising = all(first < second for first, second in itertools.pairwise(closing.site_ids))
    digests = {digest for site in closing.sites for digest in (site.share_a, site.share_b)}
    if not is_rising or len(digests) != 2 * len(closing.sites):
        raise fields.refuse("sites", "sites rising by id, each with two envelopes of its own")
    return closing


def closing_to_record(closing: Closing) -> dict[str, Canonical]:
    """Return the content of a closing's notice."""
    return {
        "board_id": closing.board_id,
        "closed_at_s": closing.closed_at_s,
        "kind": closing.kind.value,
        "model_version": closing.model_version,
        "period": closing.period,
        "schema": closing.schema,
        "sites": [
            {"share_a": site.share_a, "share_b": site.share_b, "site_id": site.site_id}
            for site in closing.sites
        ],
        "study_id": closing.study_id,
        "sum_key": closing.sum_key,
    }


def _site(record: Canonical) -> ClosedSite:
    fields = Fields(record, "site of a closing")
    site = ClosedSite(
        site_id=parse_site_id(fields.text("site_id")),
        share_a=parse_digest(fields.text("share_a")),
        share_b=parse_digest(fields.text("share_b")),
    )
    fields.close()
    return site
