"""Evidently's default rules, written anew, are those of the package."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.evidently_rules import column_drift
from benchmarks.monitoring_readers import agreement, evidently_verdicts, rules_verdicts
from benchmarks.monitoring_rows import draw_rows
from benchmarks.peers.environments import (
    EVIDENTLY,
    NotInstalled,
    environments_folder,
    python_of,
)
from tests.lib.monitored import monitored_plan


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "reference"), [(400, 900), (400, 1_000), (300, 1_300)])
def test_evidently_itself_gives_the_same_verdicts(patients: int, reference: int) -> None:
    try:
        python = python_of(EVIDENTLY, environments_folder(), may_install=False)
    except NotInstalled as error:
        pytest.skip(f"{error}; `python -m benchmarks.monitoring_evidently` installs it")
    rng = np.random.default_rng([patients, reference])
    rows = draw_rows(monitored_plan(), [0.0, 0.25], patients=patients, reference=reference, rng=rng)
    alike = agreement(evidently_verdicts(python, rows), rules_verdicts(rows))
    assert (alike.columns, alike.weeks) == (40, 2)
    assert alike.is_alike, alike


def test_more_than_1000_present_values_are_compared_by_distance() -> None:
    past, now = np.arange(1_000.0), np.arange(500.0)
    assert column_drift(past, now, categories=0).method == "K-S p_value"
    with_missing = np.append(past, [np.nan] * 50)
    assert column_drift(with_missing, now, categories=0) == column_drift(past, now, categories=0)
    more = column_drift(np.append(past, 0.0), now, categories=0)
    assert more.method == "Wasserstein distance (normed)"


def test_categories_of_a_large_reference_are_compared_in_nats() -> None:
    past = np.repeat([0.0, 1.0], [1_000, 1_000])
    now = np.repeat([0.0, 1.0], [300, 100])
    middle = np.array([0.625, 0.375])
    parts = [share @ np.log(share / middle) for share in (np.array([0.5, 0.5]), middle * 2 - 0.5)]
    found = column_drift(past, now, categories=2)
    assert found.score == pytest.approx(np.sqrt(np.mean(parts)), rel=1e-12)
    assert found.is_drifted
