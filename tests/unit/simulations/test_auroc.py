"""The area under the ROC curve equals scikit-learn's, with ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from simulations.auroc import auroc


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60))
def test_it_equals_scikit_learns_whatever_the_ties(patients: list[tuple[bool, int]]) -> None:
    outcomes = np.array([float(case) for case, _ in patients], dtype=np.float32)
    scores = np.array([score / 7 for _, score in patients])
    if outcomes.min() == outcomes.max():
        return
    assert auroc(outcomes, scores) == pytest.approx(roc_auc_score(outcomes, scores), abs=1e-12)
