"""Kept reports as arrays: one for each tensor and period, with all sites in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.ids import SiteId
from common.study.report_tensors import ReportKind
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.statistics.noisy_shares import Floats
from server.monitor_board.statistics.sequential import Flags


@dataclass(frozen=True)
class Stack:
    """One tensor of all sites.

    Args:
        counts: [sites, *shape]; 0 where there is none.
        sd: [sites], of the noise in each cell.
        is_there: [sites].
        is_pooled: [sites], without those that are implausible; None: all.
    """

    counts: Floats
    sd: Floats
    is_there: Flags
    is_pooled: Flags | None = None


@dataclass(frozen=True)
class ReportPanel:
    """The reports of some sites, of which the newest counts where two tell the same.

    Args:
        sites: in order of their ids.
        periods: of each kind, oldest first.
    """

    sites: tuple[SiteId, ...]
    periods: Mapping[ReportKind, tuple[str, ...]]
    reports: Mapping[tuple[SiteId, ReportKind, str], KeptReport]
    model_of_site: Mapping[SiteId, str]

    def stack(
        self,
        tensor: str,
        shape: tuple[int, ...],
        kind: ReportKind,
        period: str,
        *,
        is_of_model: bool,
    ) -> Stack:
        """Return one tensor of one kind and period.

        Args:
            is_of_model: leave out reports about another model than the site's newest report.
        """
        counts = np.zeros((len(self.sites), *shape))
        sd = np.zeros(len(self.sites))
        is_there = np.zeros(len(self.sites), dtype=np.bool_)
        is_pooled = np.ones(len(self.sites), dtype=np.bool_)
        for place, site in enumerate(self.sites):
            report = self.reports.get((site, kind, period))
            if report is None or tensor not in report.tensors:
                continue
            if is_of_model and report.model_version != self.model_of_site[site]:
                continue
            found = report.tensors[tensor]
            counts[place], sd[place], is_there[place] = found.values, found.sd, True
            is_pooled[place] = not report.is_flagged
        return Stack(counts, sd, is_there, is_pooled)


def build_panel(reports: Sequence[KeptReport]) -> ReportPanel:
    """Return reports in their places; of repeated ones the one with the highest sequence."""
    ordered = sorted(reports, key=lambda report: report.sequence)
    return ReportPanel(
        sites=tuple(sorted({report.site_id for report in ordered})),
        periods={
            kind: tuple(sorted({report.period for report in ordered if report.kind is kind}))
            for kind in ReportKind
        },
        reports={(report.site_id, report.kind, report.period): report for report in ordered},
        model_of_site={report.site_id: report.model_version for report in ordered},
    )
