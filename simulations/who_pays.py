"""Which sites lose by a study's noise, or by joining it, beyond what chance explains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from simulations.baselines import ALL_SITES
from simulations.report_page import Words

EACH_OUTCOME_MIN: Final = 10
"""Held-out patients with and without the outcome below which no site is said to lose."""
_NAMED_MAX: Final = 10


def who_pays(baselines: pd.DataFrame) -> Iterator[Words]:
    """Yield a sentence for each way to lose: how many sites do, and the worst by name.

    Args:
        baselines: of a run, a row for each baseline and site.
    """
    rows = baselines[baselines.site_id != ALL_SITES]
    for baseline, words in (
        ("federated_no_noise", "lose by the noise"),
        ("alone", "would do better alone and without noise"),
    ):
        asked = rows[(rows.baseline == baseline) & rows.federated_minus.notna()]
        # DeLong's interval is too narrow with a handful of patients of an outcome.
        fewer = np.minimum(asked.events, asked.patients - asked.events)
        told = asked[fewer >= EACH_OUTCOME_MIN]
        lost = told[told.federated_minus_high < 0].sort_values("federated_minus")
        if len(lost):
            named = ", ".join(
                f"{row.site_id} ({row.federated_minus:+.3f})"
                for _, row in lost.head(_NAMED_MAX).iterrows()
            )
            yield Words(
                f"{len(lost)} of {len(told)} sites {words} beyond what their patients' sampling "
                f"explains, each interval taken alone: {named}. Where nothing is lost, about one "
                "site in 40 would be named by chance."
            )
        if len(told) < len(asked):
            yield Words(
                f"Of {len(asked) - len(told)} of {len(asked)} sites it is not said whether they "
                f"{words}: they hold out fewer than {EACH_OUTCOME_MIN} patients with the outcome, "
                "or fewer without it."
            )
