"""The types of a plan's fields, and the base of its parts."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from common import limits

Slug = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Text = Annotated[str, Field(min_length=1, max_length=4000)]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]{1,40}/[^\s/][^\n]{0,120}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
Norm = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
DeviationMin = Annotated[float, Field(ge=1e-3, le=1, allow_inf_nan=False)]
DeviationsMax = Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)]


Codes = Annotated[
    tuple[Code, ...], Field(min_length=1, max_length=limits.PLAN_CODES_MAX, strict=False)
]
WindowDays = Annotated[int, Field(ge=1, le=36_500)]


class PlanPart(BaseModel):
    """Base of every part: frozen, strict, no unknown key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
