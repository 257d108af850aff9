"""A large update is never held more than a few times over."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from common.protocol.arrays import decode_parameters, encode_parameters
from common.protocol.codec import decode_reply, encode_reply
from common.protocol.envelope import open_envelope, seal_envelope
from common.protocol.messages import Direction, ReleasedTask
from tests.lib.messages import Party, header, release

NUMBERS = 4 << 20
UPDATE_BYTES = 4 * NUMBERS


def _copies(work: Callable[[], object]) -> tuple[float, object]:
    """Return how many times the update's size was newly allocated at the peak, and the result."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1] / UPDATE_BYTES, result
    finally:
        tracemalloc.stop()


def test_each_step_from_arrays_to_envelope_and_back_holds_at_most_two_copies() -> None:
    site, coordinator = Party.fresh(), Party.fresh()
    arrays = {"w": np.ones(NUMBERS, dtype=np.float32)}
    copies: dict[str, float] = {}
    copies["encode_parameters"], update = _copies(lambda: encode_parameters(arrays))
    assert isinstance(update, bytes)
    reply = replace(release(), update=update)
    copies["encode_reply"], message = _copies(lambda: encode_reply(reply))
    assert isinstance(message, bytes)
    copies["seal_envelope"], envelope = _copies(
        lambda: seal_envelope(
            header(site, coordinator, direction=Direction.REPLY),
            message,
            signing_key=site.signing,
            recipient=coordinator.opening.sealing_key,
        )
    )
    assert isinstance(envelope, bytes)
    copies["open_envelope"], opened = _copies(
        lambda: open_envelope(
            envelope,
            verify_key=site.signing.verify_key,
            opening_key=coordinator.opening,
            direction=Direction.REPLY,
        )
    )
    assert isinstance(opened, tuple)
    copies["decode_reply"], decoded = _copies(lambda: decode_reply(opened[1]))
    assert isinstance(decoded, ReleasedTask)
    copies["decode_parameters"], _ = _copies(
        lambda: decode_parameters(
            decoded.update, expected={"w": (NUMBERS,)}, bytes_max=UPDATE_BYTES + 1024
        )
    )
    assert max(copies.values()) < 2.1, copies
