"""The four calls of monitoring.proto: read one message, decide, store or stream.

Every request message is read here, with a time limit and after the caller's limits were looked at:
in gRPC's own unary handlers a caller that opens calls and never sends would hold them for ever. On
the wire the calls are the unary ones of monitoring.proto. The health check is read and counted in
the same way: one member's open calls must not take the places of all others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from common.clock import Clock
from common.errors import CohortiumError, StoreError
from common.protocol import monitoring_pb2 as wire
from common.protocol.monitoring.refusals import refusal
from common.protocol.monitoring.roster import Standing
from common.protocol.monitoring.signed_notice import NoticeKind
from server.config import RelayConfig
from server.group_commit import GroupCommit, QueueFull
from server.relay import RelayView, SealedReport, admit_report
from server.relay_members import Member, MemberLimits, TooMuch, member_of
from server.relay_notices import RelayedNotice, admit_notice, check_board
from server.relay_rosters import RosterWatch, pin_roster
from server.relay_store import BODY_PART_BYTES, RelayStore

SERVICE: Final = "cohortium.v1.Monitoring"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"
PUSHBACK: Final = "grpc-retry-pushback-ms"  # gRPC's own name for "try again after"
STREAM_S: Final = 900.0  # for all that one call returns
ROWS_PER_CALL_MAX: Final = 1000
BATCH_MAX: Final = 64
WAITING_BYTES_MAX: Final = 64 << 20
BUSY_WAIT_MS: Final = 1000
SAY_AGAIN_S: Final = 60.0

_STATUS: Final = {
    "B2": grpc.StatusCode.PERMISSION_DENIED,
    "B3": grpc.StatusCode.FAILED_PRECONDITION,
    "B8": grpc.StatusCode.ALREADY_EXISTS,
    "B11": grpc.StatusCode.FAILED_PRECONDITION,
    "B12": grpc.StatusCode.PERMISSION_DENIED,
    "B14": grpc.StatusCode.FAILED_PRECONDITION,  # the day's quota; calls too fast are "busy"
    "T3": grpc.StatusCode.PERMISSION_DENIED,
    "T5": grpc.StatusCode.PERMISSION_DENIED,
    "O5": grpc.StatusCode.FAILED_PRECONDITION,
}

RowT = TypeVar("RowT", bound="_Row")
MessageT = TypeVar("MessageT", bound=Message)
Work = Callable[[Member, Any], Awaitable[Message | None]]

logger = logging.getLogger("cohortium.relay")


class _Row(Protocol):
    @property
    def position(self) -> int: ...


class MonitoringCalls:
    """The handlers of one relay.

    Args:
        store: what is kept.
        rosters: which rosters and sites count now.
        clock: the time.
        config: the operator's bounds.
        checks: gRPC's own servicer of health checks, which knows whether the relay serves.
    """

    def __init__(
        self,
        store: RelayStore,
        rosters: RosterWatch,
        clock: Clock,
        config: RelayConfig,
        *,
        checks: Any,
    ) -> None:
        self._store = store
        self._checks = checks
        self._rosters = rosters
        self._clock = clock
        self._limits = MemberLimits(config)
        self._receive_s = config.receive_s_max
        self._said: dict[tuple[Member, str], float] = {}
        self._reports: GroupCommit[SealedReport, int] = GroupCommit(
            store.append_reports,
            size_bytes=lambda report: len(report.envelope),
            batch_max=BATCH_MAX,
            waiting_bytes_max=WAITING_BYTES_MAX,
        )
        self._notices: GroupCommit[RelayedNotice, int] = GroupCommit(
            store.append_notices,
            size_bytes=lambda notice: len(notice.content),
            batch_max=BATCH_MAX,
            waiting_bytes_max=WAITING_BYTES_MAX,
        )

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the calls under their names in monitoring.proto, and the health check."""
        one, many = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        calls = {
            "Submit": one(self._answering(self._submit)),
            "Publish": one(self._answering(self._publish)),
            "Collect": many(self._answering(self._collect)),
            "Notices": many(self._answering(self._give_notices)),
        }
        # No Watch: it would hold a place for as long as a caller likes.
        health = {"Check": one(self._answering(self._check))}
        return (
            grpc.method_handlers_generic_handler(SERVICE, calls),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, health),
        )

    async def close(self) -> None:
        """Write what waits."""
        await self._reports.close()
        await self._notices.close()

    async def _submit(self, caller: Member, context: Any) -> Message:
        request = await self._read(context, wire.SubmitRequest)
        report = admit_report(
            request.envelope,
            caller=caller,
            view=await self._rosters.current(),
            now_s=self._clock.now_s(),
        )
        position = await self._reports.add(report)
        return wire.SubmitReply(digest=report.digest, position=position)

    async def _publish(self, caller: Member, context: Any) -> Message:
        request = await self._read(context, wire.NoticeRequest)
        view = await self._rosters.current()
        notice = admit_notice(request.notice, request.body, caller=caller, roster=view.newest)
        if notice.kind == NoticeKind.ROSTER.value:
            position = await asyncio.to_thread(
                pin_roster, self._store, notice, now_s=self._clock.now_s()
            )
        else:
            position = await self._notices.add(notice)
        return wire.NoticeReply(position=position)

    async def _collect(self, caller: Member, context: Any) -> None:
        request = await self._read(context, wire.CollectRequest)
        check_board(caller, (await self._rosters.current()).newest)

        def read_page(after: int, left: int) -> Sequence[Any]:
            return self._store.reports_after(request.study_id, after, left)

        async for report in _pages(read_page, request.after_position, request.limit):
            message = wire.StoredReport(
                position=report.position,
                envelope=report.envelope,
                received_at_s=report.received_at_s,
            )
            await context.write(message.SerializeToString())

    async def _give_notices(self, caller: Member, context: Any) -> None:
        request = await self._read(context, wire.NoticesRequest)
        view = await self._rosters.current()
        _check_member(caller, view)
        site_id = None if caller.is_board else caller.member_id

        def read_page(after: int, left: int) -> Sequence[Any]:
            return self._store.notices_after(site_id, after, left)

        async for notice in _pages(read_page, request.after_position, request.limit):
            message = wire.StoredNotice(
                position=notice.position, notice=notice.notice, body_bytes=notice.body_bytes
            )
            await context.write(message.SerializeToString())
            if request.with_bodies:
                await self._write_body(context, notice.position, notice.body_bytes)

    async def _check(self, _: Member, context: Any) -> Message:
        request = await self._read(context, health_pb2.HealthCheckRequest)
        answer: Message = await self._checks.Check(request, context)
        return answer

    async def _read(self, context: Any, kind: type[MessageT]) -> MessageT:
        """Return the one message of a call; raises `TimeoutError` or `DecodeError`."""
        async with asyncio.timeout(self._receive_s):
            data = await context.read()
        if not isinstance(data, bytes):  # gRPC's mark of a call without a message
            raise DecodeError
        return kind.FromString(data)

    async def _write_body(self, context: Any, position: int, body_bytes: int) -> None:
        for part in range(-(-body_bytes // BODY_PART_BYTES)):
            content = await asyncio.to_thread(self._store.body_part, position, part)
            message = wire.StoredNotice(position=position, body=content, body_bytes=body_bytes)
            await context.write(message.SerializeToString())

    def _say(self, caller: Member, number: str) -> None:
        """Log a refusal, once a minute for each member and number: nobody shall fill the disk."""
        now = time.monotonic()
        if now - self._said.get((caller, number), float("-inf")) >= SAY_AGAIN_S:
            self._said[caller, number] = now
            logger.info("refused: %s from %s", number, caller.member_id)

    def _answering(self, work: Work) -> Callable[[Any, Any], Awaitable[bytes | None]]:
        """Return a gRPC handler; what goes wrong ends the call with a number and no text."""

        async def handler(_: object, context: Any) -> bytes | None:
            caller = _caller(context)
            wait_ms = 0
            try:
                with self._limits.call(caller):
                    async with asyncio.timeout(STREAM_S):
                        answer = await work(caller, context)
                return None if answer is None else bytes(answer.SerializeToString())
            except TooMuch as error:
                code, number, wait_ms = _BUSY, "B14", error.wait_ms
            except QueueFull:
                code, number, wait_ms = _BUSY, "B14", BUSY_WAIT_MS
            except (TimeoutError, StoreError, DecodeError, CohortiumError) as error:
                code, number = _status(error)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                # No text of an exception leaves: gRPC would send it.
                logger.error("a fault of type %s", type(error).__name__)  # noqa: TRY400
                code, number = grpc.StatusCode.INTERNAL, "fault"
            self._say(caller, number)
            waiting = ((PUSHBACK, str(wait_ms)),) if wait_ms else ()
            await context.abort(code, number, waiting)
            raise AssertionError  # abort always raises

        return handler


_BUSY: Final = grpc.StatusCode.RESOURCE_EXHAUSTED


def _status(error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, TimeoutError):
        return grpc.StatusCode.DEADLINE_EXCEEDED, "late"
    if isinstance(error, StoreError):
        return grpc.StatusCode.UNAVAILABLE, "store"
    number = getattr(error, "number", "") or "B1"
    return _STATUS.get(number, grpc.StatusCode.INVALID_ARGUMENT), number


def _check_member(caller: Member, view: RelayView) -> None:
    if caller.is_board:
        check_board(caller, view.newest)
        return
    # A site that the roster does not name yet must get the roster that will.
    is_revoked = any(
        site.site_id == caller.member_id and site.status is Standing.REVOKED
        for site in view.newest.sites
    )
    if is_revoked or caller.member_id not in view.admitted_sites:
        raise refusal(
            "B12", expected="an admitted site that is not revoked", arrived=caller.member_id
        )


def _caller(context: Any) -> Member:
    # TLS let nobody in without a certificate of the authority; a name is in each of them.
    [name] = context.auth_context()["x509_common_name"]
    return member_of(name.decode())


async def _pages(
    read_page: Callable[[int, int], Sequence[RowT]], after: int, limit: int
) -> AsyncIterator[RowT]:
    left = min(limit, ROWS_PER_CALL_MAX) if limit > 0 else ROWS_PER_CALL_MAX
    while left:
        page = await asyncio.to_thread(read_page, after, left)
        if not page:
            return
        for row in page:
            yield row
        after, left = page[-1].position, left - len(page)
