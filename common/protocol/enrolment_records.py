"""What a site and the coordinator tell each other once, as frozen, strict models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from common import limits


def _printable(text: str) -> str:
    # Control and direction marks would let a name show as another on the admitting person's screen.
    if not text.isprintable():
        raise ValueError("printable characters on one line")
    return text


Slug = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
KeyText = Annotated[str, Field(min_length=40, max_length=4000)]
Pem = Annotated[str, Field(min_length=40, max_length=20_000)]
Seconds = Annotated[int, Field(ge=0, le=2**40)]
DigestText = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
HOST_AND_PORT = r"^(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$"
Address = Annotated[str, Field(max_length=260, pattern=HOST_AND_PORT)]
"""Host and port; an IPv6 address stands in brackets."""


class Record(BaseModel):
    """Base of every record: frozen, strict, no unknown key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class EnrolmentRequest(Record):
    """What a site asks with: who it is, and its public keys."""

    version: Literal[1]
    site_id: Slug
    organisation: Line
    contact: Line
    verify_key: KeyText
    sealing_key: KeyText
    node_public_key: KeyText
    certificate_request: Pem
    created_at_s: Seconds


class RosterEntry(Record):
    """One site as the other members of the consortium see it."""

    site_id: Slug
    verify_key: KeyText
    status: Literal["active", "suspended"]


class Roster(Record):
    """Who is in the consortium at one version of the list."""

    version: Annotated[int, Field(ge=1, le=2**40)]
    sites: Annotated[tuple[RosterEntry, ...], Field(max_length=limits.SITES_MAX, strict=False)]


class EnrolmentRecord(Record):
    """What the coordinator answers: its keys, its address, the site's certificate, the roster."""

    version: Literal[1]
    consortium: Line
    site_id: Slug
    coordinator_verify_key: KeyText
    coordinator_sealing_key: KeyText
    coordinator_address: Address
    ca_certificate: Pem
    site_certificate: Pem
    request_digest: DigestText
    roster: Roster
    issued_at_s: Seconds


class BoardCertificate(Record):
    """What the coordinator gives a monitor board or aggregator: the way to the relay."""

    version: Literal[1]
    consortium: Line
    board_id: Slug
    relay_address: Address
    coordinator_verify_key: KeyText
    ca_certificate: Pem
    certificate: Pem
    issued_at_s: Seconds
