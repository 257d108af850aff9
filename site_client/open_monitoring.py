"""Open what a site's monitoring is made of: the courier's counterpart, and what makes reports."""

from __future__ import annotations

from common.clock import Clock
from common.ids import SiteId
from site_client.config import SiteConfig, SitePaths
from site_client.monitoring.check_key_pin import CheckKeyPin
from site_client.monitoring.decision_book import DecisionBook
from site_client.monitoring.mailbox import MonitoringMailbox
from site_client.monitoring.outbox import ReportOutbox
from site_client.monitoring.period_rows import MonitoredRows
from site_client.monitoring.promoted_models import PromotedModels
from site_client.monitoring.report import SiteMonitor
from site_client.monitoring.roster_pin import RosterPin
from site_client.monitoring.waiting_notices import WaitingNotices
from site_client.open_site import OpenSite
from site_client.release.gate import Gate
from site_client.release.report_release import ReportReleases
from site_client.release.site_limits import SiteLimits


def open_mailbox(config: SiteConfig, site: OpenSite, clock: Clock) -> MonitoringMailbox:
    """Return the mailbox of an opened site."""
    site_id = SiteId(config.site.id)
    gate = Gate(
        site_id,
        ledger=site.records.ledger,
        log=site.records.log,
        limits=SiteLimits.of(config.limits),
        signing_key=site.keys.signing,
        coordinator=site.keys.coordinator_sealing,
        is_real_ledger=True,
    )
    return MonitoringMailbox(
        site_id,
        gate=gate,
        log=site.records.log,
        approvals=site.records.approvals,
        pin=RosterPin(site.database, clock),
        models=PromotedModels(site.database, site.keys.coordinator_verify),
        decisions=DecisionBook(
            site.database,
            site.records.approvals,
            site_id,
            is_followed=config.monitoring.follow_decisions,
        ),
        chain=ReportOutbox(site.database, site_id),
        check_keys=CheckKeyPin(site.database, site.keys.opening),
        waiting=WaitingNotices(site.database),
        clock=clock,
    )


def open_monitor(config: SiteConfig, site: OpenSite, paths: SitePaths, clock: Clock) -> SiteMonitor:
    """Return what makes the reports of an opened site."""

    def rows() -> MonitoredRows:
        return MonitoredRows(
            config.source,
            paths=paths,
            salt=site.keys.salt,
            pin=site.records.source_pin,
            feature_pins=site.records.feature_pins,
            patients_min=config.limits.cohort_size_min,
        )

    return SiteMonitor(
        approvals=site.records.approvals,
        models=PromotedModels(site.database, site.keys.coordinator_verify),
        releases=ReportReleases(
            SiteId(config.site.id),
            ledger=site.records.ledger,
            log=site.records.log,
            limits=SiteLimits.of(config.limits),
            is_real_ledger=True,
            lock=paths.report_lock,
        ),
        rows=rows,
        salt=site.keys.salt,
        declared_cohort_size=config.site.declared_cohort_size,
        clock=clock,
    )
