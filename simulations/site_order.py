"""Replies in the order in which the sites were asked: a float sum depends on its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from common.ids import SiteId
from server.site_channel import Arrived, Missing, SiteChannel


class InSiteOrder:
    """Yields what another channel brings in the order asked; early ones wait.

    Args:
        channel: brings replies in any order.
    """

    def __init__(self, channel: SiteChannel) -> None:
        self._channel = channel

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask as `SiteChannel` does."""
        waiting: dict[SiteId, Arrived | Missing] = {}
        order = iter(requests)
        wanted = next(order, None)
        for event in self._channel.ask(requests, deadline_s=deadline_s):
            waiting[event.site_id] = event
            while wanted in waiting:
                yield waiting.pop(wanted)
                wanted = next(order, None)
        yield from waiting.values()
