"""Which sites owe reports about a study, and from when on."""

from __future__ import annotations

from common.ids import SiteId
from common.protocol.monitoring.roster import Standing
from server.monitor_board.plan_book import PlanOnBoard
from server.monitor_board.roster_book import RosterBook


def expected_sites(on_board: PlanOnBoard, book: RosterBook | None) -> dict[SiteId, int]:
    """Return the sites that owe reports and the moment (Unix time) from which they monitor.

    That is when the first model was promoted or when the site came into the roster, whichever was
    later. Sums over sites are owed by no site alone.
    """
    monitoring = on_board.plan.monitoring
    if book is None or monitoring is None or monitoring.mode == "sum" or not on_board.promotions:
        return {}
    began_s = min(promotion.at_s for promotion in on_board.promotions)
    entered_s: dict[SiteId, int] = {}
    for roster in book.versions:
        for site in roster.sites:
            entered_s.setdefault(site.site_id, roster.not_before_s)
    return {
        site.site_id: max(began_s, entered_s[site.site_id])
        for site in book.newest().sites
        if site.status is Standing.ACTIVE
    }
