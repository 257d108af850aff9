"""What the board would have said during the International Stroke Trial.

    python -m benchmarks.monitoring_stroke [--seed 1] [--epsilon 2] [--page board.html]

A logistic regression of death within six months is trained on half of the patients of 1991 to 1993
(baseline variables only); the other half is the reference. Then each calendar quarter from 1994 to
1996 is a monitoring report of case mix and of outcomes, by the plan's tensors and noise. Sites are
the trial's hospitals, grouped by country: most have too few patients in a quarter for epsilon 2.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from benchmarks.utility.run import data_folder
from common.clock import utc_text
from common.ids import Digest, SiteId, StudyId
from common.study.plan import CategoricalFeature, NumericFeature, StudyPlan
from common.study.report_periods import REFERENCE, parse_period
from common.study.report_tensors import (
    ReportKind,
    ReportTensor,
    TensorFamily,
    report_tensors,
    sentinel_edges,
)
from server.monitor_board.kept_reports import KeptReport
from server.monitor_board.signal_types import Signal, SiteSignals, State
from server.monitor_board.signals import BoardSignals, assess
from server.monitor_board.statistics.noisy_counts import NoisyCounts
from server.monitor_board.web.protocol_views import ProtocolRecords
from server.monitor_board.web.report_file import write_report
from server.monitor_board.web.store_views import StudyRecords, study_view
from server.monitor_board.web.views import BoardView
from tests.lib.monitored import discrete_gaussian
from tests.lib.plans import make_plan

Row = Mapping[str, str]
Floats = npt.NDArray[np.float64]
SITES: Final = {
    "united-kingdom": ("UK", "EIRE"),
    "italy": ("ITAL",),
    "central-and-eastern-europe": (
        *("SWIT", "AUST", "GERM", "POLA", "CZEC", "HUNG", "SLOK", "SLOV", "ROMA"),
    ),
    "nordic-and-low-countries": ("SWED", "NORW", "FINL", "DENM", "NETH", "BELG", "FRAN"),
    "iberia-turkey-and-south-america": (
        *("SPAI", "PORT", "GREE", "TURK", "ISRA", "ARGE", "BRAS", "CHIL"),
    ),
}
OTHERS: Final = "all-other-countries"
# The trial's months are abbreviated in Polish; the tenth's accent did not survive.
MONTHS: Final = ("sty", "lut", "mar", "kwi", "maj", "cze", "lip", "sie", "wrz", "pa", "lis", "gru")
NUMBERS: Final = {
    "age": ("AGE", "a", (40, 95)),
    "delay": ("RDELAY", "h", (0, 48)),
    "systolic_bp": ("RSBP", "mm[Hg]", (100, 220)),
}
CATEGORIES: Final = {
    "sex": ("SEX", ("F", "M")),
    "consciousness": ("RCONSC", ("F", "D", "U")),
    "stroke_type": ("STYPE", ("TACS", "PACS", "POCS", "LACS")),
    "atrial_fibrillation": ("RATRIAL", ("N", "Y")),
    "ct_before": ("RCT", ("N", "Y")),
    "infarct_visible": ("RVISINF", ("N", "Y")),
    "speech_deficit": ("RDEF4", ("N", "Y", "C")),
}
MODEL: Final = Digest("1994" * 16)


def stroke_monitoring_plan(epsilon: float) -> StudyPlan:
    """Return the plan; only its features, label and monitoring matter here."""
    shared = {"missing": "indicator"}
    numbers = [
        {
            "kind": "numeric",
            "name": name,
            "description": name,
            "codes": [f"IST/{column}"],
            "unit": unit,
            "plausible_range": [bounds[0] - 100, bounds[1] + 200],
            "clip": list(bounds),
        }
        | shared
        for name, (column, unit, bounds) in NUMBERS.items()
    ]
    categories = [
        {
            "kind": "categorical",
            "name": name,
            "description": name,
            "codes": [f"IST/{column}"],
            "levels": list(levels),
        }
        | shared
        for name, (column, levels) in CATEGORIES.items()
    ]
    return make_plan(
        study__title="Death within six months of a stroke (International Stroke Trial)",
        study__id="stroke-monitoring",
        features=numbers + categories,
        fairness_groups=[{"feature": "sex"}],
        label__prediction_window_days=180,
        monitoring={
            "sentinel_features": [*NUMBERS, *CATEGORIES],
            "epsilon_per_report": epsilon,
            "bins": 8,
            "every": "quarter",
            "score_edges": [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7],
            "group_edges": [0.1, 0.3, 0.5],
            "threshold": 0.3,
        },
        privacy__epsilon=10.0,
    )


def read_rows(folder: Path) -> list[Row]:
    """Return the patients whose outcome at six months is known."""
    with gzip.open(folder / "stroke_ist" / "IST.csv.gz") as stream:
        text = io.TextIOWrapper(stream, encoding="latin-1", newline="")
        return [row for row in csv.DictReader(text) if row["OCCODE"] in ("1", "2", "3", "4")]


def quarter_of(row: Row) -> str:
    """Return the calendar quarter of randomisation."""
    month, year = row["RDATE"].split("-")
    place = next(place for place, name in enumerate(MONTHS) if month.startswith(name))
    return f"19{year}-Q{place // 3 + 1}"


def site_of(row: Row) -> str:
    """Return the site that a patient's hospital is grouped into."""
    country = row["COUNTRY"].strip().upper()
    return next((site for site, names in SITES.items() if country in names), OTHERS)


def design(rows: Sequence[Row]) -> Floats:
    """Return the model's inputs: numbers in plan units, categories as indicators."""
    columns = []
    for column, _, (low, high) in NUMBERS.values():
        values = np.array([float(row[column] or "nan") for row in rows])
        middle = (low + high) / 2
        columns.append((np.clip(np.nan_to_num(values, nan=middle), low, high) - middle) / middle)
    for column, levels in CATEGORIES.values():
        cells = np.array([row[column].strip() for row in rows])
        columns += [(cells == level).astype(np.float64) for level in levels]
    return np.stack(columns, axis=1)


def outcomes(rows: Sequence[Row]) -> npt.NDArray[np.int64]:
    """Return 1 for death within six months."""
    return np.array([row["OCCODE"] == "1" for row in rows], dtype=np.int64)


def make_report(
    plan: StudyPlan,
    kind: ReportKind,
    period: str,
    rows: Sequence[Row],
    risks: Floats,
    *,
    site: str,
    sequence: int,
    rng: np.random.Generator,
) -> KeptReport:
    """Return one site's report of a period."""
    label = outcomes(rows)
    tensors = {}
    for tensor in report_tensors(plan, kind):
        cells = cells_of(plan, tensor, rows, risks, label)
        counts = np.bincount(cells, minlength=tensor.cells).reshape(tensor.shape)
        noise = discrete_gaussian(rng, tensor.noise_multiplier, tensor.shape)
        tensors[tensor.name] = NoisyCounts(counts + noise, tensor.noise_multiplier)
    return KeptReport(
        study_id=StudyId(plan.study.id),
        site_id=SiteId(site),
        kind=kind,
        period=period,
        sequence=sequence,
        received_at_s=0,
        tensors=tensors,
        model_version=MODEL,
        epsilon_spent=0.0,
        epsilon_remaining=0.0,
        delta=plan.privacy.delta,
        digest=MODEL,
    )


def cells_of(
    plan: StudyPlan,
    tensor: ReportTensor,
    rows: Sequence[Row],
    risks: Floats,
    label: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return each patient's one cell of a tensor."""
    assert plan.monitoring is not None
    of_scores = tensor.family in (TensorFamily.SCORES, TensorFamily.OVERALL)
    edges = plan.monitoring.score_edges if of_scores else plan.monitoring.group_edges
    score = np.digitize(risks, edges)
    if tensor.family is TensorFamily.SCORES:
        return score
    if tensor.family is TensorFamily.OVERALL:
        return label * tensor.shape[1] + score
    level = _levels(plan, tensor.subject, rows)
    if tensor.family is TensorFamily.SENTINELS:
        return level
    if tensor.family is TensorFamily.GROUP_SCORES:
        return level * tensor.shape[1] + score
    return (level * tensor.shape[1] + label) * tensor.shape[2] + score


def _levels(plan: StudyPlan, name: str, rows: Sequence[Row]) -> npt.NDArray[np.int64]:
    """Return a feature's bin or level, missing ones last."""
    feature = next(item for item in plan.features if item.name == name)
    if isinstance(feature, CategoricalFeature):
        column, levels = CATEGORIES[name]
        places = {level: place for place, level in enumerate(levels)}
        return np.array([places.get(row[column].strip(), len(levels)) for row in rows])
    assert isinstance(feature, NumericFeature)
    values = np.array([float(row[NUMBERS[name][0]] or "nan") for row in rows])
    edges = sentinel_edges(plan, feature)
    return np.where(np.isnan(values), len(edges) + 1, np.digitize(values, edges))


def all_reports(plan: StudyPlan, rows: Sequence[Row], seed: int) -> list[KeptReport]:
    """Train, score, and return every site's reports."""
    rng = np.random.default_rng(seed)
    early = [row for row in rows if quarter_of(row) < "1994"]
    is_trained = rng.random(len(early)) < 0.5
    trained = [row for row, taken in zip(early, is_trained, strict=True) if taken]
    held_out = [row for row, taken in zip(early, is_trained, strict=True) if not taken]
    model = LogisticRegression(max_iter=2_000).fit(design(trained), outcomes(trained))
    parts = {REFERENCE: held_out}
    for row in rows:
        if quarter_of(row) >= "1994":
            parts.setdefault(quarter_of(row), []).append(row)
    found = []
    for sequence, period in enumerate((REFERENCE, *sorted(set(parts) - {REFERENCE}))):
        for site in (*SITES, OTHERS):
            own = [row for row in parts[period] if site_of(row) == site]
            risks = model.predict_proba(design(own))[:, 1]
            kinds = (ReportKind.CASE_MIX, ReportKind.OUTCOME)
            for kind in (ReportKind.REFERENCE,) if period == REFERENCE else kinds:
                found.append(
                    make_report(
                        plan, kind, period, own, risks, site=site, sequence=sequence, rng=rng
                    )
                )
    return found


def describe(plan: StudyPlan, reports: Sequence[KeptReport]) -> list[str]:
    """Return the report: what changed from quarter to quarter, and how things stand at the end."""
    lines, before = [], dict[tuple[str, str], State]()
    quarters = sorted({item.period for item in reports} - {REFERENCE})
    board = None
    for place, quarter in enumerate(quarters):
        seen = {REFERENCE, *quarters[: place + 1]}
        board = assess(
            plan, [item for item in reports if item.period in seen], now_s=0, expected={}
        )
        for part in _parts(board):
            for signal in part.signals:
                key = part.site_id or "all sites together", signal.name
                is_news = signal.state is not before.get(key, State.OK)
                if is_news and State.ALERT in (signal.state, before.get(key)):
                    lines.append(f"{quarter}  {key[0]}: {signal.words} {_figures(signal)}")
                before[key] = signal.state
    if board is not None:
        for part in _parts(board):
            lines += ["", *_standing(part)]
    return lines


def _parts(board: BoardSignals) -> list[SiteSignals]:
    return [*([board.pooled] if board.pooled else []), *board.sites]


def _figures(signal: Signal) -> str:
    if signal.estimate is None or signal.change is None:
        return ""
    if signal.look is not None and signal.state is State.ALERT and signal.level < signal.alarm:
        return f"({signal.look.quarter}: {signal.look.change:+.2f}, p {signal.look.p_value:.0e})"
    return f"({signal.estimate:.2f}, change {signal.change:+.2f}, level {signal.level:.1f})"


def _standing(part: SiteSignals) -> list[str]:
    of_state = {state: sum(item.state is state for item in part.signals) for state in State}
    counted = ", ".join(f"{number} {state.value}" for state, number in of_state.items() if number)
    lines = [f"{part.site_id or 'all sites together'}: {part.state.value.upper()} ({counted})"]
    for finding in part.findings:
        lines.append(f"  {finding.words}")
        lines.append(f"    A reader may conclude: {finding.may_conclude}")
        lines.append(f"    And may not: {finding.may_not_conclude}")
    return lines


def write_page(plan: StudyPlan, reports: Sequence[KeptReport], path: Path) -> None:
    """Write the board's own pages of these reports, as `cohortium-board report` does."""
    now_s = parse_period(reports[-1].period, "quarter").end_s
    nothing = ProtocolRecords(roster=None, chains=(), gaps=(), waiting=(), refusals=(), flagged=())
    records = StudyRecords(plan, reports, expected={}, decisions=(), protocol=nothing)
    studies = {plan.study.id: study_view(records, now_s=now_s)}
    write_report(BoardView("the stroke trial", 0, utc_text(now_s), now_s, studies), path)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epsilon", type=float, default=2.0)
    parser.add_argument("--page", type=Path, help="write the board's pages into this HTML file")
    asked = parser.parse_args()
    plan = stroke_monitoring_plan(asked.epsilon)
    reports = all_reports(plan, read_rows(data_folder()), asked.seed)
    print("\n".join(describe(plan, reports)))
    if asked.page is not None:
        write_page(plan, reports, asked.page)


if __name__ == "__main__":
    main()
