"""Identifiers, parsed once at the edge and never bare strings inside."""

from __future__ import annotations

import re
from typing import NewType

from common.errors import ProtocolError

StudyId = NewType("StudyId", str)
SiteId = NewType("SiteId", str)
BoardId = NewType("BoardId", str)
"""A monitor board's, or an aggregator's of a secure sum."""
Digest = NewType("Digest", str)
"""SHA-256 of a record, 64 lower-case hexadecimal characters."""
RequestId = NewType("RequestId", str)
"""128 random bits chosen by the coordinator for one request, 32 hexadecimal characters."""
ReleaseId = NewType("ReleaseId", str)
"""What the gate names one release; 64 hexadecimal characters, stable across retries."""

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_HEX32 = re.compile(r"[0-9a-f]{32}")
SLUG_RULE = "1 to 63 lower-case letters, digits and hyphens, not starting or ending with a hyphen"


def _refuse(kind: str, rule: str, arrived: str) -> ProtocolError:
    return ProtocolError(
        f"not a {kind}", expected=rule, arrived=repr(arrived[:80]), todo=f"give a valid {kind}"
    )


def parse_study_id(text: str) -> StudyId:
    """Parse a study id; raises `ProtocolError` for anything but a slug."""
    if not _SLUG.fullmatch(text):
        raise _refuse("study id", SLUG_RULE, text)
    return StudyId(text)


def parse_site_id(text: str) -> SiteId:
    """Parse a site id; raises `ProtocolError` for anything but a slug."""
    if not _SLUG.fullmatch(text):
        raise _refuse("site id", SLUG_RULE, text)
    return SiteId(text)


def parse_board_id(text: str) -> BoardId:
    """Parse the id of a board or aggregator; raises `ProtocolError` for anything but a slug."""
    if not _SLUG.fullmatch(text):
        raise _refuse("board id", SLUG_RULE, text)
    return BoardId(text)


def parse_digest(text: str) -> Digest:
    """Parse a SHA-256 digest in hexadecimal; raises `ProtocolError`."""
    if not _HEX64.fullmatch(text):
        raise _refuse("digest", "64 lower-case hexadecimal characters", text)
    return Digest(text)


def parse_request_id(text: str) -> RequestId:
    """Parse a request id; raises `ProtocolError`."""
    if not _HEX32.fullmatch(text):
        raise _refuse("request id", "32 lower-case hexadecimal characters", text)
    return RequestId(text)


def parse_release_id(text: str) -> ReleaseId:
    """Parse a release id; raises `ProtocolError`."""
    if not _HEX64.fullmatch(text):
        raise _refuse("release id", "64 lower-case hexadecimal characters", text)
    return ReleaseId(text)
