"""The same features as somebody who knows Polars writes them: lazy scans, the streaming engine.

No count of what was left out and no check of the files; numbers stay as wide as in the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.features.generate import DATA_UNTIL
from benchmarks.features.study import G_PER_DL_AS_G_PER_L, HOSPICE, PLAUSIBLE
from common.study.plan import CategoricalFeature, Feature, StudyPlan

_DAY = pl.duration(days=1)
_COUNTS = ("count", "any")


def features_of(
    folder: Path, plan: StudyPlan
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """Return values [rows, features] and the rows' patients."""
    events = pl.scan_parquet(folder / "data/**/*.parquet").filter(
        pl.col("time").is_null() | (pl.col("time") < pl.lit(DATA_UNTIL).cast(pl.Datetime("us")))
    )
    rows = _index_rows(events)
    wanted = [code.replace("/", "//", 1) for item in plan.features for code in item.codes]
    longest = max(item.window_days for item in plan.features)
    reached = (
        events.filter(pl.col("code").is_in([*wanted, "GENDER//F", "GENDER//M"]))
        .join(rows.select("subject_id", "row", "index").lazy(), on="subject_id")
        .filter(
            pl.col("time").is_null()
            | (
                (pl.col("time") <= pl.col("index"))
                & (pl.col("time") > pl.col("index") - longest * _DAY)
            )
        )
        .select(
            "row",
            "code",
            "text_value",
            "unit",
            value="numeric_value",
            days=(pl.col("index") - pl.col("time")).dt.total_microseconds() / 86400e6,
        )
        .collect(engine="streaming")
    )
    by_code = {key[0]: frame for key, frame in reached.partition_by("code", as_dict=True).items()}
    del reached
    values = np.full((len(rows), len(plan.features)), np.nan)
    asked = [(place, item) for place, item in enumerate(plan.features) if item.name != "age"]
    found = pl.collect_all([_feature(item, by_code) for _, item in asked])
    for (place, item), frame in zip(asked, found, strict=True):
        if getattr(item, "aggregate", "") in _COUNTS:
            values[:, place] = 0
        values[frame["row"].to_numpy(), place] = frame["number"].cast(pl.Float64).to_numpy()
    values[:, 0] = rows["age"].to_numpy()
    return values, rows["subject_id"].cast(pl.String).to_numpy().astype(np.str_)


def _index_rows(events: pl.LazyFrame) -> pl.DataFrame:
    codes = ["Visit//IP", "Visit//OP", "MEDS_BIRTH", "MEDS_DEATH", f"DX//{HOSPICE}"]
    facts = (
        events.filter(pl.col("code").is_in(codes))
        .select("subject_id", "time", "code")
        .collect(engine="streaming")
    )

    def first(code: str, name: str) -> pl.DataFrame:
        chosen = facts.filter(pl.col("code") == code)
        return chosen.group_by("subject_id").agg(pl.col("time").min().alias(name))

    entries = (
        facts.filter(pl.col("code").is_in(codes[:2]))
        .select("subject_id", index=pl.col("time") + _DAY)
        .unique()
        .join(first("MEDS_DEATH", "died"), on="subject_id", how="left")
        .filter(pl.col("died").is_null() | (pl.col("died") > pl.col("index")))
        .with_row_index("entry")
    )
    hospice = (
        facts.filter(pl.col("code") == codes[-1])
        .join(entries, on="subject_id")
        .filter(
            (pl.col("time") <= pl.col("index")) & (pl.col("time") > pl.col("index") - 365 * _DAY)
        )
    )
    rows = (
        entries.join(hospice, on="entry", how="anti")
        .group_by("subject_id")
        .agg(pl.col("index").max(), pl.col("died").first())
        .join(first("MEDS_BIRTH", "born"), on="subject_id")
        .with_columns(
            label=(pl.col("died") <= pl.col("index") + 365 * _DAY).fill_null(value=False),
            age=pl.col("index").dt.year()
            - pl.col("born").dt.year()
            - (
                pl.col("index").dt.strftime("%m%d%H%M") < pl.col("born").dt.strftime("%m%d%H%M")
            ).cast(pl.Int32),
        )
    )
    return rows.filter(pl.col("age").is_between(18, 110)).sort("subject_id").with_row_index("row")


def _feature(  # noqa: PLR0911 - one line an aggregate
    item: Feature, by_code: dict[object, pl.DataFrame]
) -> pl.LazyFrame:
    if item.name == "sex":
        both = pl.concat([by_code["GENDER//F"], by_code["GENDER//M"]]).lazy()
        return both.select("row", number=pl.col("code") == "GENDER//M")
    events = by_code[item.codes[0].replace("/", "//", 1)].lazy()
    inside = events.filter(pl.col("days") < item.window_days)
    if isinstance(item, CategoricalFeature):
        levels = {level: place for place, level in enumerate(item.levels)}
        inside = inside.with_columns(v=pl.col("text_value").replace_strict(levels, default=None))
        latest = inside.drop_nulls("v").sort("days", "v", descending=[True, False])
        return latest.group_by("row", maintain_order=True).agg(number=pl.col("v").last())
    days, value = pl.col("days"), pl.col("v")
    if item.aggregate == "count":
        return inside.group_by("row").agg(number=pl.len())
    if item.aggregate == "any":
        return inside.group_by("row").agg(number=pl.lit(1))
    if item.aggregate == "time_since":
        return inside.group_by("row").agg(number=days.min())
    converted = inside.filter(pl.col("unit").is_in(_units(item.unit))).select(
        "row",
        "days",
        v=pl.when(pl.col("unit") == "g/dL")
        .then(pl.col("value").cast(pl.Float64) * G_PER_DL_AS_G_PER_L)
        .otherwise(pl.col("value").cast(pl.Float64)),
    )
    used = converted.filter(value.is_between(*PLAUSIBLE))
    if item.aggregate in {"last", "first"}:
        # The largest of simultaneous values.
        nearest = days.min() if item.aggregate == "last" else days.max()
        return used.group_by("row").agg(number=value.filter(days == nearest).max())
    slope = pl.when(days.n_unique() > 1).then(-pl.cov("days", "v") / days.var())
    reduced = {
        "mean": value.mean(),
        "min": value.min(),
        "max": value.max(),
        "median": value.median(),
        "slope": slope,
    }
    return used.group_by("row").agg(number=reduced[item.aggregate]).drop_nulls()


def _units(unit: str) -> list[str]:
    return ["g/L", "g/dL"] if unit == "g/L" else [unit]
