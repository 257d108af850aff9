"""The signed file with which a coordinator lets a monitor board reach its relay.

    N9   it is signed by the coordinator's signing key in it
    N10  the authority in it issued the certificate in it, for this board

Whose key that is, two people compare by telephone, as in enrolment. The certificate opens no
report: it only says who calls.
"""

from __future__ import annotations

from pathlib import Path

from common.canonical import canonical_bytes
from common.crypto.certificates import board_name, check_issued
from common.crypto.keys import SigningKey, VerifyKey
from common.crypto.signing import verify
from common.errors import CohortiumError, EnrolmentError
from common.protocol.enrolment_records import BoardCertificate
from common.protocol.signed_file import read_record, write_record

_LABEL = "board-certificate"


def write_board_certificate(path: Path, record: BoardCertificate, key: SigningKey) -> None:
    """Write the file, signed by the coordinator; raises `EnrolmentError`."""
    write_record(path, record, key, _LABEL)


def read_board_certificate(path: Path) -> BoardCertificate:
    """Read the file and run N9 and N10; raises `EnrolmentError`."""
    record, signature = read_record(BoardCertificate, path)
    number = "N9"
    try:
        key = VerifyKey.from_text(record.coordinator_verify_key)
        verify(key, _LABEL, signature, canonical_bytes(record.model_dump(mode="json")))
        number = "N10"
        check_issued(record.ca_certificate, record.certificate, board_name(record.board_id))
    except CohortiumError as error:
        raise EnrolmentError(
            error.refused,
            expected=error.expected,
            arrived=error.arrived,
            todo="ask the coordinator for the file again, over a channel you trust",
            number=number,
        ) from None
    return record
