"""Views of an invented board for tests of the dashboard and its benchmark: any number of sites."""

from __future__ import annotations

import random
from itertools import pairwise

from server.monitor_board.signal_types import Finding, Reason, State
from server.monitor_board.web.views import (
    BoardView,
    Column,
    DecisionRow,
    FairnessRow,
    FairnessView,
    HeatCell,
    HeatRow,
    ModelVersion,
    ModelView,
    Number,
    Performance,
    PrivacyRow,
    ProtocolRow,
    ProtocolView,
    RefusalRow,
    ReliabilityBin,
    RemarkRow,
    RocPoint,
    Series,
    SeriesPoint,
    SignalRow,
    Signature,
    SiteView,
    StudyView,
)

COLUMNS = tuple(
    Column(key, title, f"Definition of {title}.")
    for key, title in [
        ("reporting", "Reporting"),
        ("missing", "Missing values"),
        ("features", "Features"),
        ("scores", "Scores"),
        ("prevalence", "Outcome rate"),
        ("auroc", "AUROC"),
        ("calibration", "Calibration"),
        ("fairness", "Fairness"),
    ]
)

FINDING = Finding(Reason.CONCEPT, True, "AUROC fell.", "Consider retraining.", "Not which input.")


def make_performance(draw: random.Random) -> Performance:
    """Return an invented performance with one bin that is suppressed."""
    edges = [place / 10 for place in range(11)]
    bins = [
        ReliabilityBin(low, high, low + 0.05, _around(low + draw.uniform(0, 0.1), 0.04), 200)
        for low, high in pairwise(edges)
    ]
    bins[9] = ReliabilityBin(0.9, 1.0, 0.95, Number(None), None)
    roc = tuple(RocPoint(edge, Number((1 - edge) ** 3), Number(1 - edge**3)) for edge in edges)
    metrics = (("AUROC", Number(0.812, 0.79, 0.834)), ("Brier score", Number(None)))
    return Performance("All sites together", "2026-03", tuple(bins), roc, metrics)


def make_site(site_id: str, state: State, periods: int, draw: random.Random) -> SiteView:
    """Return an invented site's page."""
    labels = [f"2026-W{place + 1:02d}" for place in range(periods)]
    points = [
        SeriesPoint(label, _around(0.8 + draw.uniform(-0.02, 0.02), 0.02), 0.2) for label in labels
    ]
    points[-1] = SeriesPoint(labels[-1], _around(0.71, 0.02), 1.5, state)
    signal = SignalRow(
        "AUROC",
        labels[-1],
        points[-1].number,
        -0.09,
        0.00012,
        1.5,
        state,
        "fell by more than the plan tolerates",
    )
    series = Series("auroc", "AUROC", "Chance of ranking.", tuple(points), limit_low=0.77)
    return SiteView(
        site_id,
        state,
        (FINDING,),
        ("outcome of 2026-02",),
        (signal,),
        (series,),
        make_performance(draw),
    )


def make_study(
    *, sites: int = 6, periods: int = 5, study_id: str = "stroke-outcome", title: str = "Stroke"
) -> StudyView:
    """Return an invented study; its third to fifth sites are not well."""
    draw = random.Random(20260131)
    names = [f"site-{place:04d}" for place in range(sites)]
    states = [State.OK] * sites
    states[2:5] = [State.ALERT, State.WATCH, State.SILENT]
    rows = tuple(
        HeatRow(
            name,
            state,
            (Reason.CONCEPT,) if state is State.ALERT else (),
            "2026-03",
            tuple(_cell(state, draw) for _ in COLUMNS),
        )
        for name, state in zip(names, states, strict=True)
    )
    return StudyView(
        study_id=study_id,
        title=title,
        columns=COLUMNS,
        rows=rows,
        sites={
            name: make_site(name, state, periods, draw)
            for name, state in zip(names, states, strict=True)
        },
        pooled=make_site("all sites", State.OK, periods, draw),
        model=ModelView(
            (ModelVersion("ab" * 32, "2026-01", "2026-03", 3 * sites, is_newest=True),),
            (make_performance(draw),),
        ),
        fairness=FairnessView(0.05, _gaps(names)),
        privacy=tuple(
            PrivacyRow(name, 3.5, 4.5, 1e-6, (("2026-01", 1.9), ("2026-02", 3.5))) for name in names
        ),
        protocol=_protocol(names, states),
        decisions=_decisions(),
    )


def make_view(*studies: StudyView, position: int = 7) -> BoardView:
    """Return the view of a board with these studies, or with one invented one."""
    shown = studies or (make_study(),)
    return BoardView(
        "Cohort of four",
        position,
        "2026-04-02T10:00:00Z",
        1_775_124_000,
        {study.study_id: study for study in shown},
    )


def _around(value: float, reach: float) -> Number:
    return Number(value, value - reach, value + reach)


def _cell(state: State, draw: random.Random) -> HeatCell:
    if draw.random() < 0.1:
        return HeatCell(State.INSUFFICIENT, Number(None), "")
    return HeatCell(state, _around(draw.uniform(0.7, 0.8), 0.02), "")


def _gaps(names: list[str]) -> tuple[FairnessRow, ...]:
    where = ["all sites", *names]
    gap = Number(-0.031, -0.06, -0.002)
    shown = [
        FairnessRow(place, "2026-03", "sex", "F", "equal opportunity", gap, 0.04, State.OK)
        for place in where
    ]
    kept = FairnessRow(
        "all sites",
        "2026-03",
        "age_band",
        "90+",
        "equal opportunity",
        Number(None),
        None,
        State.INSUFFICIENT,
    )
    return (shown[0], kept, *shown[1:])


def _protocol(names: list[str], states: list[State]) -> ProtocolView:
    rows = tuple(
        ProtocolRow(name, state, "active", 1, 7, 8, "2026-03", 90_000, "5", "6-7", 1)
        for name, state in zip(names, states, strict=True)
    )
    refusal = RefusalRow("2026-03-08T01:02:03Z", names[0], 5, "B8", "two reports of one number")
    remark = RemarkRow(names[0], 6, "few-patients", "fewer patients than before")
    return ProtocolView(rows, (refusal,), (remark,), 4, "2026-12-31T00:00:00Z")


def _decisions() -> tuple[DecisionRow, ...]:
    two = (Signature("Ada Ruiz", "11" * 8), Signature("Jon Okoye", "22" * 8))
    return (
        DecisionRow(1, "2026-03-09T08:00:00Z", "watch", "site-0002", "2026-03", "AUROC", two, 2),
        DecisionRow(2, "2026-03-10T08:00:00Z", "stop", "study", "2026-03", "unclear", two[:1], 2),
    )
