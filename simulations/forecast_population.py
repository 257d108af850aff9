"""Patients for a forecast: simulated after the plan's own features, or public tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from common.canonical import Canonical
from common.errors import ConfigError
from common.study.plan import StudyPlan
from simulations.audit.patients import generate_patients
from simulations.forecast import EPSILONS, Population, as_record, forecast
from simulations.patient_source import PatientSource
from simulations.virtual_site import VirtualSite
from site_client.config import SitePaths, read_site_config
from site_client.features.matrix import FeatureMatrix

AUROC: Final = 0.80
"""What the simulated risk model itself reaches: a usual figure of clinical risk models."""
EVENT_FRACTION: Final = 0.3
_STRONG_FRACTION: Final = 0.3
_SITE_SHIFT: Final = 0.3
"""Standard deviation of the hospitals' intercepts: shares of events from about a fifth to 0.4."""


def simulated_population(plan: StudyPlan, *, sites: int, patients: int) -> Population:
    """Return hospitals with invented patients whose risk is logistic in the plan's columns.

    Values fill the plausible ranges; three columns of ten carry the risk; the risk model's own
    AUROC is about 0.80; hospitals differ in their share of events. It answers "does this plan's
    noise drown a signal of usual strength", not "what will this question reach".

    Args:
        plan: names the features.
        sites: hospitals.
        patients: in each.
    """

    def population(seed: int) -> Sequence[VirtualSite]:
        rng = np.random.default_rng([seed, sites, patients])
        found: list[VirtualSite] = []
        risk: tuple[npt.NDArray[np.float64], float] | None = None
        for number in range(1, sites + 1):
            matrix = generate_patients(plan, patients, rng)
            x = matrix.x if matrix.x.ndim == 2 else matrix.x[:, 0]
            risk = risk or _risk_weights(x, rng)
            logits = x @ risk[0] + risk[1] + rng.normal(0, _SITE_SHIFT)
            y = (rng.random(patients) < _sigmoid(logits)).astype(np.float32)
            if matrix.y.ndim == 2:
                y = np.repeat(y[:, None], matrix.y.shape[1], axis=1)
            told = FeatureMatrix(matrix.columns, matrix.x, y, matrix.part, matrix.weight)
            found.append(VirtualSite(f"hospital-{number}", patients, told))
        return found

    return population


def public_population(homes: Sequence[Path]) -> Population:
    """Return hospitals that are public tables.

    Args:
        homes: folders with a site.toml each; a table's path in it starts there.

    Raises:
        ConfigError: when a folder has no proper site.toml, or two have one site id.
    """
    described = [(home, read_site_config(SitePaths(home))) for home in homes]
    if len({config.site.id for _, config in described}) < max(2, len(described)):
        raise ConfigError(
            "a public population is refused",
            expected="two folders or more, each with a site.toml of its own site id",
            arrived=f"{len(described)} folder(s)",
            todo="describe each hospital in its own folder",
        )

    sources = [PatientSource(config.source, folder=home) for home, config in described]

    def population(seed: int) -> Sequence[VirtualSite]:
        return [
            VirtualSite(
                config.site.id,
                config.site.declared_cohort_size,
                source,
                salt=f"forecast {seed}".encode(),
            )
            for source, (_, config) in zip(sources, described, strict=True)
        ]

    return population


def forecast_record(
    plan: StudyPlan,
    *,
    sites: int,
    patients: int,
    seeds: int,
    progress: Callable[[int, int], None],
) -> dict[str, Canonical]:
    """Return a forecast on simulated patients: the entry point `cohortium.forecasts`."""
    population = simulated_population(plan, sites=sites, patients=patients)
    begun = itertools.count()
    lines = forecast(
        plan,
        population,
        seeds=range(1, seeds + 1),
        progress=lambda epsilon, seed: progress(next(begun), len(EPSILONS) * seeds),
    )
    return as_record(plan, lines, population=describe_simulated(sites, patients))


def describe_simulated(sites: int, patients: int) -> str:
    """Return the words that say what a simulated forecast was made on."""
    return (
        f"{sites} simulated hospitals of {patients} patients; "
        f"the true risk model's AUROC is about {AUROC:.2f}"
    )


def describe_public(sites: int) -> str:
    """Return the words that say what a forecast on public tables was made on."""
    return f"{sites} hospitals of public tables"


def _risk_weights(
    x: npt.NDArray[np.float32], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], float]:
    """Return weights and an intercept whose risk has the stated AUROC and share of events here."""
    columns = x.shape[1]
    carries = rng.random(columns) < _STRONG_FRACTION
    weights = np.asarray(rng.normal(size=columns) * carries, dtype=np.float64)
    weights[int(rng.integers(columns))] += 1.0  # never no signal at all
    weights = weights / max(float(np.std(x @ weights)), 1e-9)
    unit = np.asarray(x @ weights, dtype=np.float64)
    low, high = 0.1, 10.0
    for _ in range(30):
        scale = (low + high) / 2
        intercept = _intercept(scale * unit)
        is_weak = _expected_auroc(_sigmoid(scale * unit + intercept)) < AUROC
        low, high = (scale, high) if is_weak else (low, scale)
    return np.asarray(weights * scale, dtype=np.float64), intercept


def _intercept(logits: npt.NDArray[np.float64]) -> float:
    low, high = -30.0, 30.0
    for _ in range(50):
        middle = (low + high) / 2
        share = float(np.mean(_sigmoid(logits + middle)))
        low, high = (middle, high) if share < EVENT_FRACTION else (low, middle)
    return middle


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float64)


def _expected_auroc(risk: npt.NDArray[np.float64]) -> float:
    """Return the AUROC of a risk whose outcomes are drawn from it, in expectation."""
    order = np.sort(risk)
    healthy = 1 - order
    below = np.cumsum(healthy) - healthy / 2
    return float((order * below).sum() / (order.sum() * healthy.sum()))
