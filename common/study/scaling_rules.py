"""Plan rules about scaling numeric features. Numbers are in `rules`."""

from __future__ import annotations

from collections.abc import Iterator

from common.study.plan import NumericFeature, StudyPlan, WarmStartScaling
from common.study.problems import Problem


def rule_scaling_has_a_numeric_feature(plan: StudyPlan) -> Iterator[Problem]:
    """Scaling has a numeric feature."""
    if plan.scaling is None:
        return
    if not any(isinstance(feature, NumericFeature) for feature in plan.features):
        yield Problem(
            "scaling",
            "no numeric feature to scale",
            "one numeric feature or more",
            "remove [scaling]",
        )


def rule_scaling_goes_with_its_model(plan: StudyPlan) -> Iterator[Problem]:
    """Scaling is taken over from a version exactly when round 1 starts from one."""
    if plan.scaling is None:
        return
    starts_warm = plan.training.warm_start is not None
    if starts_warm == isinstance(plan.scaling, WarmStartScaling):
        return
    yield Problem(
        "scaling.kind",
        f"{plan.scaling.kind!r} {'with' if starts_warm else 'without'} [training.warm_start]",
        "'of_warm_start'" if starts_warm else "'dp_mean_variance'",
        "keep the version's own scaling, in which its parameters are expressed"
        if starts_warm
        else 'write kind = "dp_mean_variance", or name a version under [training.warm_start]',
    )
