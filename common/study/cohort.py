"""Who is in a study, and when: entry event, index date, criteria.

A table has one row for each index date already; the parts that name events are for sources of
events, which make the rows from them.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from common.study.plan_types import Codes, PlanPart, Text

AGE: Final = "LOINC/30525-0"
"""A feature of this code is the age at the index date, by the date of birth."""


class IndexDate(PlanPart):
    """The moment from which is looked back for features and forward for the outcome.

    It lies `hours_after` an event of these codes. `occurrence` says which of a patient's events
    count, after the criteria; of "every", as many as `privacy.rows_per_patient_max`, drawn once.
    """

    description: Text
    codes: Codes
    occurrence: Literal["first", "last", "every"] = "first"
    hours_after: Annotated[int, Field(ge=0, le=87_600)] = 0
    observed_days_min: Annotated[int, Field(ge=0, le=36_500)] = 0


class Criterion(PlanPart):
    """Events in a window before the index date, by which a row is kept or left out.

    The window is from `days_before` the index date (excluded) to `days_until` (included; 0 is the
    index date itself).
    """

    description: Text
    codes: Codes
    days_before: Annotated[int, Field(ge=1, le=36_500)]
    days_until: Annotated[int, Field(ge=0, le=36_499)] = 0
    count_min: Annotated[int, Field(ge=1, le=1000)] = 1


class CohortDefinition(PlanPart):
    """Who is in the study; a table's rows already meet it.

    `require` keeps a row with at least `count_min` events, `exclude` leaves it out.
    """

    description: Text
    age_years_min: Annotated[int, Field(ge=0, le=130)] = 0
    age_years_max: Annotated[int, Field(ge=0, le=130)] = 130
    index_date: IndexDate | None = None
    require: Annotated[tuple[Criterion, ...], Field(max_length=50, strict=False)] = ()
    exclude: Annotated[tuple[Criterion, ...], Field(max_length=50, strict=False)] = ()
