"""How good a scenario's model is, and how well a backdoor in it works."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from common.ids import StudyId, parse_digest
from common.limits import PARAMETERS_BYTES_MAX
from common.protocol.arrays import Parameters, decode_parameters
from common.study.plan import StudyPlan
from common.study.scaling import model_shapes, split_model
from server.books import Books
from simulations.scenarios.hostile_training import trigger_of, with_trigger
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix, split
from site_client.features.scaled import scale
from site_client.training.evaluation import score

Array64 = npt.NDArray[np.float64]


def newest_model(books: Books, study_id: StudyId, plan: StudyPlan) -> Parameters | None:
    """Return the model of the newest complete round, with its scaling; None before there is one."""
    last = books.rounds.last_complete(study_id)
    if last is None:
        return None
    return decode_parameters(
        books.rounds.read_parameters(parse_digest(last.new_version)),
        expected=model_shapes(plan),
        bytes_max=PARAMETERS_BYTES_MAX,
    )


def auroc_of(plan: StudyPlan, model: Parameters, hospitals: Sequence[VirtualSite]) -> float | None:
    """Return the AUROC on these hospitals' held-out patients together; None with one outcome."""
    return auroc_of_patients(plan, model, [_held_out(plan, site) for site in hospitals])


def auroc_of_patients(
    plan: StudyPlan, model: Parameters, patients: Sequence[FeatureMatrix]
) -> float | None:
    """Return the AUROC on all these patients together; None with one outcome or nobody."""
    first = [item.first_samples() for item in patients]
    y = np.concatenate([np.zeros(0, np.float32), *(item.y for item in first)])
    if len(y) == 0 or y.min() == y.max():
        return None
    risk = np.concatenate([_risk(plan, model, item) for item in first])
    return float(roc_auc_score(y, risk))


def backdoor_success(
    plan: StudyPlan, model: Parameters, hospitals: Sequence[VirtualSite]
) -> float | None:
    """Return `backdoor_success_among` these hospitals' held-out patients."""
    return backdoor_success_among(plan, model, [_held_out(plan, site) for site in hospitals])


def backdoor_success_among(
    plan: StudyPlan, model: Parameters, patients: Sequence[FeatureMatrix]
) -> float | None:
    """Return how many low-risk patients the trigger turns to high risk.

    Low risk is a probability below one half and no outcome (Bagdasaryan et al. 2020, section 5).
    None when no patient is of low risk.
    """
    trigger = trigger_of(plan)
    turned: list[npt.NDArray[np.bool_]] = []
    for item in patients:
        first = item.first_samples()
        is_low = (_risk(plan, model, first) < 0.5) & (first.y == 0)
        after = _risk(plan, model, with_trigger(first, trigger))
        turned.append(after[is_low] >= 0.5)
    found = np.concatenate([np.zeros(0, np.bool_), *turned])
    return float(found.mean()) if len(found) else None


def _held_out(plan: StudyPlan, site: VirtualSite) -> FeatureMatrix:
    return split(site.matrix(plan), plan)[1].first_samples()


def _risk(plan: StudyPlan, model: Parameters, patients: FeatureMatrix) -> Array64:
    trained, scaling = split_model(model)
    found = score(plan, trained, scale(patients, plan, scaling).x)
    return np.asarray(found, dtype=np.float64)
