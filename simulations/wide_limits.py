"""A simulated site's limits when it names none."""

from __future__ import annotations

from typing import Final

from site_client.config import LimitsSection

WIDE_LIMITS: Final = LimitsSection(
    epsilon_per_study=100.0, epsilon_total=100.0, delta_total=1e-3, cohort_size_min=20
)
"""Limits that leave every decision to the plan."""
