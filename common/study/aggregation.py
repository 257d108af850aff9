"""How a plan says that the sites' updates become one: parts of `[training.aggregation]`.

Every kind but the weighted mean tolerates sites that lie about their updates, up to a number which
the plan declares, and gives up something for it: the weight of large sites, or the small ones.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common import limits
from common.study.plan_types import PlanPart, Positive

DishonestSites = Annotated[int, Field(ge=1, le=limits.SITES_MAX)]


class WeightedMeanOfUpdates(PlanPart):
    """The mean weighted by declared cohort sizes (McMahan et al. 2017); one liar moves it freely.

    A plan without `[training.aggregation]` has this one, and the same digest.
    """

    kind: Literal["weighted_mean"]


class NormBound(PlanPart):
    """The weighted mean of updates scaled down to one L2 norm (Sun et al. 2019, section 5).

    `norm_max` is a public number, or "median": of the norms of the round's updates.
    """

    kind: Literal["norm_bound"]
    norm_max: Literal["median"] | Positive


class TrimmedMean(PlanPart):
    """For each parameter, the mean without the `dishonest_sites` lowest and highest values.

    (Yin et al. 2018, Definition 2.) All sites count alike.
    """

    kind: Literal["trimmed_mean"]
    dishonest_sites: DishonestSites


class CoordinateMedian(PlanPart):
    """For each parameter, the median over sites (Yin et al. 2018, Definition 1)."""

    kind: Literal["median"]
    dishonest_sites: DishonestSites


class MultiKrum(PlanPart):
    """The mean of the `selected` updates that lie closest to their neighbours.

    (Blanchard et al. 2017, sections 3 and 4.) An update's score is the sum of squared distances to
    its n - dishonest_sites - 2 nearest others. With one selected it would be Krum, whose model is
    one site's own update.
    """

    kind: Literal["multi_krum"]
    dishonest_sites: DishonestSites
    selected: Annotated[int, Field(ge=1, le=limits.SITES_MAX)] = 2


AggregationSpec = Annotated[
    WeightedMeanOfUpdates | NormBound | TrimmedMean | CoordinateMedian | MultiKrum,
    Field(discriminator="kind"),
]
WEIGHTED_MEAN = WeightedMeanOfUpdates(kind="weighted_mean")
