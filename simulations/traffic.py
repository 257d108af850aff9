"""Count what a study sends and receives, envelope by envelope, while it runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from common.ids import SiteId
from common.protocol.envelope import read_header
from server.site_channel import Arrived, Missing, SiteChannel

Sizes: TypeAlias = Counter[tuple[int, str]]
"""Bytes by round and site."""


class CountedChannel:
    """A channel around another that writes down the size of each envelope.

    Args:
        inside: carries the envelopes.
        file: to which a line is added for each envelope, so that a resumed run goes on counting.
    """

    def __init__(self, inside: SiteChannel, *, file: Path) -> None:
        self._inside = inside
        self._file = file

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask as the channel inside does; see `SiteChannel`."""
        with self._file.open("a", encoding="utf-8", buffering=1) as lines:

            def counted(site_id: SiteId, make: Callable[[], bytes]) -> Callable[[], bytes]:
                def send() -> bytes:
                    envelope = make()
                    number = read_header(envelope).round_number
                    lines.write(json.dumps(["down", number, site_id, len(envelope)]) + "\n")
                    return envelope

                return send

            wrapped = {site_id: counted(site_id, make) for site_id, make in requests.items()}
            for event in self._inside.ask(wrapped, deadline_s=deadline_s):
                if isinstance(event, Arrived):
                    number = read_header(event.envelope).round_number
                    record = ["up", number, event.site_id, len(event.envelope)]
                    lines.write(json.dumps(record) + "\n")
                yield event


def read_traffic(file: Path) -> tuple[Sizes, Sizes]:
    """Return the bytes to the sites and from them; a line that a crash cut off is left out."""
    down: Sizes = Counter()
    up: Sizes = Counter()
    if not file.exists():
        return down, up
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            direction, number, site_id, size = json.loads(line)
        except ValueError:
            continue
        (down if direction == "down" else up)[int(number), str(site_id)] += int(size)
    return down, up
