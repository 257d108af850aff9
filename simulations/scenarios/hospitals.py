"""Generated hospitals of given sizes, after a plan's own features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from common.study.plan import StudyPlan
from simulations.forecast_population import simulated_population
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix


def site_id_of(place: int) -> str:
    """Return the id of the hospital at a place, counted from 0."""
    return f"hospital-{place + 1}"


def hospitals_of(plan: StudyPlan, patients: Sequence[int], *, seed: int) -> list[VirtualSite]:
    """Return hospitals of these sizes whose risk is logistic in the plan's columns.

    Args:
        plan: names the features.
        patients: number in each hospital.
        seed: another seed is another population and another risk model.
    """
    largest = simulated_population(plan, sites=len(patients), patients=max(patients))(seed)
    return [
        replace(
            site,
            site_id=site_id_of(place),
            declared_cohort_size=count,
            patients=first_patients(site.matrix(plan), count),
        )
        for place, (site, count) in enumerate(zip(largest, patients, strict=True))
    ]


def first_patients(matrix: FeatureMatrix, count: int) -> FeatureMatrix:
    """Return a matrix of the first patients only."""
    return FeatureMatrix(
        matrix.columns,
        matrix.x[:count],
        matrix.y[:count],
        matrix.part[:count],
        None if matrix.weight is None else matrix.weight[:count],
    )
