"""An envelope as the content of a Flower message, the same on both sides; only they import this.

Flower stores and sends each record of a message as an object of its own, each a request to the
SuperLink, which is where a round's time goes. A small envelope is therefore one `ConfigRecord` of
bytes (three objects with the message), a large one an `ArrayRecord`, which Flower cuts into chunks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common import limits

ENVELOPE_KEY: Final = "envelope"
ONE_OBJECT_BYTES_MAX: Final = 4 << 20  # below Flower's chunk of 5 MiB


def pack_envelope(envelope: bytes) -> RecordDict:
    """Return the content of a message that carries one envelope."""
    if len(envelope) <= ONE_OBJECT_BYTES_MAX:
        return RecordDict({ENVELOPE_KEY: ConfigRecord({ENVELOPE_KEY: envelope})})
    array = Array(np.frombuffer(envelope, dtype=np.uint8))
    return RecordDict({ENVELOPE_KEY: ArrayRecord({ENVELOPE_KEY: array})})


def unpack_envelope(content: RecordDict) -> bytes | None:
    """Return the envelope in a message, or None when there is none of at most the allowed size."""
    envelope: object = None
    try:
        record = content[ENVELOPE_KEY]
        if isinstance(record, ConfigRecord):
            envelope = record[ENVELOPE_KEY]
        elif isinstance(record, ArrayRecord):
            array = record[ENVELOPE_KEY].numpy()
            if array.dtype == np.uint8 and array.ndim == 1:
                envelope = array.tobytes()
    # NumPy's reader raises many types on hostile bytes; one site's reply must end no run.
    except Exception:
        return None
    if not isinstance(envelope, bytes) or len(envelope) > limits.ENVELOPE_BYTES_MAX:
        return None
    return envelope
