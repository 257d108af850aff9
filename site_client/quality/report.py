"""One plan's data quality at one site: figures, what needs a look, and both reports of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from common.study.plan import StudyPlan
from site_client.features.site_rows import SiteRows
from site_client.quality.assessment import assess_quality, once_per_patient
from site_client.quality.concerns import concerns_of
from site_client.quality.document import Document
from site_client.quality.figures import Concern, QualityFigures
from site_client.quality.local_report import local_report
from site_client.quality.shareable_report import shareable_report, shared_figures


@dataclass(frozen=True)
class QualityReport:
    """What a steward reads before approving.

    Args:
        plan: whose features were read.
        rows: that fit it.
        figures: exact, for the site alone.
        concerns: what needs a look.
    """

    plan: StudyPlan
    rows: SiteRows
    figures: QualityFigures
    concerns: tuple[Concern, ...]

    def local(self) -> Document:
        """Return the report for the site's own eyes."""
        return local_report(self.plan, self.figures, self.concerns)

    def shareable(self) -> Document:
        """Return the report that may leave, if the hospital decides so."""
        rows = once_per_patient(self.rows)
        figures = self.figures if rows is self.rows else assess_quality(self.plan, rows)
        shared = shared_figures(self.plan, figures)
        return shareable_report(self.plan, shared, has_events=rows.events is not None)

    def as_record(self) -> dict[str, object]:
        """Return a record for `--json`, exact: it stays at the site."""
        concerns = [asdict(item) for item in self.concerns]
        return {**self.figures.as_record(), "concerns": concerns}


def report_quality(plan: StudyPlan, rows: SiteRows) -> QualityReport:
    """Return the report of `inspected_rows`."""
    figures = assess_quality(plan, rows)
    return QualityReport(plan, rows, figures, concerns_of(plan, figures))
