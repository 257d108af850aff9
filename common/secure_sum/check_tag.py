"""A tag by which whoever knows a key sees that a sum is the sum of what the sites sent.

Sites and board share a key that the aggregators do not know. For each sum it gives one secret
vector a; the tag of x is the inner product of a and x modulo 2^61 - 1. Tags add as vectors do. Who
changes a sum by D, not zero, must change its tag by (a, D), which is uniform to him: he is found
out but with a probability of 2^-61. (Wegman and Carter 1981; for sums, Agrawal and Boneh 2009.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.canonical import digest_bytes
from common.ids import Digest
from common.secure_sum.field import MODULUS, Elements
from common.secure_sum.stream import KEY_BYTES, elements_of

CHECK_KEY_BYTES: Final = KEY_BYTES


@dataclass(frozen=True, repr=False)
class SumKey:
    """The secret of one sum; it tells nothing of the key it comes from or of another sum's."""

    raw: bytes

    @classmethod
    def derive(cls, check_key: bytes, *, context: bytes) -> Self:
        """Return the secret for one sum from the consortium's check key (HKDF-SHA256)."""
        info = digest_bytes("secure-sum/sum-key", context).encode("ascii")
        kdf = HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info)
        return cls(kdf.derive(check_key))

    @property
    def commitment(self) -> Digest:
        """What everybody may know, so that all who sum use one secret."""
        return digest_bytes("secure-sum/commitment", self.raw)

    def tag(self, elements: Elements) -> int:
        """Return the inner product with the secret vector, modulo 2^61 - 1."""
        secret = elements_of(self.raw, label="tag", context=b"", count=len(elements))
        # Python's integers: products have up to 122 bits.
        pairs = zip(secret.tolist(), elements.tolist(), strict=True)
        return int(sum(factor * element for factor, element in pairs) % MODULUS)

    def __repr__(self) -> str:
        return f"SumKey({self.commitment[:8]})"
