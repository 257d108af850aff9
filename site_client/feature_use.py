"""Which entry of the feature store a study uses, and how long the others are kept.

A study uses the entry with which it began at this site, from its first release on: another set of
patients in mid-study is a decision of people, made with `features drop ENTRY --in-use`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.clock import Clock
from common.ids import Digest
from site_client.approvals import Approval, Approvals
from site_client.features.store import FeatureStore, expired
from site_client.features.store_entry import FeatureEntry
from site_client.site_database import SiteDatabase


class FeaturePins:
    """Each plan's entry, fixed before its first release."""

    def __init__(self, database: SiteDatabase) -> None:
        self._database = database

    def find(self, plan_digest: Digest) -> str | None:
        """Return the name of the entry with which this plan began; None: it did not."""
        return self.all_pins().get(plan_digest)

    def all_pins(self) -> dict[str, str]:
        """Return the entry of each plan that began."""
        rows = self._database.rows("SELECT plan_digest, entry_id FROM feature_pins")
        return {str(plan): str(entry) for plan, entry in rows}

    def pin(self, plan_digest: Digest, entry_id: str) -> None:
        """Fix a plan's entry, unless it is fixed; durable on return; raises `LedgerError`."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO feature_pins VALUES (?, ?)", (plan_digest, entry_id)
            )

    def forget(self, entry_id: str) -> int:
        """Let plans that began with an entry take their newest one; returns how many did."""
        with self._database.transaction() as connection:
            return connection.execute(
                "DELETE FROM feature_pins WHERE entry_id = ?", (entry_id,)
            ).rowcount


@dataclass(frozen=True)
class FeatureUse:
    """What is in use at a site, and what is kept for how long.

    Args:
        store, approvals, pins, clock: of the site.
        keep_days: `[features] keep_days`.
    """

    store: FeatureStore
    approvals: Approvals
    pins: FeaturePins
    clock: Clock
    keep_days: int

    def in_use(self) -> frozenset[str]:
        """Return the names of the entries that running studies use."""
        return entries_in_use(
            self.store.entries(),
            approvals=self.approvals.all_approvals(),
            pins=self.pins.all_pins(),
            now_s=self.clock.now_s(),
        )

    def drop_older(self, days: int | None = None) -> tuple[FeatureEntry, ...]:
        """Delete what was built more than so many days ago and is not in use; returns what was.

        Args:
            days: None: as many as the site keeps entries.
        """
        days = self.keep_days if days is None else days
        found = self._expired(days)
        if found:  # the lock may be held for long by a build; it is asked for only when needed
            with self.store.writing() as writer:
                found = self._expired(days)
                for entry in found:
                    writer.drop(entry.id)
        return found

    def drop(self, entries: Iterable[str], *, moves_studies: bool) -> None:
        """Delete entries.

        Args:
            entries: names.
            moves_studies: studies that began with one go on with the newest rows; else they are
                refused until somebody decides.
        """
        with self.store.writing() as writer:
            for entry in entries:
                if moves_studies:
                    self.pins.forget(entry)
                writer.drop(entry)

    def _expired(self, days: int) -> tuple[FeatureEntry, ...]:
        return expired(
            self.store.entries(),
            in_use=self.in_use(),
            now_s=self.clock.now_s(),
            keep_days=days,
        )


def entries_in_use(
    entries: Iterable[FeatureEntry],
    *,
    approvals: Iterable[Approval],
    pins: dict[str, str],
    now_s: int,
) -> frozenset[str]:
    """Return the names of entries that running studies use.

    A study runs while its approval holds, also when it is paused. It uses the entry with which it
    began, and before its first release the newest one.

    Args:
        entries: of the store, the newest first.
        approvals: of the site.
        pins: plan digest to entry.
        now_s: since 1970.
    """
    running = {item.plan_digest for item in approvals if _holds(item, now_s)}
    newest: dict[str, str] = {}
    for entry in entries:
        newest.setdefault(entry.key.plan_digest, entry.id)
    found = {pins.get(digest) or newest.get(digest) for digest in running}
    return frozenset(item for item in found if item is not None)


def _holds(approval: Approval, now_s: int) -> bool:
    return not approval.is_withdrawn and now_s <= approval.until_s
