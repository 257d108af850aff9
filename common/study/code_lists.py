"""Every list of codes in a plan, with where it stands."""

from __future__ import annotations

from common.study.plan import StudyPlan


def code_lists(plan: StudyPlan) -> list[tuple[str, tuple[str, ...]]]:
    """Return every list of codes with its path; of a plan in parts, those that are well formed."""
    lists = [(f"features[{place}]", item.codes) for place, item in enumerate(plan.features)]
    cohort = getattr(plan, "cohort", None)
    if (index := getattr(cohort, "index_date", None)) is not None:
        lists.append(("cohort.index_date", index.codes))
    for name in ("require", "exclude"):
        criteria = getattr(cohort, name, ())
        lists += [(f"cohort.{name}[{at}]", item.codes) for at, item in enumerate(criteria)]
    return [*lists, ("label", plan.label.codes)]
