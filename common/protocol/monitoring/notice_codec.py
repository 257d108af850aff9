"""Notices to bytes and back; a roster's own form is in `roster_file`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from common.canonical import Canonical
from common.crypto.keys import SigningKey
from common.errors import CohortiumError, ProtocolError
from common.ids import (
    Digest,
    parse_board_id,
    parse_digest,
    parse_site_id,
    parse_study_id,
)
from common.protocol.fields import Fields
from common.protocol.monitoring.check_key import (
    SealedCheckKey,
    check_key_from_fields,
    check_key_to_record,
)
from common.protocol.monitoring.closing import Closing, closing_from_fields, closing_to_record
from common.protocol.monitoring.notices import (
    Action,
    Decision,
    NoticeContent,
    Promotion,
    Receipt,
)
from common.protocol.monitoring.partial_sum import (
    PartialSum,
    partial_sum_from_fields,
    partial_sum_to_record,
)
from common.protocol.monitoring.report_header import NUMBER_MAX, PERIOD
from common.protocol.monitoring.signed_notice import (
    NoticeKind,
    SignedNotice,
    content_fields,
    read_signed,
    write_signed,
)

KIND_OF: Final[Mapping[type, NoticeKind]] = {
    Receipt: NoticeKind.RECEIPT,
    Decision: NoticeKind.DECISION,
    Promotion: NoticeKind.PROMOTION,
    Closing: NoticeKind.CLOSING,
    PartialSum: NoticeKind.PARTIAL_SUM,
    SealedCheckKey: NoticeKind.CHECK_KEY,
}
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
    if isinstance(content, Closing):
        return closing_to_record(content)
    if isinstance(content, PartialSum):
        return partial_sum_to_record(content)
    if isinstance(content, SealedCheckKey):
        return check_key_to_record(content)
    return {
        name: value.value if isinstance(value, Action) else value
        for name, value in vars(content).items()
    }


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


def _optional(fields: Fields, name: str, parse: Callable[[str], IdT]) -> IdT | None:
    return None if fields.consume_null(name) else parse(fields.text(name))


_READERS: Final[Mapping[NoticeKind, Callable[[Fields], NoticeContent]]] = {
    NoticeKind.RECEIPT: _receipt,
    NoticeKind.DECISION: _decision,
    NoticeKind.PROMOTION: _promotion,
    NoticeKind.CLOSING: closing_from_fields,
    NoticeKind.PARTIAL_SUM: partial_sum_from_fields,
    NoticeKind.CHECK_KEY: check_key_from_fields,
}


def _refuse(kind: NoticeKind, expected: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        f"a {kind.value} is refused",
        expected=expected,
        arrived=arrived,
        todo="do not use it; ask its sender for it again",
        number="T2",
    )
