"""The same features as pandas is usually written: one function, asked for each feature in turn.

Every feature filters the events by its codes and joins the index rows anew. What it does with them
then is `in_pandas`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.features.generate import DATA_UNTIL
from benchmarks.features.in_pandas import DAY, feature_of, index_rows
from benchmarks.features.study import G_PER_DL_AS_G_PER_L
from common.study.plan import Feature, StudyPlan


def features_of(
    folder: Path, plan: StudyPlan
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.str_]]:
    """Return values [rows, features] and the rows' patients."""
    events = pd.read_parquet(folder / "data")
    events = events[~(events["time"] >= pd.Timestamp(DATA_UNTIL))]
    rows = index_rows(events)
    columns = [
        rows["age"] if item.name == "age" else _feature(item, events, rows)
        for item in plan.features
    ]
    values = np.stack([column.to_numpy(np.float64) for column in columns], axis=1)
    return values, rows["subject_id"].astype(str).to_numpy().astype(np.str_)


def _feature(item: Feature, events: pd.DataFrame, rows: pd.DataFrame) -> pd.Series[float]:
    codes = [code.replace("/", "//", 1) for code in item.codes]
    if item.name == "sex":
        codes = ["GENDER//F", "GENDER//M"]
    reached = events[events["code"].isin(codes)]
    reached = reached.merge(rows[["subject_id", "row", "index"]], on="subject_id")
    reached = reached[~(reached["time"] > reached["index"])]
    reached["days"] = (reached["index"] - reached["time"]) / DAY
    reached["value"] = reached["numeric_value"].astype(np.float64)
    in_dl = reached["unit"] == "g/dL"
    reached.loc[in_dl, "value"] *= G_PER_DL_AS_G_PER_L
    column = feature_of(item, dict(iter(reached.groupby("code")))).reindex(rows["row"])
    return column.fillna(0) if getattr(item, "aggregate", "") in {"count", "any"} else column
