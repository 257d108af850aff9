"""From the sites' noised moments to one mean and deviation for each numeric feature."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from common.study.plan import StudyPlan
from common.study.scaling import SECOND_MOMENT_OFFSET, Scaling, identity, sensitivity

COUNT_TO_NOISE_MIN: Final = 4.0
"""Below so many noise deviations a count says too little of a feature: it is left as it is."""

Array64 = npt.NDArray[np.float64]


def estimate_scaling(
    moments: Array64, plan: StudyPlan, *, noise_multiplier: float, sites: int
) -> Scaling:
    """Return the scaling of a study: post-processing of what was released, it costs no privacy.

    With sums S1 of x, S2 of x^2 and N of patients, and noise of deviation e in each, the mean is
    S1/N and the variance S2/N - (S1/N)^2 + (e/N)^2 (1 + mean^2): squaring a noised mean adds its
    noise's variance, which the last term gives back. A variance cannot be told from zero below its
    own noise's deviation, e/N sqrt(1 + (1/2 - S2/N + 2 mean^2)^2 + 4 mean^2) (the delta method), so
    it is not taken to be smaller than that, nor than the plan's `deviation_min` squared.

    Args:
        moments: [3, numeric features], summed over sites.
        plan: of the study.
        noise_multiplier: of each site's release.
        sites: whose noise is in the sums.
    """
    scaling = identity(plan)
    lowest = 0.0 if plan.scaling is None else plan.scaling.deviation_min
    noise = noise_multiplier * sensitivity(moments.shape[1]) * math.sqrt(sites)
    for place, (total, squares, count) in enumerate(moments.T.tolist()):
        if count <= COUNT_TO_NOISE_MIN * noise:
            continue
        share = noise / count
        mean = min(max(total / count, -1.0), 1.0)
        second = squares / count + SECOND_MOMENT_OFFSET
        variance = second - mean**2 + share**2 * (1 + mean**2)
        slope = SECOND_MOMENT_OFFSET - second + 2 * mean**2
        untold = share * math.sqrt(1 + slope**2 + 4 * mean**2)
        deviation = math.sqrt(max(variance, untold, lowest**2))
        scaling.mean[place] = mean
        scaling.deviation[place] = min(deviation, 1.0)
    # In float32 the plan's own bound may be a little more than in float64.
    np.maximum(scaling.deviation, np.float32(lowest), out=scaling.deviation)
    return scaling
