"""Messages to bytes and back: a canonical JSON head and a raw body, each in its frame.

Layout (docs/protocol.md, clauses M1 to M9). Reading is strict: a message has one byte form, so what
was decoded, encoded again, gives the same head.
"""

from __future__ import annotations

from common import limits
from common.canonical import Canonical, canonical_bytes, canonical_float, parse_canonical
from common.errors import ProtocolError
from common.ids import parse_digest, parse_release_id
from common.protocol.fields import Fields
from common.protocol.frames import join_frames, split_frames
from common.protocol.mechanisms import mechanism_from_record, mechanism_to_record
from common.protocol.messages import (
    EvaluationCounts,
    LedgerStatement,
    RefusedTask,
    ReleasedTask,
    TaskKind,
    TaskReply,
    TaskRequest,
)
from common.protocol.refusals import REFUSALS

_VERSION = 1
_COUNT_MAX = 10**9
_ROUND_MAX = limits.ROUNDS_MAX + 1


def encode_request(request: TaskRequest) -> bytes:
    """Return the byte form of a request."""
    return join_frames([_request_head(request), request.parameters])


def decode_request(data: bytes) -> TaskRequest:
    """Return the request in `data`; raises `ProtocolError`."""
    head, parameters = _split(data)
    fields = _fields(head, "task-request")
    request = TaskRequest(
        plan_digest=parse_digest(fields.text("plan_digest")),
        round_number=fields.integer("round", minimum=0, maximum=_ROUND_MAX),
        kind=_kind(fields),
        evaluate=fields.boolean("evaluate"),
        base_version=parse_digest(fields.text("base_version")),
        parameters=bytes(parameters),
    )
    fields.close()
    _check_scale(fields, request)
    if request.kind is TaskKind.EVALUATE and not request.evaluate:
        raise fields.refuse("evaluate", "true, because the kind is evaluate")
    if request.kind is TaskKind.COUNT and request.evaluate:
        raise fields.refuse("evaluate", "false, because the kind is count")
    if request.kind is TaskKind.SCALE and (request.evaluate or request.parameters):
        raise fields.refuse("evaluate", "false and no model, because the kind is scale")
    _check_same(_request_head(request), head)
    return request


def encode_reply(reply: TaskReply) -> bytes:
    """Return the byte form of a reply."""
    update = b"" if isinstance(reply, RefusedTask) else reply.update
    return join_frames([_reply_head(reply), update])


def decode_reply(data: bytes) -> TaskReply:
    """Return the reply in `data`; raises `ProtocolError`."""
    head, update = _split(data)
    record = parse_canonical(head)
    is_refusal = isinstance(record, dict) and record.get("message") == "task-refused"
    reply: TaskReply
    if is_refusal:
        reply = _decode_refusal(_fields(head, "task-refused"), update)
    else:
        reply = _decode_release(_fields(head, "task-released"), update)
    _check_same(_reply_head(reply), head)
    return reply


def _request_head(request: TaskRequest) -> bytes:
    return canonical_bytes(
        {
            "base_version": request.base_version,
            "evaluate": request.evaluate,
            "kind": request.kind.value,
            "message": "task-request",
            "plan_digest": request.plan_digest,
            "round": request.round_number,
            "version": _VERSION,
        }
    )


def _reply_head(reply: TaskReply) -> bytes:
    if isinstance(reply, RefusedTask):
        return canonical_bytes(
            {
                "message": "task-refused",
                "number": reply.number,
                "plan_digest": reply.plan_digest,
                "round": reply.round_number,
                "version": _VERSION,
            }
        )
    evaluation: Canonical = None
    if reply.evaluation is not None:
        evaluation = {
            "counts": [list(row) for row in reply.evaluation.counts],
            "model_version": reply.evaluation.model_version,
            "noise_multiplier": canonical_float(reply.evaluation.noise_multiplier),
        }
    head: Canonical = {
        "base_version": reply.base_version,
        "declared_cohort_size": reply.declared_cohort_size,
        "evaluation": evaluation,
        "kind": reply.kind.value,
        "mechanisms": [mechanism_to_record(item) for item in reply.mechanisms],
        "message": "task-released",
        "plan_digest": reply.plan_digest,
        "release_id": reply.release_id,
        "round": reply.round_number,
        "statement": {
            "delta": canonical_float(reply.statement.delta),
            "epsilon_remaining": canonical_float(reply.statement.epsilon_remaining),
            "epsilon_spent": canonical_float(reply.statement.epsilon_spent),
            "ledger_head": reply.statement.ledger_head,
        },
        "version": _VERSION,
    }
    return canonical_bytes(head)


def _decode_release(fields: Fields, update: memoryview) -> ReleasedTask:
    mechanisms = fields.value("mechanisms")
    if not isinstance(mechanisms, list) or len(mechanisms) > limits.LEDGER_RECORDS_PER_RELEASE_MAX:
        raise fields.refuse("mechanisms", "a short list")
    reply = ReleasedTask(
        plan_digest=parse_digest(fields.text("plan_digest")),
        round_number=fields.integer("round", minimum=0, maximum=_ROUND_MAX),
        kind=_kind(fields),
        base_version=parse_digest(fields.text("base_version")),
        release_id=parse_release_id(fields.text("release_id")),
        declared_cohort_size=fields.integer("declared_cohort_size", minimum=1, maximum=_COUNT_MAX),
        update=bytes(update),
        evaluation=_evaluation(fields.value("evaluation")),
        mechanisms=tuple(mechanism_from_record(item) for item in mechanisms),
        statement=_statement(fields.value("statement")),
    )
    fields.close()
    _check_scale(fields, reply)
    if reply.kind is TaskKind.SCALE and reply.evaluation is not None:
        raise fields.refuse("evaluation", "null, because the kind is scale")
    if reply.kind is TaskKind.EVALUATE and reply.evaluation is None:
        raise fields.refuse("evaluation", "counts, because the kind is evaluate")
    if reply.kind is TaskKind.EVALUATE and reply.update:
        raise fields.refuse("kind", "train, because there is an update")
    if reply.kind is TaskKind.COUNT and reply.evaluation is not None:
        raise fields.refuse("evaluation", "none, because the kind is count")
    return reply


def _decode_refusal(fields: Fields, rest: memoryview) -> RefusedTask:
    number = fields.text("number")
    if number not in REFUSALS or len(rest):
        raise fields.refuse("number", "a refusal number and nothing else")
    refusal = RefusedTask(
        plan_digest=parse_digest(fields.text("plan_digest")),
        round_number=fields.integer("round", minimum=0, maximum=_ROUND_MAX),
        number=number,
    )
    fields.close()
    return refusal


def _split(data: bytes) -> tuple[bytes, memoryview]:
    """Return head and body; the head is bounded before anything parses it."""
    head, body = split_frames(data, count=2)
    if len(head) > limits.HEADER_BYTES_MAX:
        raise ProtocolError(
            "a message head is refused",
            expected=f"at most {limits.HEADER_BYTES_MAX} bytes",
            arrived=f"{len(head)} bytes",
            todo="use the same software version on both sides",
        )
    return bytes(head), body


def _check_same(encoded_again: bytes, head: bytes) -> None:
    if encoded_again != head:
        raise ProtocolError(
            "a message head is refused",
            expected="the one byte form of this message",
            arrived="another form of the same message",
            todo="use the same software version on both sides",
        )


def _fields(head: bytes, message: str) -> Fields:
    fields = Fields(parse_canonical(head), message)
    if fields.text("message") != message:
        raise fields.refuse("message", message)
    fields.integer("version", minimum=_VERSION, maximum=_VERSION)
    return fields


def _kind(fields: Fields) -> TaskKind:
    text = fields.text("kind")
    try:
        return TaskKind(text)
    except ValueError:
        raise fields.refuse("kind", "train, scale, evaluate or count") from None


def _check_scale(fields: Fields, message: TaskRequest | ReleasedTask) -> None:
    if (message.kind is TaskKind.SCALE) != (message.round_number == 0):
        raise fields.refuse("round", "0 exactly when the kind is scale")


def _evaluation(record: Canonical) -> EvaluationCounts | None:
    if record is None:
        return None
    fields = Fields(record, "evaluation")
    rows = fields.value("counts")
    if not isinstance(rows, list) or len(rows) != 2 or not isinstance(rows[0], list):
        raise fields.refuse("counts", "two rows of integers")
    bins = len(rows[0])
    if not 1 <= bins <= 1000:
        raise fields.refuse("counts", "1 to 1000 score bins")
    table = [
        Fields({"row": row}, "evaluation").integers(
            "row", count=bins, minimum=-_COUNT_MAX, maximum=_COUNT_MAX
        )
        for row in rows
    ]
    evaluation = EvaluationCounts(
        model_version=parse_digest(fields.text("model_version")),
        counts=(table[0], table[1]),
        noise_multiplier=fields.real("noise_multiplier", minimum=1e-6, maximum=1e9),
    )
    fields.close()
    return evaluation


def _statement(record: Canonical) -> LedgerStatement:
    fields = Fields(record, "ledger statement")
    statement = LedgerStatement(
        epsilon_spent=fields.real("epsilon_spent", minimum=0.0, maximum=1e6),
        epsilon_remaining=fields.real("epsilon_remaining", minimum=0.0, maximum=1e6),
        delta=fields.real("delta", minimum=0.0, maximum=1.0),
        ledger_head=parse_digest(fields.text("ledger_head")),
    )
    fields.close()
    return statement
