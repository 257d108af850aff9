"""One entry of the privacy ledger: immutable data, its bytes, and the digest that chains it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from common import limits
from common.canonical import Canonical, canonical_bytes, digest_record, parse_canonical
from common.errors import CohortiumError, LedgerError
from common.ids import Digest, ReleaseId, StudyId
from common.privacy.mechanism import MechanismRecord
from common.privacy.mechanism_record import mechanism_from_record, mechanism_to_record


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
    """

    kind: ClassVar[Literal["reserved"]] = "reserved"
    sequence: int
    release_id: ReleaseId
    at_s: int
    previous: Digest
    study_id: StudyId
    round_number: int
    mechanisms: tuple[MechanismRecord, ...]

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


LedgerEntry: TypeAlias = ReservedEntry | ReleasedEntry

_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, le=2**53 - 1)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    sequence: _Count
    release_id: _Hex
    at_s: _Count
    previous: _Hex
    digest: _Hex


class _ReservedShape(_Shape):
    kind: Literal["reserved"]
    study_id: Annotated[str, Field(min_length=1, max_length=63)]
    round_number: _Count
    mechanisms: Annotated[
        list[Any], Field(min_length=1, max_length=limits.LEDGER_RECORDS_PER_RELEASE_MAX)
    ]


class _ReleasedShape(_Shape):
    kind: Literal["released"]
    payload_digest: _Hex


_SHAPE: TypeAdapter[_ReservedShape | _ReleasedShape] = TypeAdapter(
    Annotated[_ReservedShape | _ReleasedShape, Field(discriminator="kind")]
)


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


def _entry_of(shape: _ReservedShape | _ReleasedShape) -> LedgerEntry:
    release_id, previous = ReleaseId(shape.release_id), Digest(shape.previous)
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
    )


def _body(entry: LedgerEntry) -> dict[str, Canonical]:
    body: dict[str, Canonical] = {
        "kind": entry.kind,
        "sequence": entry.sequence,
        "release_id": entry.release_id,
        "at_s": entry.at_s,
        "previous": entry.previous,
    }
    if isinstance(entry, ReleasedEntry):
        return body | {"payload_digest": entry.payload_digest}
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
