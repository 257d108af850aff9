"""What this board tells everybody: kept with what caused it, published until the relay has it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from common.canonical import digest_bytes
from common.ids import Digest
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.notices import Receipt
from common.protocol.monitoring.signed_notice import NoticeKind, read_signed
from server.monitor_board.storage.tables import notices_out


@dataclass(frozen=True)
class NoticeOut:
    """One notice of this board.

    Args:
        number: in the order they were made.
        published_at_s: when the relay acknowledged it; None before.
        refusal: the number with which the relay refused it last, or empty; it is tried again, for
            a relay may have to learn of a roster first.
    """

    number: int
    kind: NoticeKind
    notice: bytes
    made_at_s: int
    published_at_s: int | None
    refusal: str


def bytes_digest(notice: bytes) -> Digest:
    """Return the digest of a notice's bytes, signatures and all."""
    return digest_bytes("notice-bytes", notice)


def put_notice(connection: Connection, notice: bytes, *, now_s: int) -> None:
    """Queue a notice in the caller's transaction; the same bytes again change nothing."""
    digest = bytes_digest(notice)
    known = select(notices_out.c.id).where(notices_out.c.digest == digest)
    if connection.execute(known).first() is None:
        connection.execute(
            insert(notices_out).values(
                kind=read_signed(notice).kind.value,
                digest=digest,
                notice=notice,
                made_at_s=now_s,
                published_at_s=None,
                refusal="",
            )
        )


def unpublished(connection: Connection, *, count_max: int = 1000) -> tuple[NoticeOut, ...]:
    """Return what the relay has not acknowledged: what it never refused first, then by age."""
    rows = connection.execute(
        select(notices_out)
        .where(notices_out.c.published_at_s.is_(None))
        .order_by(notices_out.c.refusal, notices_out.c.id)
        .limit(count_max)
    )
    return tuple(
        NoticeOut(
            row.id,
            NoticeKind(row.kind),
            row.notice,
            row.made_at_s,
            row.published_at_s,
            row.refusal,
        )
        for row in rows
    )


def publish_again(connection: Connection) -> None:
    """Let what the relay should hold be published again, for it may have been set back.

    What it holds keeps its position. A receipt that a newer one of the same site has replaced is
    not wanted any more, and of rosters its operator pins the newest himself.
    """
    rows = connection.execute(
        select(notices_out.c.id, notices_out.c.kind, notices_out.c.notice)
        .where(notices_out.c.published_at_s.is_not(None))
        .order_by(notices_out.c.id)
    )
    wanted: dict[object, int] = {}
    for row in rows:
        if row.kind == NoticeKind.ROSTER.value:
            continue
        content = read_notice(row.notice).content
        key = (content.study_id, content.site_id) if isinstance(content, Receipt) else row.id
        wanted[key] = row.id
    for number in wanted.values():
        connection.execute(
            update(notices_out).where(notices_out.c.id == number).values(published_at_s=None)
        )


def mark_published(connection: Connection, number: int, *, now_s: int) -> None:
    """Remember that the relay has a notice."""
    connection.execute(
        update(notices_out)
        .where(notices_out.c.id == number)
        .values(published_at_s=now_s, refusal="")
    )


def mark_refused(connection: Connection, notice: int, *, number: str) -> None:
    """Remember with which number the relay refused a notice."""
    connection.execute(update(notices_out).where(notices_out.c.id == notice).values(refusal=number))
