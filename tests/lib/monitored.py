"""Reports of sites whose patients follow known laws, with the plan's tensors and exact noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm

from common.ids import Digest, SiteId, StudyId
from common.study.plan import CategoricalFeature, StudyPlan
from common.study.report_periods import REFERENCE, parse_period
from common.study.report_tensors import ReportKind, TensorFamily, report_tensors
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.statistics.noisy_counts import NoisyCounts
from tests.lib.plans import make_plan

Floats = npt.NDArray[np.float64]
MODEL = Digest("a1" * 32)
CLIP = 3.0
AGE_BANDS = ("18 to 44", "45 to 64", "65 to 79", "80 and over")
KINDS = (ReportKind.CASE_MIX, ReportKind.OUTCOME)


@dataclass(frozen=True)
class World:
    """How a site's patients are. The default is that of the reference.

    Args:
        shifts: of numeric features, in deviations.
        missing: share without the feature; 5 % when not given.
        score_shift: of the score's logit; the outcome follows the score.
        slope, intercept: of the outcome's logit on the score's.
        group_slope: likewise, of the first age band alone.
    """

    shifts: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)
    score_shift: float = 0.0
    slope: float = 1.0
    intercept: float = 0.0
    group_slope: float = 1.0


SAME = World()


def monitored_plan(
    *, numeric: int = 18, every: str = "week", epsilon: float = 2.0, **changes: object
) -> StudyPlan:
    """Return a plan with that many numeric sentinels, and sex and age band as fairness groups."""
    features: list[dict[str, object]] = [
        {
            "kind": "numeric",
            "name": f"marker_{place:02d}",
            "description": "A measurement in deviations",
            "codes": ["LOINC/8480-6"],
            "unit": "mm[Hg]",
            "plausible_range": [-10, 10],
            "clip": [-CLIP, CLIP],
        }
        for place in range(numeric)
    ]
    for name, levels in (("sex", ["female", "male"]), ("age_band", list(AGE_BANDS))):
        features.append(
            {
                "kind": "categorical",
                "name": name,
                "description": name,
                "codes": ["LOINC/46098-0"],
                "levels": levels,
                "missing": "none_allowed",
            }
        )
    return make_plan(
        features=features,
        fairness_groups=[{"feature": "sex"}, {"feature": "age_band"}],
        monitoring={
            "sentinel_features": [feature["name"] for feature in features],
            "epsilon_per_report": epsilon,
            "every": every,
            "periods_max": 104,
            "score_edges": [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8],
            "group_edges": [0.1, 0.2, 0.5],
            "threshold": 0.2,
        }
        | changes,
    )


def weeks(number: int, *, year: int = 2026) -> list[str]:
    """Return the labels of the first weeks from a year on."""
    period = parse_period(f"{year}-W01", "week")
    found = []
    for _ in range(number):
        found.append(period.label)
        period = period.following
    return found


def make_report(
    plan: StudyPlan,
    kind: ReportKind,
    period: str,
    *,
    site: str,
    patients: int,
    rng: np.random.Generator,
    world: World = SAME,
    sequence: int = 1,
) -> KeptReport:
    """Return one report of a site."""
    tensors = {}
    for tensor in report_tensors(plan, kind):
        shares = _cell_shares(plan, tensor.family, tensor.subject, world)
        counts = rng.multinomial(patients, shares.ravel()).reshape(tensor.shape)
        noise = discrete_gaussian(rng, tensor.noise_multiplier, tensor.shape)
        tensors[tensor.name] = NoisyCounts(counts + noise, tensor.noise_multiplier)
    return KeptReport(
        study_id=StudyId(plan.study.id),
        site_id=SiteId(site),
        kind=kind,
        period=period,
        sequence=sequence,
        received_at_s=0,
        tensors=tensors,
        model_version=MODEL,
        epsilon_spent=1.0,
        epsilon_remaining=1.0,
        delta=plan.privacy.delta,
        digest=Digest("b2" * 32),
    )


def make_reports(
    plan: StudyPlan,
    periods: Iterable[str],
    *,
    sites: Iterable[str],
    patients: int,
    reference_patients: int,
    rng: np.random.Generator,
    worlds: Mapping[str, World] | None = None,
    of_site: Mapping[str, Mapping[str, World]] | None = None,
    kinds: Iterable[ReportKind] = KINDS,
) -> list[KeptReport]:
    """Return the reference and all periods of some sites.

    Args:
        worlds: by period, for all sites; the reference's where not given.
        of_site: by site, then period; goes before `worlds`.
    """
    periods, kinds = list(periods), list(kinds)
    found: list[KeptReport] = []
    for site in sites:
        own = dict(worlds or {}) | dict((of_site or {}).get(site, {}))
        asked = [(ReportKind.REFERENCE, REFERENCE, reference_patients)]
        asked += [(kind, period, patients) for period in periods for kind in kinds]
        for sequence, (kind, period, number) in enumerate(asked, start=1):
            world = own.get(period, SAME)
            found.append(
                make_report(
                    plan,
                    kind,
                    period,
                    site=site,
                    patients=number,
                    rng=rng,
                    world=world,
                    sequence=sequence,
                )
            )
    return found


def discrete_gaussian(
    rng: np.random.Generator, noise_multiplier: float, shape: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """Draw from the discrete Gaussian by inversion, for simulations that must be repeatable."""
    reach, cumulative = _discrete_law(noise_multiplier)
    drawn: npt.NDArray[np.int64] = np.searchsorted(cumulative, rng.random(shape)) - reach
    return drawn


@lru_cache(maxsize=64)
def _discrete_law(noise_multiplier: float) -> tuple[int, Floats]:
    reach = int(np.ceil(12 * noise_multiplier))
    steps = np.arange(-reach, reach + 1)
    weight = np.exp(-(steps**2) / (2 * noise_multiplier**2))
    return reach, np.cumsum(weight / weight.sum())


_SHARES: dict[tuple[object, ...], Floats] = {}


def _cell_shares(plan: StudyPlan, family: TensorFamily, subject: str, world: World) -> Floats:
    place = (plan.study.id, plan.monitoring, family, subject, repr(world))
    if place not in _SHARES:
        _SHARES[place] = _make_shares(plan, family, subject, world)
    return _SHARES[place]


def _make_shares(plan: StudyPlan, family: TensorFamily, subject: str, world: World) -> Floats:
    assert plan.monitoring is not None
    if family is TensorFamily.SENTINELS:
        feature = next(item for item in plan.features if item.name == subject)
        if isinstance(feature, CategoricalFeature):
            return np.append(_levels(len(feature.levels)), 0.0)
        edges = np.linspace(-CLIP, CLIP, plan.monitoring.bins + 1)[1:-1]
        below = norm.cdf(edges, loc=world.shifts.get(subject, 0.0))
        absent = world.missing.get(subject, 0.05)
        return np.append(np.diff(below, prepend=0, append=1) * (1 - absent), absent)
    scores = plan.monitoring.score_edges
    if family is TensorFamily.SCORES:
        return np.asarray(_label_and_score(scores, world, world.slope).sum(axis=0))
    if family is TensorFamily.OVERALL:
        return _label_and_score(scores, world, world.slope)
    feature = next(item for item in plan.features if item.name == subject)
    assert isinstance(feature, CategoricalFeature)
    parts = []
    for level, share in enumerate(_levels(len(feature.levels))):
        is_other = subject == "age_band" and level == 0
        slope = world.slope * (world.group_slope if is_other else 1.0)
        parts.append(share * _label_and_score(plan.monitoring.group_edges, world, slope))
    found = np.stack(parts)
    return np.asarray(found.sum(axis=1)) if family is TensorFamily.GROUP_SCORES else found


def _levels(number: int) -> Floats:
    return np.array([0.52, 0.48] if number == 2 else [0.2, 0.3, 0.3, 0.2])


def _label_and_score(edges: tuple[float, ...], world: World, slope: float) -> Floats:
    """Return the shares [label, bins] when the score's logit is normal around -1.8."""
    nodes = np.linspace(-9, 9, 8001)
    weight = norm.pdf(nodes)
    weight /= weight.sum()
    score = -1.8 + world.score_shift + 1.1 * nodes
    risk = expit(world.intercept + slope * score)
    bins = np.digitize(score, logit(np.asarray(edges)))
    return np.stack(
        [np.bincount(bins, weight * part, minlength=len(edges) + 1) for part in (1 - risk, risk)]
    )
