"""How the coordinator asks sites: envelopes out, envelopes or reasons back, as they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from common.ids import SiteId


@dataclass(frozen=True)
class Arrived:
    """One envelope that claims to come from a site; nothing in it is checked yet."""

    site_id: SiteId
    envelope: bytes


@dataclass(frozen=True)
class Missing:
    """One site from which nothing came.

    Args:
        site_id: the site asked.
        reason: what we saw, a short phrase of ours: never text from the other side.
    """

    site_id: SiteId
    reason: str


class SiteChannel(Protocol):
    """Something that carries envelopes to sites and back."""

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask sites at the same time and yield what comes, until all came or the deadline.

        Args:
            requests: for each site, a function that makes its envelope. It is called once for each
                sending, so that not all envelopes lie in memory together, and gives the same bytes.
            deadline_s: seconds from now; each site that has not answered by then is `Missing`.
        """
        ...
