"""One content sealed to several keys, in a notice: a list of fingerprints and sealed bytes."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable

from common.canonical import Canonical
from common.protocol.fields import Fields
from common.protocol.monitoring.report_header import FINGERPRINT
from common.protocol.monitoring.signed_notice import read_base64


def sealed_to_record(sealed: Iterable[tuple[str, bytes]]) -> list[Canonical]:
    """Return the canonical list of pairs of a receiver's fingerprint and sealed bytes."""
    return [
        {"recipient": fingerprint, "sealed": base64.b64encode(content).decode()}
        for fingerprint, content in sealed
    ]


def sealed_from_fields(
    fields: Fields, *, count_max: int, bytes_max: int
) -> tuple[tuple[str, bytes], ...]:
    """Consume the field `sealed` of a notice; raises `ProtocolError`."""
    found: list[tuple[str, bytes]] = []
    for item in fields.items("sealed", count_max=count_max):
        inner = Fields(item, "sealed copy")
        recipient = inner.text("recipient", length_max=64)
        if not FINGERPRINT.fullmatch(recipient):
            raise inner.refuse("recipient", "a fingerprint")
        found.append((recipient, read_base64(inner, "sealed", bytes_max=bytes_max)))
        inner.close()
    if any(first[0] >= second[0] for first, second in itertools.pairwise(found)):
        raise fields.refuse("sealed", "one for each receiver, rising by fingerprint")
    return tuple(found)
