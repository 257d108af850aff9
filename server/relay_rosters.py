"""The rosters that the relay goes by: pinned once, replaced only by what follows them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from common.clock import Clock
from common.crypto.keys import VerifyKey, is_same_fingerprint
from common.errors import EnrolmentError, ProtocolError, StoreError
from common.ids import Digest, SiteId
from common.protocol.monitoring.refusals import refusal
from common.protocol.monitoring.roster import MonitoringRoster, Standing
from common.protocol.monitoring.roster_file import read_roster, verify_roster
from common.protocol.monitoring.signed_notice import read_signed
from server.relay import RelayView
from server.relay_notices import RelayedNotice, relayed
from server.relay_store import RelayStore

REFRESH_S: Final = 1.0


def pin_given_roster(
    store: RelayStore, content: bytes, *, fingerprint: str, now_s: int
) -> MonitoringRoster:
    """Pin a roster that an operator gives, by its authority's fingerprint or the pinned authority.

    Args:
        content: the signed roster.
        fingerprint: of the authority's key, as people compared it; may be empty when a roster is
            pinned already.
        now_s: seconds since 1970.

    Raises:
        ProtocolError, SignatureError: with the number of the check; a rollback is O5.
    """
    roster = read_roster(content)
    is_first = not store.rosters()
    is_told = is_same_fingerprint(roster.authority.fingerprint, fingerprint)
    if (is_first or fingerprint) and not is_told:
        raise ProtocolError(
            "a roster is refused",
            expected=f"the authority's fingerprint that you were told: {fingerprint or 'none'}",
            arrived=roster.authority.fingerprint,
            todo="call the consortium's authority; then give --fingerprint",
            number="O2",
        )
    pin_roster(store, relayed(read_signed(content), content), now_s=now_s)
    return roster


def pin_roster(store: RelayStore, notice: RelayedNotice, *, now_s: int) -> int:
    """Pin the roster that follows the pinned one and return its notice's position.

    The first is taken with the authority in it, which `pin_given_roster` compares.

    Raises:
        ProtocolError, SignatureError: with the number of the check; a rollback is O5.
    """

    def verified(pinned: bytes | None) -> tuple[int, Digest]:
        before = None if pinned is None else read_roster(pinned)
        roster = verify_roster(
            notice.content,
            authority=_authority(before, notice.content),
            now_s=now_s,
            pinned=before,
        )
        return roster.version, roster.digest

    return store.pin_roster(notice, verified)


def consortium_of_change(store: RelayStore, site_id: SiteId) -> str:
    """Return the consortium as the newest pinned roster names it; empty without a roster.

    A site that has pinned the roster countersigns under that name (O8).

    Raises:
        EnrolmentError: the roster has revoked the site's key. Whoever stole it can countersign
            with it as well as the site.
    """
    for pinned in store.rosters()[:1]:
        roster = read_roster(pinned.content)
        for site in roster.sites:
            if site.site_id == site_id and site.status is Standing.REVOKED:
                raise EnrolmentError(
                    "a change of a site's key is refused",
                    expected="a key that the newest monitoring roster has not revoked",
                    arrived=f"the revoked key of {site_id}",
                    todo="call the site; one whose key was stolen enrols under another id",
                )
        return roster.consortium
    return ""


class RosterWatch:
    """The view on who counts; looks at the store at most once a second.

    A store that cannot be read changes nothing: nobody is admitted who was not before.
    """

    def __init__(self, store: RelayStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[int, MonitoringRoster | None] = {}  # by version; none ever changes
        self._view: RelayView | None = None
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()

    async def current(self) -> RelayView:
        """Return who counts now; raises `ProtocolError` B3 before any roster is pinned."""
        if time.monotonic() - self._read_at >= REFRESH_S:
            async with self._lock:
                if time.monotonic() - self._read_at >= REFRESH_S:
                    with contextlib.suppress(StoreError):
                        self._view = await asyncio.to_thread(self._read)
                    self._read_at = time.monotonic()
        if self._view is None:
            raise refusal(
                "B3",
                expected="a roster that the relay's operator has pinned",
                arrived="none",
                todo="run `cohortium-coordinator relay roster FILE`",
            )
        return self._view

    def _read(self) -> RelayView | None:
        version = self._store.newest_roster_version()
        newest = self._roster(version)
        if newest is None:
            return None
        earlier: list[MonitoringRoster] = []
        after, now_s = newest, self._clock.now_s()
        while now_s <= after.not_before_s + after.grace_s:
            before = self._roster(after.version - 1)
            if before is None:
                break
            earlier.append(before)
            after = before
        wanted = {item.version for item in (newest, *earlier)}
        self._known = {key: known for key, known in self._known.items() if key in wanted}
        return RelayView(
            newest,
            tuple(earlier),
            self._store.admitted_sites(),
            self._store.registered_studies(),
        )

    def _roster(self, version: int) -> MonitoringRoster | None:
        if self._known.get(version) is None:
            content = self._store.roster(version)
            self._known[version] = None if content is None else read_roster(content)
        return self._known[version]


def _authority(before: MonitoringRoster | None, content: bytes) -> VerifyKey:
    return before.authority if before is not None else read_roster(content).authority
