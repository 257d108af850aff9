"""The scaling that a study's models came with first: later ones must have the same.

Parameters mean something only in the scaling in which they were trained: another one in the middle
of a study would spoil the model unseen. (It could not cost a patient more than was charged: scaling
acts on one row at a time, before its gradient is clipped.)
"""

from __future__ import annotations

from common.canonical import digest_bytes
from common.ids import Digest
from common.protocol.arrays import encode_parameters
from common.study.scaling import Scaling
from site_client.site_database import SiteDatabase


class ScalingPin:
    """One scaling for each plan, fixed by the first request that passes its checks."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    def is_same(self, plan_digest: Digest, scaling: Scaling) -> bool:
        """Pin a plan's scaling the first time; return whether it is the pinned one.

        Raises:
            LedgerError: when it cannot be written.
        """
        digest = digest_bytes("scaling", encode_parameters(scaling.arrays()))
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO scaling_pin VALUES (?, ?)", (plan_digest, digest)
            )
            (known,) = connection.execute(
                "SELECT digest FROM scaling_pin WHERE plan_digest = ?", (plan_digest,)
            ).fetchone()
        return bool(known == digest)
