"""Carries envelopes to the sites of a scenario, and does to them what was armed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from common.clock import FixedClock
from common.errors import LedgerError, ProtocolError
from common.ids import SiteId
from common.protocol.envelope import read_header
from common.study.plan import StudyPlan
from server.site_channel import Arrived, Missing
from simulations.scenarios.operations import (
    COORDINATOR,
    Corrupt,
    Delay,
    Drop,
    Duplicate,
    Fault,
    Impersonate,
    Kill,
    Reorder,
    Replay,
)
from simulations.scenarios.scenario_site import ScenarioSite, SiteDied
from simulations.scenarios.witness import Asking, Delivery, Label, Witness

BELIEVED_S: Final = 290
"""Clocks that differ by less than this are believed for certain; from 300 s on they are not."""
F = TypeVar("F")


class CoordinatorDiedError(Exception):
    """The coordinator's process ends here; raised out of its wait for the sites."""


class FaultyChannel:
    """A `SiteChannel` over the sites of this process; faults strike once, at the next asking.

    Args:
        sites: by id.
        plan: of the study.
        witness: is told of all that leaves a site and of all that is delivered.
        clock: the coordinator's.
    """

    def __init__(
        self,
        sites: Mapping[SiteId, ScenarioSite],
        plan: StudyPlan,
        *,
        witness: Witness,
        clock: FixedClock,
    ) -> None:
        self._sites = sites
        self._plan = plan
        self._witness = witness
        self._clock = clock
        self._late: list[tuple[SiteId, bytes]] = []
        self._oldest: dict[SiteId, bytes] = {}
        self.armed: list[Fault] = []

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask each site in turn and deliver what the armed faults leave of it."""
        faults, self.armed = self.armed, []
        kills = [item.after for item in _of(faults, Kill) if item.who == COORDINATOR]
        asking: Asking | None = None
        found: list[tuple[SiteId, Label, bytes | None]] = [
            (site_id, Label.LATE, envelope) for site_id, envelope in self._late
        ]
        self._late = []
        order = sorted(requests, reverse=bool(_of(faults, Reorder)))
        for site_id in order:
            request = requests[site_id]()
            if asking is None:
                asking = Asking(read_header(request).round_number)
                self._witness.askings.append(asking)
            found += self._of_site(site_id, request, faults)
        if asking is None:
            return
        for taken, (site_id, label, envelope) in enumerate(found):
            if taken in kills:
                raise CoordinatorDiedError
            asking.deliveries.append(self._note(asking, site_id, label, envelope))
            if envelope is None:
                yield Missing(site_id, "no answer before the deadline")
            else:
                yield Arrived(site_id, envelope)
        if any(after >= len(found) for after in kills):
            raise CoordinatorDiedError
        asking.is_over = True

    def _of_site(
        self, site_id: SiteId, request: bytes, faults: list[Fault]
    ) -> list[tuple[SiteId, Label, bytes | None]]:
        """Return what is delivered of one site's answer, under which id and as what."""
        mine = [item for item in faults if getattr(item, "site", None) == site_id]
        site = self._sites[site_id]
        site.dies_in_training = any(item.who == site_id for item in _of(faults, Kill))
        asked, label = request, Label.TRUE
        for item in _of(mine, Corrupt):
            if item.what == "request":
                asked, label = changed(asked, item.place), Label.CHANGED
        if any(item.what == "request" for item in _of(mine, Drop)):
            return [(site_id, Label.MISSING, None)]
        envelopes = self._answers(
            site, asked, max([1, *(x.times for x in _of(mine, Duplicate) if x.what == "request")])
        )
        site.dies_in_training = False
        if not envelopes:
            return [(site_id, Label.MISSING, None)]
        reply = envelopes[-1]
        for item in _of(mine, Corrupt):
            if item.what == "reply":
                reply, label = changed(reply, item.place), Label.CHANGED
        found: list[tuple[SiteId, Label, bytes | None]] = []
        if _of(mine, Replay) and site_id in self._oldest:
            found.append((site_id, Label.REPLAYED, self._oldest[site_id]))
        self._oldest.setdefault(site_id, reply)
        found += [
            (SiteId(x.victim), Label.FOREIGN, reply)
            for x in _of(mine, Impersonate)
            if x.victim != site_id
        ]
        if any(item.what == "reply" for item in _of(mine, Drop)):
            return [*found, (site_id, Label.MISSING, None)]
        if _of(mine, Delay):
            self._late.append((site_id, reply))
            return [*found, (site_id, Label.MISSING, None)]
        found.append((site_id, label, reply))
        again = max([0, *(x.times - 1 for x in _of(mine, Duplicate) if x.what == "reply")])
        repeated = Label.REPEATED if label is Label.TRUE else label
        return [*found, *((site_id, repeated, reply) for _ in range(again))]

    def _answers(self, site: ScenarioSite, request: bytes, times: int) -> list[bytes]:
        """Return the site's replies, oldest first; it is opened again when it died."""
        found: list[bytes] = []
        for _ in range(times):
            try:
                envelope = site.answer(request)
            except SiteDied:
                site.restart()
                continue
            except ProtocolError:  # not even the header can be read: there is nobody to answer
                continue
            spent = self._epsilon_in_ledger(site, envelope)
            self._witness.saw_leave(site.site_id, request, envelope, epsilon_in_ledger=spent)
            found.append(envelope)
        return found

    def _epsilon_in_ledger(self, site: ScenarioSite, envelope: bytes) -> float:
        """Return what the ledger states; NaN of one that does not hold together."""
        delta = self._plan.privacy.delta
        try:
            return site.ledger().spent(read_header(envelope).study_id, delta).epsilon
        except LedgerError:  # the conditions say so
            return math.nan

    def _note(
        self, asking: Asking, site_id: SiteId, label: Label, envelope: bytes | None
    ) -> Delivery:
        gap = abs(self._sites[site_id].clock.now_s() - self._clock.now_s())
        reply = None if envelope is None else self._witness.read(site_id, envelope)
        return Delivery(asking.round_number, site_id, label, reply, gap > BELIEVED_S)


def changed(envelope: bytes, place: float) -> bytes:
    """Return an envelope with one bit changed, at `place` of its length."""
    at = min(len(envelope) - 1, int(place * len(envelope)))
    return envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :]


def _of(faults: list[Fault], kind: type[F]) -> list[F]:
    return [item for item in faults if isinstance(item, kind)]
