"""The one Flower bundle that this software accepts (docs/decisions/0002)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

BUNDLE_DIGEST: Final = "1c274df2236b1847036fb78f2c1cf4e5300890de3db0d0ef8a28dfdb8556b6cc"
"""SHA-256 of the thin bundle of this software version; a test rebuilds it."""


def is_pinned(content: bytes) -> bool:
    """Return whether these bytes are exactly the pinned bundle."""
    return hmac.compare_digest(hashlib.sha256(content).hexdigest(), BUNDLE_DIGEST)
