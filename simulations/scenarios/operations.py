"""The operations of a scenario, one small model each: what is done, to whom, and in which words.

Faults are armed: they strike when the coordinator next asks the sites. Everything else is done at
once and stays until another operation changes it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Site = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Column = Annotated[str, Field(min_length=1, max_length=200)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
COORDINATOR = "coordinator"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Round(_Part):
    """Run so many rounds, as far as the study has them."""

    do: Literal["round"]
    count: Annotated[int, Field(ge=1, le=1000)] = 1


class Drop(_Part):
    """A request or a reply is lost on its way."""

    do: Literal["drop"]
    site: Site
    what: Literal["request", "reply"] = "reply"


class Delay(_Part):
    """A reply comes only when the coordinator asks the next time."""

    do: Literal["delay"]
    site: Site


class Duplicate(_Part):
    """A request reaches the site, or its reply the coordinator, so many times."""

    do: Literal["duplicate"]
    site: Site
    what: Literal["request", "reply"] = "reply"
    times: Annotated[int, Field(ge=2, le=5)] = 2


class Replay(_Part):
    """The site's oldest reply comes again, before its new one."""

    do: Literal["replay"]
    site: Site


class Corrupt(_Part):
    """One bit of a request or reply is changed, at `place` of its length (0 to 1)."""

    do: Literal["corrupt"]
    site: Site
    what: Literal["request", "reply"] = "reply"
    place: Annotated[float, Field(ge=0, le=1)] = 0.5


class Impersonate(_Part):
    """A site's reply is delivered as if it came from another site, before that one's own."""

    do: Literal["impersonate"]
    site: Site
    victim: Site


class Reorder(_Part):
    """Replies come in the other order."""

    do: Literal["reorder"]


class Kill(_Part):
    """A process dies in the middle of the next round.

    The coordinator dies after it took `after` replies, a site between its ledger's charge and its
    release.
    """

    do: Literal["kill"]
    who: Site
    after: Annotated[int, Field(ge=0, le=1000)] = 1


class Restart(_Part):
    """A site or the coordinator is closed and opened again from its files."""

    do: Literal["restart"]
    who: Site


class Clock(_Part):
    """The clock of a site or of the coordinator jumps by so many seconds."""

    do: Literal["clock"]
    who: Site
    seconds: Annotated[int, Field(ge=-10 * 366 * 86400, le=10 * 366 * 86400)]


class Poison(_Part):
    """From now on the site's training lies; `honest` ends it.

    `strength` multiplies the update; it is never longer than `update_norm_max`, so that the
    coordinator cannot refuse it.
    """

    do: Literal["poison"]
    site: Site
    how: Literal["label_flip", "sign_flip", "scaling", "backdoor", "honest"]
    strength: Annotated[float, Field(gt=0, le=1e6)] = 1.0


class Drift(_Part):
    """The site's values of a numeric feature move by so much, in the plan's unit."""

    do: Literal["drift"]
    site: Site
    feature: Column
    by: Finite


class UnitChange(_Part):
    """The site's laboratory reports a numeric feature in another unit and nobody tells."""

    do: Literal["unit_change"]
    site: Site
    feature: Column
    factor: Annotated[float, Field(gt=0, le=1e9)]


class Prevalence(_Part):
    """The share of patients with the outcome at a site becomes this, by drawing patients again."""

    do: Literal["prevalence"]
    site: Site
    share: Annotated[float, Field(gt=0, lt=1)]


Fault = Drop | Delay | Duplicate | Replay | Corrupt | Impersonate | Reorder | Kill
Operation = Annotated[
    Round
    | Drop
    | Delay
    | Duplicate
    | Replay
    | Corrupt
    | Impersonate
    | Reorder
    | Kill
    | Restart
    | Clock
    | Poison
    | Drift
    | UnitChange
    | Prevalence,
    Field(discriminator="do"),
]


def in_words(operation: Operation) -> str:
    """Return an operation as one short line, such as "drop: site north, what reply"."""
    fields = operation.model_dump()
    fields.pop("do")
    told = ", ".join(f"{name} {value}" for name, value in fields.items())
    return f"{operation.do}: {told}" if told else operation.do


def names_of(operation: Operation) -> tuple[str, ...]:
    """Return whom an operation names: sites, or the coordinator."""
    fields = operation.model_dump()
    return tuple(str(fields[name]) for name in ("site", "victim", "who") if name in fields)
