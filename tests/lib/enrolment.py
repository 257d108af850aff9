"""An enrolment request and the coordinator's answer that are right in every way."""

from __future__ import annotations

from pathlib import Path

from common.crypto.certificates import Authority, TlsKey, make_certificate_request
from common.crypto.node_key import make_node_key
from common.protocol.enrolment import (
    EnrolmentRecord,
    EnrolmentRequest,
    Roster,
    RosterEntry,
    request_digest,
)
from tests.lib.messages import NOW_S, Party


def enrolment_request(site: Party, folder: Path, site_id: str = "north") -> EnrolmentRequest:
    """Return a site's request; the node key's file lies in `folder`."""
    return EnrolmentRequest(
        version=1,
        site_id=site_id,
        organisation="North General Hospital",
        contact="it@north.example",
        verify_key=site.signing.verify_key.to_text(),
        sealing_key=site.opening.sealing_key.to_text(),
        node_public_key=make_node_key(folder / f"{site_id}-node.key"),
        certificate_request=make_certificate_request(TlsKey.generate(), site_id),
        created_at_s=NOW_S,
    )


def enrolment_record(request: EnrolmentRequest, coordinator: Party) -> EnrolmentRecord:
    """Return the coordinator's answer to a request."""
    authority = Authority.make("Test authority", TlsKey.generate(), now_s=NOW_S)
    entry = RosterEntry(site_id=request.site_id, verify_key=request.verify_key, status="active")
    return EnrolmentRecord(
        version=1,
        consortium="Heart network",
        site_id=request.site_id,
        coordinator_verify_key=coordinator.signing.verify_key.to_text(),
        coordinator_sealing_key=coordinator.opening.sealing_key.to_text(),
        coordinator_address="fed.example.org:8443",
        ca_certificate=authority.certificate_pem,
        site_certificate=authority.issue_site_certificate(
            request.certificate_request, request.site_id, now_s=NOW_S
        ),
        request_digest=request_digest(request),
        roster=Roster(version=1, sites=(entry,)),
        issued_at_s=NOW_S,
    )
