"""The same features as somebody who knows pandas writes them: whole columns, no loop over rows.

No count of what was left out and no check of the files; numbers stay as wide as in the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401

from benchmarks.features.generate import DATA_UNTIL
from benchmarks.features.study import G_PER_DL_AS_G_PER_L, HOSPICE, PLAUSIBLE
from common.study.plan import CategoricalFeature, Feature, StudyPlan

DAY = pd.Timedelta(days=1)


def features_of(
    folder: Path, plan: StudyPlan
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """Return values [rows, features] and the rows' patients."""
    events = pd.read_parquet(folder / "data")
    events = events[~(events["time"] >= pd.Timestamp(DATA_UNTIL))]
    rows = index_rows(events)
    wanted = [code.replace("/", "//", 1) for item in plan.features for code in item.codes]
    events = events[events["code"].isin([*wanted, "GENDER//F", "GENDER//M"])]
    reached = events.merge(rows[["subject_id", "row", "index"]], on="subject_id")
    del events
    reached = reached[~(reached["time"] > reached["index"])]
    reached["days"] = (reached["index"] - reached["time"]) / DAY
    reached["value"] = reached["numeric_value"].astype(np.float64)
    in_dl = reached["unit"] == "g/dL"
    reached.loc[in_dl, "value"] *= G_PER_DL_AS_G_PER_L
    by_code = dict(iter(reached.groupby("code")))
    columns = [
        rows["age"] if item.name == "age" else feature_of(item, by_code).reindex(rows["row"])
        for item in plan.features
    ]
    for item, column in zip(plan.features, columns, strict=True):
        if getattr(item, "aggregate", "") in {"count", "any"}:
            column.fillna(0, inplace=True)
    values = np.stack([column.to_numpy(np.float64) for column in columns], axis=1)
    return values, rows["subject_id"].astype(str).to_numpy().astype(np.str_)


def index_rows(events: pd.DataFrame) -> pd.DataFrame:
    """Return one row a patient: subject_id, index, born, label, age, row."""

    def first(code: str, name: str) -> pd.Series[pd.Timestamp]:
        chosen = events[events["code"] == code]
        return chosen.groupby("subject_id")["time"].min().rename(name)

    entries = events[events["code"].isin(["Visit//IP", "Visit//OP"])][["subject_id", "time"]]
    entries = entries.assign(index=entries["time"] + DAY).drop_duplicates()
    entries = entries.merge(first("MEDS_DEATH", "died"), on="subject_id", how="left")
    entries = entries[~(entries["died"] <= entries["index"])].reset_index(names="entry")
    hospice = events[events["code"] == f"DX//{HOSPICE}"][["subject_id", "time"]]
    pairs = hospice.merge(entries, on="subject_id", suffixes=("", "_entry"))
    inside = (pairs["time"] <= pairs["index"]) & (pairs["time"] > pairs["index"] - 365 * DAY)
    entries = entries[~entries["entry"].isin(pairs["entry"][inside])]
    grouped = entries.groupby("subject_id")
    rows = grouped["index"].max().to_frame().join(grouped["died"].first())
    rows = rows.join(first("MEDS_BIRTH", "born"), how="inner").reset_index()
    rows["label"] = rows["died"] <= rows["index"] + 365 * DAY
    index, born = rows["index"].dt, rows["born"].dt
    day, birthday = index.month * 100 + index.day, born.month * 100 + born.day
    rows["age"] = index.year - born.year - (day < birthday)
    rows = rows[rows["age"].between(18, 110)].sort_values("subject_id")
    return rows.assign(row=np.arange(len(rows)))


def feature_of(  # noqa: PLR0911 - one line an aggregate
    item: Feature, by_code: dict[str, pd.DataFrame]
) -> pd.Series[float]:
    """Return one feature by row, of events that reach a row, by code."""
    if item.name == "sex":
        both = pd.concat([by_code["GENDER//F"], by_code["GENDER//M"]])
        return (both.set_index("row")["code"] == "GENDER//M").astype(float)
    events = by_code[item.codes[0].replace("/", "//", 1)]
    inside = events[events["days"] < item.window_days]
    if isinstance(item, CategoricalFeature):
        levels = {level: place for place, level in enumerate(item.levels)}
        known = inside.assign(value=inside["text_value"].map(levels)).dropna(subset=["value"])
        known = known.sort_values(["days", "value"], ascending=[False, True])
        return known.groupby("row")["value"].last()
    if item.aggregate in {"count", "any"}:
        number = inside.groupby("row").size()
        return number.astype(float) if item.aggregate == "count" else (number > 0).astype(float)
    if item.aggregate == "time_since":
        return inside.groupby("row")["days"].min()
    units = ["g/L", "g/dL"] if item.unit == "g/L" else [item.unit]
    used = inside[inside["unit"].isin(units) & inside["value"].between(*PLAUSIBLE)]
    if item.aggregate in {"last", "first"}:
        # The largest of simultaneous values.
        ordered = used.sort_values(["days", "value"], ascending=[item.aggregate == "last", False])
        return ordered.groupby("row")["value"].first()
    if item.aggregate == "slope":
        return _slopes(used)
    return used.groupby("row")["value"].agg(item.aggregate)


def _slopes(used: pd.DataFrame) -> pd.Series[float]:
    grouped = used.groupby("row")
    x = -(used["days"] - grouped["days"].transform("mean"))
    y = used["value"] - grouped["value"].transform("mean")
    sums = pd.DataFrame({"xy": x * y, "xx": x * x}).groupby(used["row"]).sum()
    several = grouped["days"].nunique() > 1
    return (sums["xy"] / sums["xx"])[several]
