"""Plan files that were read and checked before: what a cache hit needs of a plan is its digest.

To check a plan's promise of privacy takes a second; the same bytes, checked by the same software,
are the same plan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from common.canonical import Canonical, canonical_bytes, digest_bytes, parse_canonical
from common.errors import CohortiumError
from common.ids import Digest, parse_digest
from common.whole_file import write_whole
from site_client.features.store_entry import software_version

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
        found = self._known().get(_of_file(content))
        try:
            return parse_digest(found) if isinstance(found, str) else None
        except CohortiumError:
            return None

    def remember(self, content: bytes, digest: Digest) -> None:
        """Remember what a file's bytes were read as; raises `OSError`."""
        known = self._known()
        if len(known) >= _KNOWN_MAX:
            known.clear()
        known[_of_file(content)] = digest
        write_whole(self._memory, canonical_bytes(known))
        self._memory.chmod(0o600)

    def _known(self) -> dict[str, Canonical]:
        try:
            record = parse_canonical(self._memory.read_bytes())
        except (OSError, CohortiumError):
            return {}
        return dict(record) if isinstance(record, dict) else {}


def _of_file(content: bytes) -> str:
    return digest_bytes("plan-file", software_version().encode(), content)
