"""Enrolled sites, their keys, their suspension, and the signed roster that names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from common import limits
from common.clock import Clock
from common.crypto.keys import SealingKey, VerifyKey, is_same_fingerprint
from common.crypto.node_key import parse_node_public_key
from common.errors import EnrolmentError
from common.ids import SiteId, parse_site_id
from common.protocol.enrolment import (
    EnrolmentRequest,
    Roster,
    RosterEntry,
)
from common.protocol.monitoring.roster import RosterSite, Standing
from common.protocol.monitoring.roster_checks import is_countersigned
from server.config import CoordinatorPaths, ServerConfig
from server.enrolment_answers import issue, renewed, write_answer
from server.storage.database import Database
from server.storage.tables import roster_versions, sites

COHORT_SIZE_MAX: Final = 100_000_000


@dataclass(frozen=True)
class Site:
    """One enrolled site.

    Args:
        site_id: its id.
        organisation: its name.
        verify_key: checks its signatures.
        sealing_key: seals requests to its agent.
        node_public_key: OpenSSH text, its courier's login at Flower.
        is_active: false while suspended.
        cohort_size_max: the most patients it may declare, and so its greatest weight.
    """

    site_id: SiteId
    organisation: str
    verify_key: VerifyKey
    sealing_key: SealingKey
    node_public_key: str
    is_active: bool
    cohort_size_max: int


class SiteDirectory:
    """Who is in the consortium; adding a site touches no other site."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def admit(
        self,
        request: EnrolmentRequest,
        *,
        fingerprint: str,
        cohort_size_max: int,
        paths: CoordinatorPaths,
        config: ServerConfig,
        answer: Path,
    ) -> Site:
        """Admit a site and write its signed enrolment file.

        Admitting the same request again writes the file again and changes nothing, but for a
        certificate that ends within a year: it is issued anew, for the same key.

        Args:
            request: as read; its signature binds every key in it to its signing key.
            fingerprint: of that signing key, as the site read it on the telephone.
            cohort_size_max: the most patients the site may declare.
            paths, config: of the coordinator.
            answer: where the enrolment file is written.

        Raises:
            EnrolmentError: for another key than the telephone's, a site id or key that another
                enrolment holds, or another number than the site was admitted with.
        """
        _check_fingerprint(request, fingerprint)
        _check_cohort_size_max(cohort_size_max)
        node_key = parse_node_public_key(request.node_public_key).decode()
        VerifyKey.from_text(request.verify_key)
        SealingKey.from_text(request.sealing_key)
        now_s = self._clock.now_s()
        with self._database.transaction() as connection:
            known = self._find_same(connection, request, node_key, cohort_size_max)
            if known is None:
                certificate = self._insert(
                    connection, request, node_key, cohort_size_max, paths=paths, now_s=now_s
                )
            else:
                certificate = renewed(connection, request, known, paths=paths, now_s=now_s)
            roster = self._roster(connection)
        write_answer(answer, request, certificate, roster, paths=paths, config=config, now_s=now_s)
        return self.find(parse_site_id(request.site_id))

    def change_key(
        self,
        request: EnrolmentRequest,
        *,
        fingerprint: str,
        key_epoch: int,
        countersignature: bytes,
        paths: CoordinatorPaths,
        config: ServerConfig,
        answer: Path,
        roster_consortium: str = "",
    ) -> Site:
        """Give a site its next signing key, its other keys staying; write its enrolment file.

        Args:
            fingerprint: of the next key, as the site read it on the telephone.
            key_epoch, countersignature: the enrolled key's word for the next one (O8).
            roster_consortium: the consortium's name in the monitoring roster, where it is another.

        Raises:
            EnrolmentError: another key, another site's, or not countersigned by the enrolled one.
        """
        _check_fingerprint(request, fingerprint)
        site = self.find(parse_site_id(request.site_id))
        new, now_s = VerifyKey.from_text(request.verify_key), self._clock.now_s()
        named = RosterSite(site.site_id, new, key_epoch, Standing.ACTIVE, countersignature)
        is_known = new == site.verify_key
        if not is_known and not any(
            is_countersigned(named, old=site.verify_key, consortium=name)
            for name in (config.consortium, roster_consortium)
        ):
            raise _refuse_key(f"a key that {site.site_id}'s enrolled key has countersigned")
        node_key = parse_node_public_key(request.node_public_key).decode()
        if (request.sealing_key, node_key) != (site.sealing_key.to_text(), site.node_public_key):
            raise _refuse_key(f"{site.site_id}'s enrolled sealing and node keys beside the next")
        with self._database.transaction() as connection:
            if not is_known:
                holder = select(sites.c.site_id).where(sites.c.verify_key == request.verify_key)
                if connection.execute(holder).first() is not None:
                    raise _refuse_key("a key that no other site has")
                # By the key that countersigned: another change may have come in between.
                changed = connection.execute(
                    update(sites)
                    .where(sites.c.site_id == site.site_id)
                    .where(sites.c.verify_key == site.verify_key.to_text())
                    .values(verify_key=request.verify_key)
                )
                if changed.rowcount != 1:
                    raise _refuse_key(f"the key in use of {site.site_id} behind the change")
                self._new_roster(connection, f"another signing key of {site.site_id}")
            known = select(sites.c.certificate).where(sites.c.site_id == site.site_id)
            held = connection.execute(known).scalar_one()
            certificate = renewed(connection, request, held, paths=paths, now_s=now_s)
            roster = self._roster(connection)
        write_answer(answer, request, certificate, roster, paths=paths, config=config, now_s=now_s)
        return self.find(site.site_id)

    def _insert(
        self,
        connection: Connection,
        request: EnrolmentRequest,
        node_key: str,
        cohort_size_max: int,
        *,
        paths: CoordinatorPaths,
        now_s: int,
    ) -> str:
        """Write a new site and a new roster; return the site's certificate."""
        certificate = issue(request, paths=paths, now_s=now_s)
        connection.execute(
            insert(sites).values(
                site_id=request.site_id,
                organisation=request.organisation,
                contact=request.contact,
                verify_key=request.verify_key,
                sealing_key=request.sealing_key,
                node_public_key=node_key,
                certificate=certificate,
                is_active=True,
                admitted_at_s=now_s,
                cohort_size_max=cohort_size_max,
            )
        )
        reason = f"admitted {request.site_id} with at most {cohort_size_max} patients"
        self._new_roster(connection, reason)
        return certificate

    def suspend(self, site_id: SiteId) -> None:
        """Stop asking a site and stop accepting from it; raises `EnrolmentError` if unknown."""
        self._set_active(site_id, is_active=False)

    def readmit(self, site_id: SiteId) -> None:
        """Ask a suspended site again; raises `EnrolmentError` if unknown."""
        self._set_active(site_id, is_active=True)

    def set_cohort_size_max(self, site_id: SiteId, cohort_size_max: int) -> None:
        """Change the most patients that a site may declare; raises `EnrolmentError`."""
        _check_cohort_size_max(cohort_size_max)
        before = self.find(site_id).cohort_size_max
        if before == cohort_size_max:
            return
        with self._database.transaction() as connection:
            connection.execute(
                update(sites)
                .where(sites.c.site_id == site_id)
                .values(cohort_size_max=cohort_size_max)
            )
            self._new_roster(
                connection, f"{site_id}: at most {cohort_size_max} patients, before {before}"
            )

    def find(self, site_id: SiteId) -> Site:
        """Return one site; raises `EnrolmentError` if unknown."""
        with self._database.transaction() as connection:
            row = connection.execute(select(sites).where(sites.c.site_id == site_id)).one_or_none()
        if row is not None:
            return _site(row)
        raise EnrolmentError(
            "no such site",
            expected="the id of an enrolled site",
            arrived=site_id,
            todo="look at `cohortium-coordinator sites`",
        )

    def all_sites(self) -> tuple[Site, ...]:
        """Return every enrolled site, by id."""
        with self._database.transaction() as connection:
            rows = connection.execute(select(sites).order_by(sites.c.site_id)).all()
        return tuple(_site(row) for row in rows)

    def active_sites(self) -> tuple[Site, ...]:
        """Return every site that is not suspended, by id."""
        return tuple(site for site in self.all_sites() if site.is_active)

    def roster(self) -> Roster:
        """Return the newest roster."""
        with self._database.transaction() as connection:
            return self._roster(connection)

    def _find_same(
        self,
        connection: Connection,
        request: EnrolmentRequest,
        node_key: str,
        cohort_size_max: int,
    ) -> str | None:
        rows = connection.execute(
            select(sites).where(
                or_(
                    sites.c.site_id == request.site_id,
                    sites.c.verify_key == request.verify_key,
                    sites.c.node_public_key == node_key,
                )
            )
        ).all()
        for row in rows:
            is_same = (
                row.site_id == request.site_id
                and row.verify_key == request.verify_key
                and row.sealing_key == request.sealing_key
                and row.node_public_key == node_key
            )
            if not is_same:
                raise EnrolmentError(
                    "an enrolment request is refused",
                    expected="a new site id with new keys",
                    arrived=f"the id or a key of the enrolled site {row.site_id}",
                    todo="choose another id; a site makes its own keys and never reuses another's",
                )
            if row.cohort_size_max != cohort_size_max:
                raise EnrolmentError(
                    "a site that was admitted before is given another number of patients",
                    expected=f"at most {row.cohort_size_max}, as it was admitted with",
                    arrived=str(cohort_size_max),
                    todo=f"change it with `cohortium-coordinator cohort {row.site_id} SIZE`",
                )
        return rows[0].certificate if rows else None

    def _set_active(self, site_id: SiteId, *, is_active: bool) -> None:
        site = self.find(site_id)
        if site.is_active == is_active:
            return
        with self._database.transaction() as connection:
            connection.execute(
                update(sites).where(sites.c.site_id == site_id).values(is_active=is_active)
            )
            self._new_roster(connection, f"{'readmitted' if is_active else 'suspended'} {site_id}")

    def _new_roster(self, connection: Connection, reason: str) -> None:
        connection.execute(insert(roster_versions).values(reason=reason, at_s=self._clock.now_s()))

    def _roster(self, connection: Connection) -> Roster:
        version = connection.execute(select(func.max(roster_versions.c.version))).scalar()
        rows = connection.execute(select(sites).order_by(sites.c.site_id)).all()
        return Roster(
            version=version or 1,
            sites=tuple(
                RosterEntry(
                    site_id=row.site_id,
                    verify_key=row.verify_key,
                    status="active" if row.is_active else "suspended",
                )
                for row in rows
            ),
        )


def _refuse_key(expected: str) -> EnrolmentError:
    return EnrolmentError(
        "a change of a site's key is refused",
        expected=expected,
        arrived="another",
        todo="call the site; one whose key was lost enrols under another id",
    )


def _check_fingerprint(request: EnrolmentRequest, fingerprint: str) -> None:
    found = VerifyKey.from_text(request.verify_key).fingerprint
    if not is_same_fingerprint(found, fingerprint):
        raise EnrolmentError(
            "an enrolment request is refused",
            expected=f"the key with the fingerprint you were told: {fingerprint}",
            arrived=found,
            todo="call the site on a number you know: somebody may have replaced its request file",
        )


def _check_cohort_size_max(cohort_size_max: int) -> None:
    if not limits.COHORT_SIZE_MIN <= cohort_size_max <= COHORT_SIZE_MAX:
        raise EnrolmentError(
            "a site's greatest number of patients is refused",
            expected=f"{limits.COHORT_SIZE_MIN} to {COHORT_SIZE_MAX}",
            arrived=str(cohort_size_max),
            todo="ask the site how many patients it brings to a study at most",
        )


def _site(row: Row[Any]) -> Site:
    return Site(
        site_id=parse_site_id(row.site_id),
        organisation=row.organisation,
        verify_key=VerifyKey.from_text(row.verify_key),
        sealing_key=SealingKey.from_text(row.sealing_key),
        node_public_key=row.node_public_key,
        is_active=row.is_active,
        cohort_size_max=row.cohort_size_max,
    )
