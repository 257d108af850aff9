"""One entry of the privacy ledger: immutable data, its bytes, and the digest that chains it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common import limits
from common.canonical import (
    Canonical,
    canonical_bytes,
    canonical_float,
    digest_record,
    parse_canonical,
)
from common.errors import CohortiumError, LedgerError
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.accounts import ACCOUNT_PATTERN
from common.privacy.mechanism import MechanismRecord
from common.privacy.mechanism_record import (
    mechanism_from_record,
    mechanism_to_record,
    positive_real,
)


@dataclass(frozen=True)
class Commitment:
    """All that an approved plan may ever do to a site's patients.

    Args:
        study_id, plan_digest: the account (the study, or its monitoring) and the plan.
        epsilon, delta: what the plan promises.
        planned: every noisy step of the plan, grouped, each with how often it may be done.
    """

    study_id: StudyId
    plan_digest: Digest
    epsilon: float
    delta: float
    planned: tuple[tuple[MechanismRecord, int], ...]


@dataclass(frozen=True)
class CommittedEntry:
    """The charge for a whole study, written before its first reservation.

    When a study stops may depend on what was released, so what it promised counts and not what it
    used until then.

    Args:
        sequence: 1 for the first entry of the ledger.
        at_s: seconds since 1970.
        previous: digest of the entry before.
        commitment: what is charged.
    """

    kind: ClassVar[Literal["committed"]] = "committed"
    sequence: int
    at_s: int
    previous: Digest
    commitment: Commitment

    @cached_property
    def digest(self) -> Digest:
        """Digest of this entry, which the next one names."""
        return digest_record("privacy-ledger-entry", _body(self))


@dataclass(frozen=True)
class ReservedEntry:
    """The charge for one release, written before its noise is drawn.

    Args:
        sequence: 1 for the first entry of the ledger.
        release_id: the gate's name for the release.
        at_s: seconds since 1970.
        previous: digest of the entry before.
        study_id: the study.
        round_number: of the study.
        mechanisms: every noisy step of the release.
        plan_digest: the commitment of this study that pays for it; None is charged as itself.
    """

    kind: ClassVar[Literal["reserved"]] = "reserved"
    sequence: int
    release_id: ReleaseId
    at_s: int
    previous: Digest
    study_id: StudyId
    round_number: int
    mechanisms: tuple[MechanismRecord, ...]
    plan_digest: Digest | None = None

    @cached_property
    def digest(self) -> Digest:
        """Digest of this entry, which the next one names."""
        return digest_record("privacy-ledger-entry", _body(self))


@dataclass(frozen=True)
class ReleasedEntry:
    """That one payload leaves under a reservation; it charges nothing.

    Args:
        sequence, release_id, at_s, previous: as in `ReservedEntry`.
        payload_digest: of the only payload this release may ever have.
    """

    kind: ClassVar[Literal["released"]] = "released"
    sequence: int
    release_id: ReleaseId
    at_s: int
    previous: Digest
    payload_digest: Digest

    @cached_property
    def digest(self) -> Digest:
        """Digest of this entry, which the next one names."""
        return digest_record("privacy-ledger-entry", _body(self))


LedgerEntry: TypeAlias = CommittedEntry | ReservedEntry | ReleasedEntry

_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Real = Annotated[str, Field(min_length=1, max_length=30)]
_Study = Annotated[str, Field(pattern=ACCOUNT_PATTERN)]
_Count = Annotated[int, Field(ge=0, le=2**53 - 1)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    sequence: _Count
    at_s: _Count
    previous: _Hex
    digest: _Hex


class _PlannedShape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    count: Annotated[int, Field(ge=1, le=limits.STEPS_TOTAL_MAX)]
    mechanism: dict[str, Any]


class _CommittedShape(_Shape):
    kind: Literal["committed"]
    study_id: _Study
    plan_digest: _Hex
    epsilon: _Real
    delta: _Real
    planned: Annotated[
        list[_PlannedShape], Field(min_length=1, max_length=limits.LEDGER_RECORDS_PER_RELEASE_MAX)
    ]


class _ReservedShape(_Shape):
    kind: Literal["reserved"]
    release_id: _Hex
    plan_digest: _Hex | None = None
    study_id: _Study
    round_number: _Count
    mechanisms: Annotated[
        list[Any], Field(min_length=1, max_length=limits.LEDGER_RECORDS_PER_RELEASE_MAX)
    ]


class _ReleasedShape(_Shape):
    kind: Literal["released"]
    release_id: _Hex
    payload_digest: _Hex


_AnyShape: TypeAlias = _CommittedShape | _ReservedShape | _ReleasedShape
_SHAPE: TypeAdapter[_AnyShape] = TypeAdapter(Annotated[_AnyShape, Field(discriminator="kind")])


def entry_bytes(entry: LedgerEntry) -> bytes:
    """Return the bytes a store keeps: the canonical record of the entry and its digest."""
    return canonical_bytes({**_body(entry), "digest": entry.digest})


def parse_entry(data: bytes, sequence: int) -> LedgerEntry:
    """Parse stored bytes.

    Args:
        data: what the store returned.
        sequence: the entry's place, for the message.

    Raises:
        LedgerError: unless the bytes are exactly an entry with its own digest.
    """
    try:
        if len(data) > limits.LEDGER_ENTRY_BYTES_MAX:
            raise _unreadable(sequence, "more bytes than an entry has")
        shape = _SHAPE.validate_python(parse_canonical(data))
        entry = _entry_of(shape)
    except (CohortiumError, ValidationError):
        raise _unreadable(sequence, "bytes that are not an entry") from None
    if entry.digest != shape.digest:
        raise _unreadable(sequence, "an entry whose digest is another's")
    return entry


def _entry_of(shape: _AnyShape) -> LedgerEntry:
    previous = Digest(shape.previous)
    if isinstance(shape, _CommittedShape):
        return CommittedEntry(shape.sequence, shape.at_s, previous, _commitment_of(shape))
    release_id = ReleaseId(shape.release_id)
    if isinstance(shape, _ReleasedShape):
        return ReleasedEntry(
            sequence=shape.sequence,
            release_id=release_id,
            at_s=shape.at_s,
            previous=previous,
            payload_digest=Digest(shape.payload_digest),
        )
    return ReservedEntry(
        sequence=shape.sequence,
        release_id=release_id,
        at_s=shape.at_s,
        previous=previous,
        study_id=StudyId(shape.study_id),
        round_number=shape.round_number,
        mechanisms=tuple(mechanism_from_record(record) for record in shape.mechanisms),
        plan_digest=None if shape.plan_digest is None else Digest(shape.plan_digest),
    )


def _commitment_of(shape: _CommittedShape) -> Commitment:
    return Commitment(
        study_id=StudyId(shape.study_id),
        plan_digest=Digest(shape.plan_digest),
        epsilon=positive_real(shape.epsilon),
        delta=positive_real(shape.delta),
        planned=tuple(
            (mechanism_from_record(item.mechanism), item.count) for item in shape.planned
        ),
    )


def _body(entry: LedgerEntry) -> dict[str, Canonical]:
    body: dict[str, Canonical] = {
        "kind": entry.kind,
        "sequence": entry.sequence,
        "at_s": entry.at_s,
        "previous": entry.previous,
    }
    if isinstance(entry, CommittedEntry):
        commitment = entry.commitment
        return body | {
            "study_id": commitment.study_id,
            "plan_digest": commitment.plan_digest,
            "epsilon": canonical_float(commitment.epsilon),
            "delta": canonical_float(commitment.delta),
            "planned": [
                {"count": count, "mechanism": mechanism_to_record(mechanism)}
                for mechanism, count in commitment.planned
            ],
        }
    body |= {"release_id": entry.release_id}
    if isinstance(entry, ReleasedEntry):
        return body | {"payload_digest": entry.payload_digest}
    if entry.plan_digest is not None:  # entries from before there were commitments have no such key
        body |= {"plan_digest": entry.plan_digest}
    return body | {
        "study_id": entry.study_id,
        "round_number": entry.round_number,
        "mechanisms": [mechanism_to_record(mechanism) for mechanism in entry.mechanisms],
    }


def _unreadable(sequence: int, what: str) -> LedgerError:
    return LedgerError(
        f"the privacy ledger cannot be read at entry {sequence}",
        expected="an entry exactly as it was written",
        arrived=what,
        todo="stop releasing, keep the file as it is, and restore the newest backup",
    )
