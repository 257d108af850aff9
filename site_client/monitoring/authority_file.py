"""The authority's public key, from a roster that it signed or from its text, and a telephone."""

from __future__ import annotations

from pathlib import Path

from common import limits
from common.crypto.keys import VerifyKey, is_same_fingerprint
from common.errors import CohortiumError, EnrolmentError
from common.protocol.monitoring.roster_file import AUTHORITY, read_roster
from common.protocol.monitoring.signed_notice import read_signed, verify_signed


def read_authority(path: Path, *, fingerprint: str) -> tuple[VerifyKey, bytes | None]:
    """Return the key, and the roster if the file is one.

    Args:
        path: of the file.
        fingerprint: as people compared it; spaces do not matter.

    Raises:
        EnrolmentError: the file holds no key, or another than the fingerprint's.
        SignatureError: the key did not sign the roster.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(limits.NOTICE_BYTES_MAX + 1)
    except OSError as error:
        raise _refuse(f"a readable file {path}", error.strerror or "an error") from None
    roster: bytes | None = None
    try:
        key = VerifyKey.from_text(content.decode("ascii", errors="replace").strip())
    except CohortiumError:
        key, roster = _of_roster(content.strip()), content.strip()
    if not is_same_fingerprint(key.fingerprint, fingerprint):
        raise _refuse(f"the key with fingerprint {fingerprint[:60]}", key.fingerprint)
    return key, roster


def _of_roster(content: bytes) -> VerifyKey:
    try:
        key = read_roster(content).authority
    except CohortiumError:
        raise _refuse("a roster, or a public key in base64", "something else") from None
    verify_signed(read_signed(content), by=AUTHORITY, key=key)
    return key


def _refuse(expected: str, arrived: str) -> EnrolmentError:
    return EnrolmentError(
        "the roster's authority is not trusted",
        expected=expected,
        arrived=arrived,
        todo="compare the fingerprint with the consortium's authority on a number that you know",
    )
