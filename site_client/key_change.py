"""A site's next signing key: made here, countersigned by the one in use, taken when it is known.

    (1) `begin`: the next key, a request with it, and the old key's word for it (O8)
    (2) people: the coordinator takes it (`change-key`), the next roster names it (`roster rotate`)
    (3) `finish`, with the coordinator's answer: approvals are signed anew, the next key is in use
The old key signs until (3). A crash between the two halves of (3) is mended by doing it again.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from common.clock import Clock
from common.crypto.keys import OpeningKey, SigningKey, VerifyKey
from common.errors import EnrolmentError
from common.ids import parse_site_id
from common.protocol.enrolment import EnrolmentRecord, read_enrolment, write_request
from common.protocol.enrolment_records import EnrolmentRequest
from common.protocol.monitoring.roster import Standing
from common.protocol.monitoring.roster_file import sign_key_change
from site_client.approvals import Approvals
from site_client.config import SitePaths
from site_client.enrolment import check_joined, own_request
from site_client.monitoring.roster_pin import RosterPin
from site_client.site_database import SiteDatabase


@dataclass(frozen=True)
class KeyChange:
    """What people carry to the coordinator and to the roster's authority.

    Args:
        fingerprint: of the next key, for the telephone.
        key_epoch: its number.
        countersignature: by the key in use, in base64.
    """

    fingerprint: str
    key_epoch: int
    countersignature: str


def begin_key_change(
    paths: SitePaths, *, organisation: str, contact: str, out: Path, clock: Clock
) -> KeyChange:
    """Make the next signing key once, and write a request with it; the key in use stays in use.

    Raises:
        EnrolmentError: this site has not joined, or the pinned roster knows it by another key.
        KeyFileError: a key cannot be read or written.
    """
    check_joined(paths)
    record, old = read_enrolment(paths.enrolment), SigningKey.read(paths.signing_key)
    if not paths.next_signing_key.exists():
        SigningKey.generate().write(paths.next_signing_key)
    new = SigningKey.read(paths.next_signing_key)
    consortium, key_epoch = _next_epoch(paths, record, old.verify_key, clock)
    site_id = parse_site_id(record.site_id)
    request: EnrolmentRequest = own_request(
        paths,
        site_id=site_id,
        organisation=organisation,
        contact=contact,
        verify_key=new.verify_key,
        sealing_key=OpeningKey.read(paths.opening_key).sealing_key,
        now_s=clock.now_s(),
    )
    write_request(out, request, new)
    word = sign_key_change(
        old, consortium=consortium, site_id=site_id, key_epoch=key_epoch, new=new.verify_key
    )
    return KeyChange(new.fingerprint, key_epoch, base64.b64encode(word).decode())


def finish_key_change(paths: SitePaths, answer: Path, clock: Clock) -> bool:
    """Take the next key into use if the coordinator's answer names it; return whether it did.

    Raises:
        EnrolmentError: the answer is not of the coordinator that this site joined.
        SignatureError: a stored approval is signed by neither key.
    """
    if not paths.next_signing_key.exists() or not paths.enrolment.exists():
        return False
    record, pinned = read_enrolment(answer), read_enrolment(paths.enrolment)
    new = SigningKey.read(paths.next_signing_key)
    named = {entry.site_id: entry.verify_key for entry in record.roster.sites}
    if named.get(pinned.site_id) != new.verify_key.to_text():
        return False
    if record.coordinator_verify_key != pinned.coordinator_verify_key:
        raise EnrolmentError(
            "the answer to a key change is of another coordinator",
            expected="the coordinator that this site joined",
            arrived="another key",
            todo="call the coordinator on a number you know",
        )
    old = SigningKey.read(paths.signing_key)
    database = SiteDatabase(paths.database)
    try:
        Approvals(database, clock, old.verify_key).sign_anew(new)
    finally:
        database.close()
    os.replace(paths.next_signing_key, paths.signing_key)
    return True


def _next_epoch(
    paths: SitePaths, record: EnrolmentRecord, key: VerifyKey, clock: Clock
) -> tuple[str, int]:
    """Return the consortium and the next key's number, as the pinned roster counts them."""
    database = SiteDatabase(paths.database)
    try:
        roster = RosterPin(database, clock).roster()
    finally:
        database.close()
    if roster is None:
        return record.consortium, 2
    known = {site.site_id: site for site in roster.sites}.get(parse_site_id(record.site_id))
    if known is None:
        return roster.consortium, 2
    if known.verify_key != key or known.status is Standing.REVOKED:
        raise EnrolmentError(
            "this site's key cannot countersign another",
            expected="the key that the newest roster knows, not revoked",
            arrived="another, or a revoked one",
            todo="finish the change before this one; a site whose key is revoked enrols anew",
        )
    return roster.consortium, known.key_epoch + 1
