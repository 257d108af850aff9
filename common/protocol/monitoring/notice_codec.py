"""Notices to bytes and back; a roster's own form is in `roster_file`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from common import limits
from common.canonical import Canonical
from common.crypto.keys import SigningKey
from common.errors import CohortiumError, ProtocolError
from common.ids import (
    Digest,
    SiteId,
    parse_board_id,
    parse_digest,
    parse_site_id,
    parse_study_id,
)
from common.protocol.fields import Fields
from common.protocol.monitoring.notices import (
    Action,
    Closing,
    Decision,
    NoticeContent,
    PartialSum,
    Promotion,
    Receipt,
)
from common.protocol.monitoring.report_header import (
    KINDS,
    NUMBER_MAX,
    PERIOD,
    SHARE_A,
    SHARE_B,
    read_period,
)
from common.protocol.monitoring.signed_notice import (
    NoticeKind,
    SignedNotice,
    content_fields,
    read_base64,
    read_signed,
    write_signed,
)

KIND_OF: Final[Mapping[type, NoticeKind]] = {
    Receipt: NoticeKind.RECEIPT,
    Decision: NoticeKind.DECISION,
    Promotion: NoticeKind.PROMOTION,
    Closing: NoticeKind.CLOSING,
    PartialSum: NoticeKind.PARTIAL_SUM,
}
_REPORT_KINDS: Final = tuple(kind for kind in KINDS if kind not in (SHARE_A, SHARE_B))
_REASON_MAX: Final = 4000
IdT = TypeVar("IdT")


@dataclass(frozen=True)
class Notice:
    """A notice as it arrived: form checked, signatures not (see `notice_checks`).

    Args:
        content: None for a roster, which `roster_file` reads.
    """

    signed: SignedNotice
    content: NoticeContent | None

    @property
    def kind(self) -> NoticeKind:
        """What it says."""
        return self.signed.kind

    @property
    def digest(self) -> Digest:
        """Names the content, however many have signed it."""
        return self.signed.digest


def sign_notice(content: NoticeContent, signers: Mapping[str, SigningKey]) -> bytes:
    """Return a notice's bytes.

    Args:
        content: what it says.
        signers: keys by the names under which readers look for them: a board's id, a decider's
            name, `coordinator`.

    Raises:
        ProtocolError: content that readers would refuse.
    """
    data = write_signed(KIND_OF[type(content)], content_record(content), signers)
    read_notice(data)
    return data


def read_notice(data: bytes) -> Notice:
    """Return a notice in its one form, nothing verified; raises `ProtocolError` T1 or T2."""
    signed = read_signed(data)
    if signed.kind is NoticeKind.ROSTER:
        return Notice(signed, None)
    fields = content_fields(signed)
    try:
        content = _READERS[signed.kind](fields)
        fields.close()
    except CohortiumError as error:
        raise _refuse(signed.kind, error.expected, error.arrived) from None
    return Notice(signed, content)


def content_record(content: NoticeContent) -> dict[str, Canonical]:
    """Return a notice's content as canonical data: its fields under their own names."""
    record: dict[str, Canonical] = {}
    for name, value in vars(content).items():
        if isinstance(value, bytes):
            record[name] = base64.b64encode(value).decode()
        elif isinstance(value, Action):
            record[name] = value.value
        else:
            record[name] = list(value) if isinstance(value, tuple) else value
    return record


def _receipt(fields: Fields) -> Receipt:
    return Receipt(
        study_id=parse_study_id(fields.text("study_id")),
        site_id=parse_site_id(fields.text("site_id")),
        sequence=fields.integer("sequence", minimum=1, maximum=NUMBER_MAX),
        head=parse_digest(fields.text("head")),
        board_id=parse_board_id(fields.text("board_id")),
        at_s=fields.integer("at_s", minimum=0, maximum=NUMBER_MAX),
    )


def _decision(fields: Fields) -> Decision:
    decision = Decision(
        study_id=parse_study_id(fields.text("study_id")),
        number=fields.integer("number", minimum=1, maximum=NUMBER_MAX),
        previous=parse_digest(fields.text("previous")),
        action=Action(fields.one_of("action", [item.value for item in Action])),
        site_id=_optional(fields, "site_id", parse_site_id),
        model_version=_optional(fields, "model_version", parse_digest),
        reason=fields.text("reason", length_max=_REASON_MAX),
        period=fields.text("period", length_max=16),
        opened_at_s=fields.integer("opened_at_s", minimum=0, maximum=NUMBER_MAX),
    )
    if not PERIOD.fullmatch(decision.period):
        raise fields.refuse("period", "reference, or a week, month or quarter")
    if not decision.reason.strip() or not decision.reason.replace("\n", " ").isprintable():
        raise fields.refuse("reason", "printable text")
    if (decision.action is Action.PAUSE_SITE) != (decision.site_id is not None):
        raise fields.refuse("site_id", "a site exactly when a site is paused")
    if decision.action is Action.ROLL_BACK and decision.model_version is None:
        raise fields.refuse("model_version", "the version to roll back to")
    return decision


def _promotion(fields: Fields) -> Promotion:
    return Promotion(
        study_id=parse_study_id(fields.text("study_id")),
        plan_digest=parse_digest(fields.text("plan_digest")),
        model_version=parse_digest(fields.text("model_version")),
        sequence=fields.integer("sequence", minimum=1, maximum=NUMBER_MAX),
        at_s=fields.integer("at_s", minimum=0, maximum=NUMBER_MAX),
    )


def _closing(fields: Fields) -> Closing:
    kind = fields.one_of("kind", _REPORT_KINDS)
    return Closing(
        study_id=parse_study_id(fields.text("study_id")),
        period=read_period(fields, kind),
        kind=kind,
        board_id=parse_board_id(fields.text("board_id")),
        sites=_sites(fields),
    )


def _partial_sum(fields: Fields) -> PartialSum:
    kind = fields.one_of("kind", _REPORT_KINDS)
    return PartialSum(
        study_id=parse_study_id(fields.text("study_id")),
        period=read_period(fields, kind),
        kind=kind,
        aggregator=parse_board_id(fields.text("aggregator")),
        sites=_sites(fields),
        sealed=read_base64(fields, "sealed", bytes_max=limits.SUMMED_BYTES_MAX),
    )


def _sites(fields: Fields) -> tuple[SiteId, ...]:
    items = fields.items("sites", count_max=limits.SITES_MAX)
    sites = [parse_site_id(item) for item in items if isinstance(item, str)]
    if not items or sites != items or sorted(set(sites)) != sites:
        raise fields.refuse("sites", "site ids, rising, each once")
    return tuple(sites)


def _optional(fields: Fields, name: str, parse: Callable[[str], IdT]) -> IdT | None:
    return None if fields.consume_null(name) else parse(fields.text(name))


_READERS: Final[Mapping[NoticeKind, Callable[[Fields], NoticeContent]]] = {
    NoticeKind.RECEIPT: _receipt,
    NoticeKind.DECISION: _decision,
    NoticeKind.PROMOTION: _promotion,
    NoticeKind.CLOSING: _closing,
    NoticeKind.PARTIAL_SUM: _partial_sum,
}


def _refuse(kind: NoticeKind, expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        f"a {kind.value} is refused",
        expected=expected,
        arrived=arrived,
        todo="do not use it; ask its sender for it again",
        number="T2",
    )
