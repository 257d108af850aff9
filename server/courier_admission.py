"""Which couriers the public listener lets through: those of sites that are active at this moment.

Flower knows a node as registered or not, and never registers a key again that was unregistered.
Suspension is therefore ours: a suspended site's requests end here, and readmitting it opens the
same door again with the same key.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Final

from common.crypto.node_key import node_public_pem
from common.errors import StoreError
from server.site_directory import Site

REFRESH_S: Final = 1.0


class CourierAdmission:
    """Answers for one request header; looks at the store at most once a second.

    Args:
        active_sites: reads the store.
    """

    def __init__(self, active_sites: Callable[[], Iterable[Site]]) -> None:
        self._active_sites = active_sites
        self._admitted: frozenset[bytes] = frozenset()
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def is_admitted(self, header: bytes) -> bool:
        """Return whether a `flwr-public-key` header is of an active site's courier.

        A store that cannot be read changes nothing: nobody is admitted who was not before.
        """
        async with self._lock:
            if time.monotonic() - self._read_at >= REFRESH_S:
                with contextlib.suppress(StoreError):
                    self._admitted = await asyncio.to_thread(self._read)
                self._read_at = time.monotonic()
        return header in self._admitted

    def _read(self) -> frozenset[bytes]:
        return frozenset(
            b64encode(node_public_pem(site.node_public_key)) for site in self._active_sites()
        )
