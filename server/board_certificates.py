"""Let a monitor board or an aggregator reach the relay: a signed file with its certificate."""

from __future__ import annotations

from pathlib import Path

from common.clock import Clock
from common.crypto.certificates import Authority, TlsKey, tls_fingerprint
from common.crypto.keys import SigningKey, is_same_fingerprint
from common.errors import ConfigError, EnrolmentError
from common.protocol.board_certificate import write_board_certificate
from common.protocol.enrolment_records import BoardCertificate
from server.config import CoordinatorPaths, ServerConfig


def issue_board_certificate(
    request: Path,
    *,
    board_id: str,
    fingerprint: str,
    answer: Path,
    paths: CoordinatorPaths,
    config: ServerConfig,
    clock: Clock,
) -> BoardCertificate:
    """Write the signed file for a board's certificate request.

    Args:
        request: PEM file that the board made.
        board_id: as in the monitoring roster; the name in the request is not looked at.
        fingerprint: of the request's key, as the board read it on the telephone.
        answer: where the file is written.
        paths, config: of the coordinator.
        clock: the time.

    Raises:
        ConfigError: without a relay there is nothing to reach.
        EnrolmentError: for another request, key or id.
    """
    if not config.relay_address:
        raise ConfigError(
            "this coordinator has no relay",
            expected=f"[relay] with a port in {paths.config}",
            arrived="none",
            todo="add it, see docs/operating-a-coordinator.md",
        )
    pem = _read(request)
    found = tls_fingerprint(pem)
    if not is_same_fingerprint(found, fingerprint):
        raise EnrolmentError(
            "a board's certificate request is refused",
            expected=f"the key with the fingerprint you were told: {fingerprint}",
            arrived=found,
            todo="call the board on a number you know: somebody may have replaced its file",
        )
    authority = Authority.from_pem(
        paths.ca_certificate.read_text(encoding="ascii"), TlsKey.read(paths.ca_key)
    )
    signing_key = SigningKey.read(paths.signing_key)
    record = BoardCertificate(
        version=1,
        consortium=config.consortium,
        board_id=board_id,
        relay_address=config.relay_address,
        coordinator_verify_key=signing_key.verify_key.to_text(),
        ca_certificate=authority.certificate_pem,
        certificate=authority.issue_board_certificate(pem, board_id, now_s=clock.now_s()),
        issued_at_s=clock.now_s(),
    )
    write_board_certificate(answer, record, signing_key)
    return record


def _read(request: Path) -> str:
    try:
        return request.read_text(encoding="ascii")[:20_000]
    except (OSError, UnicodeDecodeError) as error:
        raise EnrolmentError(
            "a board's certificate request cannot be read",
            expected=f"a PEM file {request}",
            arrived=getattr(error, "strerror", None) or "other bytes",
            todo="ask the board for its request again",
        ) from None
