"""The coordinator's answer to a site: a certificate, and the signed file that names its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, update

from common.crypto.certificates import Authority, TlsKey, expires_at_s
from common.crypto.keys import OpeningKey, SigningKey
from common.protocol.enrolment import (
    EnrolmentRecord,
    EnrolmentRequest,
    Roster,
    request_digest,
    write_enrolment,
)
from server.config import CoordinatorPaths, ServerConfig
from server.storage.tables import sites

RENEW_S: Final = 365 * 24 * 3600


def write_answer(
    answer: Path,
    request: EnrolmentRequest,
    certificate: str,
    roster: Roster,
    *,
    paths: CoordinatorPaths,
    config: ServerConfig,
    now_s: int,
) -> None:
    """Write the enrolment file that answers a request; raises `KeyFileError`."""
    record = EnrolmentRecord(
        version=1,
        consortium=config.consortium,
        site_id=request.site_id,
        coordinator_verify_key=SigningKey.read(paths.signing_key).verify_key.to_text(),
        coordinator_sealing_key=OpeningKey.read(paths.opening_key).sealing_key.to_text(),
        coordinator_address=config.address,
        ca_certificate=paths.ca_certificate.read_text(encoding="ascii"),
        site_certificate=certificate,
        request_digest=request_digest(request),
        roster=roster,
        issued_at_s=now_s,
    )
    write_enrolment(answer, record, SigningKey.read(paths.signing_key))


def issue(request: EnrolmentRequest, *, paths: CoordinatorPaths, now_s: int) -> str:
    """Return a certificate for the key in a request; raises `EnrolmentError`."""
    authority = Authority.from_pem(
        paths.ca_certificate.read_text(encoding="ascii"), TlsKey.read(paths.ca_key)
    )
    return authority.issue_site_certificate(
        request.certificate_request, request.site_id, now_s=now_s
    )


def renewed(
    connection: Connection,
    request: EnrolmentRequest,
    certificate: str,
    *,
    paths: CoordinatorPaths,
    now_s: int,
) -> str:
    """Return the site's certificate, issued anew in its last year."""
    if expires_at_s(certificate) - now_s > RENEW_S:
        return certificate
    certificate = issue(request, paths=paths, now_s=now_s)
    connection.execute(
        update(sites).where(sites.c.site_id == request.site_id).values(certificate=certificate)
    )
    return certificate
