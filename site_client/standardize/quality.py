"""The data quality table a steward reads before approving, from counts only.

The counts are exact and for local eyes: nothing here leaves the site.
"""

from __future__ import annotations

from dataclasses import dataclass

from site_client.sources.table import PatientTable


@dataclass(frozen=True)
class FeatureQuality:
    """One feature's counts of patients."""

    name: str
    recorded: int
    missing: int
    out_of_range: int
    unmapped: int

    @property
    def completeness(self) -> float:
        """Share of patients with a usable value, 0 to 1."""
        total = self.recorded + self.missing + self.out_of_range + self.unmapped
        return self.recorded / total if total else 0.0


@dataclass(frozen=True)
class QualityTable:
    """What a steward should see of the data, as counts.

    Args:
        patients: with a recorded label.
        unlabelled: rows left out because their label is not recorded.
        positive: patients with the outcome.
        features: in the plan's order.
    """

    patients: int
    unlabelled: int
    positive: int
    features: tuple[FeatureQuality, ...]

    @property
    def prevalence(self) -> float:
        """Share of patients with the outcome, 0 to 1."""
        return self.positive / self.patients if self.patients else 0.0

    def as_record(self) -> dict[str, object]:
        """Return a record for `--json`."""
        return {
            "patients": self.patients,
            "unlabelled": self.unlabelled,
            "prevalence": round(self.prevalence, 4),
            "features": [
                {
                    "name": item.name,
                    "completeness": round(item.completeness, 4),
                    "missing": item.missing,
                    "out_of_range": item.out_of_range,
                    "unmapped": item.unmapped,
                }
                for item in self.features
            ],
        }


def assess_quality(table: PatientTable) -> QualityTable:
    """Return the quality table of a table that was read."""
    return QualityTable(
        patients=table.patients,
        unlabelled=table.unlabelled,
        positive=int(table.label.sum()),
        features=tuple(
            FeatureQuality(
                name=name,
                recorded=counts.recorded,
                missing=counts.missing,
                out_of_range=counts.out_of_range,
                unmapped=counts.unmapped,
            )
            for name, counts in table.counts.items()
        ),
    )
