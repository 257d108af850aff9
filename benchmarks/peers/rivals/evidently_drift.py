"""Evidently's DataDriftPreset with its defaults on each week of a file; run by its own Python.

python evidently_drift.py rows.npz found.json
"""

import json
import sys

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset


def main(rows: str, found: str) -> None:
    with np.load(rows) as kept:
        names = [str(name) for name in kept["names"]]
        categories = kept["categories"]
        definition = DataDefinition(
            numerical_columns=[n for n, k in zip(names, categories, strict=True) if k == 0],
            categorical_columns=[n for n, k in zip(names, categories, strict=True) if k > 0],
        )
        past = table(names, categories, kept["reference"])
        weeks = sorted(name for name in kept.files if name.startswith("week_"))
        answers = []
        for week in weeks:
            current = Dataset.from_pandas(table(names, categories, kept[week]), definition)
            reference = Dataset.from_pandas(past, definition)
            # Its verdicts are tests; without `include_tests` only the scores are in the result.
            report = Report([DataDriftPreset()], include_tests=True)
            answers.append(verdicts(names, report.run(current, reference).dict()))
    with open(found, "w") as opened:
        json.dump(answers, opened)


def table(names, categories, rows):
    columns = {}
    for place, name in enumerate(names):
        values = pd.Series(rows[:, place])
        columns[name] = values if categories[place] == 0 else values.astype(int).astype(str)
    return pd.DataFrame(columns)


def verdicts(names, result):
    scores, flags, is_drifted = {}, {}, None
    for metric in result["metrics"]:
        if metric["config"]["type"].endswith(":ValueDrift"):
            config = metric["config"]
            scores[config["column"]] = config["method"], float(metric["value"])
    for test in result["tests"]:
        of = test["metric_config"]["params"]
        has_failed = test["status"].name == "FAIL"
        if of["type"].endswith(":ValueDrift"):
            flags[of["column"]] = has_failed
        else:
            is_drifted = has_failed
    return {
        "columns": [[*scores[name], flags[name]] for name in names],
        "is_data_set_drifted": is_drifted,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
