"""Plan files that were read and checked before: what a cache hit needs of a plan is its digest.

To check a plan's promise of privacy takes a second; the same bytes, checked by the same software,
are the same plan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from common.canonical import digest_bytes
from common.errors import CohortiumError
from common.ids import Digest, parse_digest
from site_client.features.store_entry import software_version
from site_client.sources.remembered import read_remembered, remember

_KNOWN_MAX: Final = 1000


class PlanFiles:
    """Digests of plans by the content of their files.

    Args:
        memory: where; a damaged or missing one is made anew.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def find(self, content: bytes) -> Digest | None:
        """Return the digest of a plan whose file was read before; None: it was not."""
        found = read_remembered(self._memory).get(_of_file(content))
        try:
            return parse_digest(found) if isinstance(found, str) else None
        except CohortiumError:
            return None

    def remember(self, content: bytes, digest: Digest) -> None:
        """Remember what a file's bytes were read as; raises `OSError`."""
        known = read_remembered(self._memory)
        if len(known) >= _KNOWN_MAX:
            known.clear()
        known[_of_file(content)] = digest
        remember(self._memory, known)


def _of_file(content: bytes) -> str:
    return digest_bytes("plan-file", software_version().encode(), content)
