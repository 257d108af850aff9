"""The study plan as frozen, strict models: no rules, no file access.

One TOML file holds everything about a study. Field rules that pydantic can say (types, ranges,
unknown keys) are here; rules between fields are numbered in `common.study.rules`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from common import limits
from common.study.aggregation import WEIGHTED_MEAN, AggregationSpec
from common.study.cohort import CohortDefinition
from common.study.monitoring import Monitoring
from common.study.plan_types import (
    Codes,
    DeviationMin,
    DeviationsMax,
    Finite,
    Name,
    Norm,
    PlanPart,
    Positive,
    Probability,
    Rate,
    Slug,
    Text,
    WindowDays,
)


class StudyHeader(PlanPart):
    """What the study is for and under what authority it runs."""

    id: Slug
    title: Text
    purpose: Text
    lawful_basis: Text
    contact: Text


NumericAggregate = Literal[
    "last", "first", "min", "max", "mean", "median", "count", "any", "time_since", "slope"
]


class NumericFeature(PlanPart):
    """One measured quantity in one unit.

    `plausible_range` bounds what is believed (a value outside is set missing and counted);
    `clip` are the public bounds to which values are clipped and then scaled to [-1, 1]. Values in
    other units are converted, between mass and amount with the `analyte`'s molar mass. With
    `time_bins` the window is divided into so many equal bins, the oldest first, each with a value;
    a bin without one has the last before it.
    """

    kind: Literal["numeric"]
    name: Name
    description: Text
    codes: Codes
    unit: Text
    plausible_range: Annotated[tuple[Finite, Finite], Field(strict=False)]
    clip: Annotated[tuple[Finite, Finite], Field(strict=False)]
    aggregate: NumericAggregate = "last"
    window_days: WindowDays = 365
    time_bins: Annotated[int, Field(ge=2, le=limits.TIME_BINS_MAX)] | None = None
    unit_if_missing: Text | None = None
    analyte: Text | None = None
    missing: Literal["indicator", "none_allowed"] = "indicator"


class CategoricalFeature(PlanPart):
    """One quantity with declared levels; a value outside them is missing and counted."""

    kind: Literal["categorical"]
    name: Name
    description: Text
    codes: Codes
    levels: Annotated[
        tuple[Text, ...], Field(min_length=2, max_length=limits.CATEGORIES_MAX, strict=False)
    ]
    window_days: WindowDays = 365
    missing: Literal["indicator", "none_allowed"] = "indicator"


Feature = Annotated[NumericFeature | CategoricalFeature, Field(discriminator="kind")]


class BinaryLabel(PlanPart):
    """The outcome to predict: 1 when the event happens in the prediction window, else 0.

    The window begins `gap_hours` after the index date (excluded) and ends `prediction_window_days`
    after it (included). With `above` or `below` an event counts only if its value, in `unit`, is
    beyond the bound. `follow_up` "required" leaves out a patient without the event who was not seen
    at or after the window's end and has not died; "assumed" takes that patient as well.
    """

    name: Name
    description: Text
    codes: Codes
    prediction_window_days: WindowDays
    gap_hours: Annotated[int, Field(ge=0, le=87_600)] = 0
    above: Finite | None = None
    below: Finite | None = None
    unit: Text | None = None
    unit_if_missing: Text | None = None
    analyte: Text | None = None
    follow_up: Literal["assumed", "required"] = "assumed"


class MeanVarianceScaling(PlanPart):
    """Numeric features are scaled by means and deviations that the sites release once, with noise.

    `epsilon_fraction` is the share of the study's epsilon that this release alone may spend; no
    deviation is taken to be below `deviation_min` (of the range -1 to 1); values further than
    `deviations_max` deviations from the mean are clipped.
    """

    kind: Literal["dp_mean_variance"]
    epsilon_fraction: Annotated[float, Field(ge=0.01, le=0.5)] = 0.15
    deviation_min: DeviationMin = 0.01
    deviations_max: DeviationsMax = 4.0


class WarmStartScaling(PlanPart):
    """Numeric features are scaled as those of the version from which round 1 starts."""

    kind: Literal["of_warm_start"]
    deviation_min: DeviationMin = 0.01
    deviations_max: DeviationsMax = 4.0

    @property
    def epsilon_fraction(self) -> float:
        """Nothing is released: what made that version was charged when it was made."""
        return 0.0


ScalingSpec = Annotated[MeanVarianceScaling | WarmStartScaling, Field(discriminator="kind")]


class FairnessGroup(PlanPart):
    """A categorical feature by whose levels performance is compared."""

    feature: Name


class LogisticRegression(PlanPart):
    """One linear layer; output is a logit."""

    kind: Literal["logistic_regression"]


class MultilayerPerceptron(PlanPart):
    """Linear layers with tanh between; output is a logit."""

    kind: Literal["mlp"]
    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4096)], ...],
        Field(min_length=1, max_length=8, strict=False),
    ]


class ResidualPerceptron(PlanPart):
    """Residual blocks with layer normalisation (He et al. 2016; Ba et al. 2016); a logit.

    A linear layer to `width`; `blocks` times x + W2 tanh(W1 norm(x)); norm; a linear layer.
    """

    kind: Literal["residual_mlp"]
    width: Annotated[int, Field(ge=1, le=4096)]
    blocks: Annotated[int, Field(ge=1, le=16)]


class GatedRecurrentUnit(PlanPart):
    """A gated recurrent unit over the time bins (Cho et al. 2014); its last state gives the logit.

    Features without time bins are the same in every bin.
    """

    kind: Literal["gru"]
    width: Annotated[int, Field(ge=1, le=1024)]


ModelSpec = Annotated[
    LogisticRegression | MultilayerPerceptron | ResidualPerceptron | GatedRecurrentUnit,
    Field(discriminator="kind"),
]


class FedAvg(PlanPart):
    """The weighted mean of updates is added to the model (McMahan et al. 2017)."""

    kind: Literal["fedavg"]
    server_learning_rate: Positive = 1.0


class FedAdam(PlanPart):
    """Adam on the mean update at the coordinator (Reddi et al. 2021, Algorithm 2)."""

    kind: Literal["fedadam"]
    server_learning_rate: Positive
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Positive = 1e-3


StrategySpec = Annotated[FedAvg | FedAdam, Field(discriminator="kind")]


class Sgd(PlanPart):
    """Gradient descent with momentum; the velocity stays at the site from round to round."""

    kind: Literal["sgd"]
    learning_rate: Rate
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0


class Adam(PlanPart):
    """Adam whose second moment is corrected for the DP noise in it (Tang et al. 2024).

    The moments stay at the site from round to round. `stability` is the floor under the corrected
    second moment's square root.
    """

    kind: Literal["adam"]
    learning_rate: Rate
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    stability: Annotated[float, Field(ge=1e-8, le=1, allow_inf_nan=False)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0


OptimizerSpec = Annotated[Sgd | Adam, Field(discriminator="kind")]


class WarmStart(PlanPart):
    """Round 1 starts from a registered model version of the same shape."""

    version: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Training(PlanPart):
    """How rounds and local steps run; `sampling_probability` and steps are public.

    All options here act on noised sums, or inside one patient's loss before clipping: none changes
    what a step costs in privacy.
    """

    strategy: StrategySpec
    aggregation: AggregationSpec = WEIGHTED_MEAN
    optimizer: OptimizerSpec
    warm_start: WarmStart | None = None
    rounds: Annotated[int, Field(ge=1, le=limits.ROUNDS_MAX)]
    local_steps: Annotated[int, Field(ge=1, le=limits.LOCAL_STEPS_MAX)]
    sampling_probability: Probability
    proximal_term: Annotated[float, Field(ge=0, le=1000)] = 0.0
    positive_class_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    model_average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    quorum: Annotated[int, Field(ge=1, le=limits.SITES_MAX)]
    round_deadline_s: Annotated[int, Field(ge=5, le=7 * 24 * 3600)]
    update_norm_max: Positive


class Evaluation(PlanPart):
    """Held-out patients, scored by the received model, counted in [label, score bin] with noise.

    `releases` evaluations are made: the last of the final model, the others spread evenly. With
    `tuning_fraction` the others are of tuning patients, so that whoever stops or chooses by them
    has not looked at the held-out ones.
    """

    held_out_fraction: Annotated[float, Field(gt=0, lt=0.9)]
    tuning_fraction: Annotated[float, Field(gt=0, lt=0.9)] | None = None
    score_bins: Annotated[int, Field(ge=4, le=50)]
    releases: Annotated[int, Field(ge=1, le=1000)]

    @property
    def training_fraction(self) -> float:
        """Share of patients who train."""
        return 1.0 - self.held_out_fraction - (self.tuning_fraction or 0.0)


class Privacy(PlanPart):
    """The promise to each patient: (epsilon, delta) for all of this study's releases at a site."""

    unit: Literal["patient"]
    neighboring_relation: Literal["add_or_remove_one"]
    epsilon: Annotated[float, Field(gt=0, le=limits.EPSILON_MAX)]
    delta: Annotated[float, Field(gt=0, le=limits.DELTA_MAX)]
    clipping_norm: Norm
    clipping: Literal["flat", "normalized"] = "flat"
    noise_multiplier: Literal["calibrate"] | Positive
    rows_per_patient_max: Annotated[int, Field(ge=1, le=1000)] = 1


class Selection(PlanPart):
    """The plan's features are candidates; the study only chooses among them and trains nothing.

    `keep` features are proposed, those of `always_keep`, fairness groups and sentinels among them.
    A candidate that fewer patients have than `present_share_min` is too sparse. The pairs of the
    `joint_candidates` best are counted as well. A numeric candidate is counted in `bins` classes of
    equal width between its clip bounds.
    """

    keep: Annotated[int, Field(ge=1, le=limits.FEATURES_MAX)]
    present_share_min: Annotated[float, Field(ge=0, lt=1)]
    joint_candidates: Annotated[int, Field(ge=2, le=limits.JOINT_CANDIDATES_MAX)]
    bins: Annotated[int, Field(ge=2, le=8)] = 2
    always_keep: Annotated[
        tuple[Name, ...], Field(max_length=limits.FEATURES_MAX, strict=False)
    ] = ()


class StudyPlan(PlanPart):
    """One question with its cohort, variables, model, rounds and privacy budget."""

    plan_version: Literal[1]
    study: StudyHeader
    cohort: CohortDefinition
    features: Annotated[
        tuple[Feature, ...], Field(min_length=1, max_length=limits.FEATURES_MAX, strict=False)
    ]
    label: BinaryLabel
    fairness_groups: Annotated[tuple[FairnessGroup, ...], Field(max_length=20, strict=False)] = ()
    scaling: ScalingSpec | None = None
    model: ModelSpec
    training: Training
    evaluation: Evaluation
    privacy: Privacy
    monitoring: Monitoring | None = None
    selection: Selection | None = None
