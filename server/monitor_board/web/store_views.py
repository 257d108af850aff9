"""The one place where pages' views are made from the board's store and signals; it only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from common.clock import Clock, utc_text
from common.ids import SiteId, parse_study_id
from common.study.plan import StudyPlan
from server.monitor_board.expected_sites import expected_sites
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.plan_book import PlanOnBoard
from server.monitor_board.plan_watches import plan_watches
from server.monitor_board.roster_book import RosterBook
from server.monitor_board.signal_types import SiteSignals, TrailPoint, Watch
from server.monitor_board.signals import BoardSignals, assess, trail_of
from server.monitor_board.store import BoardStore
from server.monitor_board.web.performance_views import (
    fairness_view,
    model_view,
    newest_outcomes,
    performance_of,
)
from server.monitor_board.web.protocol_views import (
    ProtocolRecords,
    decision_rows,
    privacy_rows,
    protocol_view,
)
from server.monitor_board.web.signal_views import columns_of, heat_row, site_view
from server.monitor_board.web.views import (
    BoardView,
    Performance,
    SiteView,
    StudyView,
)

_SITES_KEPT: Final = 64


class StoreViews:
    """Makes all views of one board.

    Args:
        name: of the board, as pages say it.
    """

    def __init__(self, store: BoardStore, *, name: str, clock: Clock) -> None:
        self._store = store
        self._name = name
        self._clock = clock

    def newest_position(self) -> int:
        """Return a number that grows with everything that pages could show."""
        return self._store.newest_position()

    def make(self) -> BoardView:
        """Return all views."""
        # Taken first: what arrives meanwhile is then newer than these views.
        position, now_s = self.newest_position(), self._clock.now_s()
        book = self._store.rosters() if self._store.newest_roster() is not None else None
        studies = {
            str(study_id): study_view(self._records(on_board, book), now_s=now_s)
            for study_id, on_board in self._store.plans().items()
        }
        return BoardView(self._name, position, utc_text(now_s), now_s, studies)

    def _records(self, on_board: PlanOnBoard, book: RosterBook | None) -> StudyRecords:
        decisions = self._store.decisions(on_board.study_id)
        return StudyRecords(
            plan=on_board.plan,
            reports=self._store.kept_reports(on_board.study_id),
            expected=expected_sites(on_board, book),
            decisions=[item.notice for item in decisions],
            objections={item.decision.number: item.objection for item in decisions},
            protocol=ProtocolRecords(
                roster=book.newest() if book is not None else None,
                chains=self._store.chain_ends(),
                gaps=self._store.gaps(),
                waiting=self._store.waiting(),
                refusals=self._store.refusals(),
                flagged=self._store.flagged(),
            ),
        )


@dataclass(frozen=True)
class StudyRecords:
    """What one study's pages are made of.

    Args:
        expected: sites that owe reports, and from when on they monitor, Unix time.
        decisions: as signed.
        objections: to decisions that were not valid any more when they came, by number.
    """

    plan: StudyPlan
    reports: Sequence[KeptReport]
    expected: Mapping[SiteId, int]
    decisions: Sequence[bytes]
    protocol: ProtocolRecords
    objections: Mapping[int, str] = field(default_factory=dict)


def study_view(records: StudyRecords, *, now_s: int) -> StudyView:
    """Return all pages of one study; the same records and time always give the same."""
    plan, reports = records.plan, records.reports
    signals = assess(plan, reports, now_s=now_s, expected=records.expected)
    columns = columns_of(plan_watches(plan))
    outcomes = newest_outcomes(reports)
    model = model_view(plan, reports)
    pooled = None
    if signals.pooled is not None:
        together = model.performances[0] if model.performances else None
        pooled = site_view(signals.pooled, plan, _trail(signals, signals.pooled), together)
    study_id = parse_study_id(plan.study.id)
    return StudyView(
        study_id=study_id,
        title=plan.study.title,
        columns=columns,
        rows=tuple(heat_row(site, columns) for site in signals.sites),
        sites=SiteViews(plan, signals, outcomes),
        pooled=pooled,
        model=model,
        fairness=fairness_view(plan, outcomes, signals.sites, signals.pooled),
        privacy=privacy_rows(reports),
        protocol=protocol_view(study_id, reports, signals.sites, records.protocol, now_s=now_s),
        decisions=decision_rows(records.decisions, records.protocol.roster, records.objections),
    )


class SiteViews(Mapping[str, SiteView]):
    """Each site's page, made when it is asked for: most of a thousand never are."""

    def __init__(
        self, plan: StudyPlan, signals: BoardSignals, outcomes: Mapping[str, KeptReport]
    ) -> None:
        self._plan = plan
        self._signals = signals
        self._sites = {str(site.site_id): site for site in signals.sites}
        self._outcomes = outcomes
        self._made = lru_cache(maxsize=_SITES_KEPT)(self._make)

    def __getitem__(self, site_id: str) -> SiteView:
        return self._made(site_id)

    def _make(self, site_id: str) -> SiteView:
        site = self._sites[site_id]
        trail = _trail(self._signals, site)
        return site_view(site, self._plan, trail, self._performance(site_id))

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def _performance(self, site_id: str) -> Performance | None:
        report, monitoring = self._outcomes.get(site_id), self._plan.monitoring
        if report is None or monitoring is None:
            return None
        overall = report.tensors["overall"]
        return performance_of(overall, monitoring, title="Performance", period=report.period)


def _trail(signals: BoardSignals, site: SiteSignals) -> Callable[[Watch], Sequence[TrailPoint]]:
    def trail(watch: Watch) -> Sequence[TrailPoint]:
        if site.site_id is not None and site.site_id not in signals.site_ids:
            return ()
        return trail_of(signals, site.site_id, watch)

    return trail
