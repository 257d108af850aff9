"""Make the frozen bytes of protocol version 1; `python -m tests.lib.protocol_vectors FOLDER`.

The committed vectors are never made again: a sealed envelope is random, and what was sealed under
version 1 must open for as long as version 1 is supported. A new version adds its own folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from common.protocol.codec import encode_reply, encode_request
from common.protocol.enrolment import request_digest, write_enrolment, write_request
from common.protocol.envelope import envelope_digest, seal_envelope
from common.protocol.messages import Direction
from tests.lib.enrolment import enrolment_record, enrolment_request
from tests.lib.messages import (
    BASE_VERSION,
    PARAMETERS,
    Party,
    count_release,
    count_request,
    header,
    refusal,
    release,
    request,
    scale_release,
    scale_request,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "protocol-1"
COORDINATOR_SEED, SITE_SEED = 1, 2


def parties(folder: Path) -> tuple[Party, Party]:
    """Return the coordinator and the site of the vectors; their keys are public."""
    return (
        Party.fixed(folder / "coordinator", COORDINATOR_SEED),
        Party.fixed(folder / "site", SITE_SEED),
    )


def make(into: Path) -> None:
    """Write every vector into a new folder."""
    into.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        coordinator, site = parties(Path(scratch))
        asked, answered = encode_request(request()), encode_reply(release())
        to_site = seal_envelope(
            header(coordinator, site),
            asked,
            signing_key=coordinator.signing,
            recipient=site.opening.sealing_key,
        )
        to_coordinator = seal_envelope(
            header(site, coordinator, direction=Direction.REPLY),
            answered,
            signing_key=site.signing,
            recipient=coordinator.opening.sealing_key,
        )
        enrolling = enrolment_request(site, Path(scratch))
        write_request(into / "enrolment-request.json", enrolling, site.signing)
        record = enrolment_record(enrolling, coordinator)
        write_enrolment(into / "enrolment.json", record, coordinator.signing)
    vectors = {
        "coordinator_signing_fingerprint": coordinator.signing.fingerprint,
        "coordinator_opening_fingerprint": coordinator.opening.fingerprint,
        "site_verify_key": site.signing.verify_key.to_text(),
        "site_sealing_key": site.opening.sealing_key.to_text(),
        "parameters": PARAMETERS.hex(),
        "parameters_digest": BASE_VERSION,
        "request": asked.hex(),
        "release": answered.hex(),
        "refusal": encode_reply(refusal()).hex(),
        "request_envelope": to_site.hex(),
        "request_envelope_digest": envelope_digest(to_site),
        "reply_envelope": to_coordinator.hex(),
        "enrolment_request_digest": request_digest(enrolling),
    }
    scaling = {
        "request": encode_request(scale_request()).hex(),
        "release": encode_reply(scale_release()).hex(),
    }
    (into / "scaling.json").write_text(json.dumps(scaling, indent=2) + "\n", encoding="ascii")
    (into / "messages.json").write_text(json.dumps(vectors, indent=2) + "\n", encoding="ascii")


def make_count(into: Path) -> None:
    """Write the vectors of a count, which version 1 has had since it can select."""
    asked, answered = count_request(), count_release()
    vectors = {
        "question_digest": asked.base_version,
        "request": encode_request(asked).hex(),
        "release": encode_reply(answered).hex(),
    }
    (into / "count.json").write_text(json.dumps(vectors, indent=2) + "\n", encoding="ascii")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
    make_count(Path(sys.argv[1]))
