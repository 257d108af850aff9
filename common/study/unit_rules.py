"""Plan rule about units of measurement. Numbers are in `rules`."""

from __future__ import annotations

from collections.abc import Iterator

from common.errors import PlanError
from common.study.plan import NumericFeature, StudyPlan
from common.study.problems import Problem
from common.units.conversions import unit_table


def rule_units_are_ucum(plan: StudyPlan) -> Iterator[Problem]:
    """Every unit is a UCUM code that sites can convert to, and `unit_if_missing` converts."""
    asked = [
        (f"features[{place}]", item.unit, item.unit_if_missing, item.analyte)
        for place, item in enumerate(plan.features)
        if isinstance(item, NumericFeature)
    ]
    label = plan.label
    if label.unit is not None:
        asked.append(("label", label.unit, label.unit_if_missing, label.analyte))
    for path, unit, assumed, analyte in asked:
        try:
            unit_table((), unit, analyte=analyte, assume=assumed)
        except PlanError as error:
            yield Problem(f"{path}.unit", error.arrived, error.expected, error.todo)
