"""The demo after training: three simulated months, and what the monitor board sees of them.

Every hospital reports on the promoted model through its gate; the relay carries what it cannot
read; the board opens it. In the third month one hospital's laboratory changes a unit and another
hospital gets older patients.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from common.study.plan_file import read_plan
from simulations.demo_board import DemoBoard
from simulations.deployment import Deployment
from simulations.monitored_months import (
    Change,
    add_month,
    months_before,
    older_patients,
    other_unit,
)

MONTHS: Final = 3
_MONTHS_AGO: Final = 3  # so that the last month's outcomes are complete
_PATIENTS: Final = 1500
_SEED: Final = 7
_MMOL_PER_MG_DL: Final = 1 / 38.67  # of cholesterol, whose molar mass is 386.7 g/mol
_REPORTS_WAIT_S: Final = 300.0
_WITHHELD: Final = "withheld"


@dataclass(frozen=True)
class WithheldReport:
    """A report that did not leave, which the board sees as one that did not come.

    Args:
        site, kind, period: which.
        outcome: why, in the site's words.
    """

    site: str
    kind: str
    period: str
    outcome: str


@dataclass(frozen=True)
class MonitoringResult:
    """What the board made of the months.

    Args:
        status: `cohortium-board status --json`.
        signals: `cohortium-board signals --json`: what fired, with states and reasons.
        page: its pages as one HTML file.
        months: their labels.
        planted: what happened in the last month, by site, in words.
        withheld: reports that a gate let nothing out of, such as one of too few patients.
    """

    status: dict[str, Any]
    signals: list[dict[str, Any]]
    page: Path
    months: tuple[str, ...]
    planted: dict[str, str]
    withheld: tuple[WithheldReport, ...]


def planted_changes(deployment: Deployment) -> dict[str, Change]:
    """Return what happens in the last month, by site: the second and the fourth hospital's."""
    unit_site, older_site = deployment.sites[1], deployment.sites[3]
    column = "chol" if 'column = "chol"' in unit_site.source else "cholesterol"
    return {
        unit_site.site_id: other_unit(
            column,
            factor=_MMOL_PER_MG_DL,
            words="its laboratory reports cholesterol in mmol/L under the name of mg/dL",
        ),
        older_site.site_id: older_patients(
            "age", per_decade=4.0, words="a geriatric ward opens: older patients come"
        ),
    }


def run_monitoring(
    deployment: Deployment, plan: Path, *, version: str, console: Console
) -> MonitoringResult:
    """Promote the model, let months pass, and return what the board sees."""
    board, study = DemoBoard(deployment), read_plan(plan).study.id
    deployment.say("A monitor board is founded: own keys, a roster, two deciders.")
    board.found("Demo consortium")
    board.watch(plan)
    deployment.coordinator(
        "models", "promote", version, "--as", "Study Lead", "--reason", "the study has finished"
    )
    made: list[tuple[str, dict[str, str]]] = []
    for site in deployment.sites:
        _wait_for_model(deployment, site.site_id, study)
        made += _report(deployment, site.site_id, study, "reference")
    today = datetime.datetime.now(datetime.UTC).date()
    months = months_before(today, MONTHS, months_ago=_MONTHS_AGO)
    changes = planted_changes(deployment)
    for month in months:
        is_last = month == months[-1]
        deployment.say(f"{month:%B %Y}: {_PATIENTS} patients come to each hospital.")
        for site in deployment.sites:
            change = changes.get(site.site_id) if is_last else None
            if change is not None:
                deployment.say(f"  {site.organisation}: {change.words}.")
            made += _one_month(deployment, site.site_id, study, month, change)
    withheld = tuple(
        WithheldReport(site_id, **report)
        for site_id, report in made
        if report["outcome"].startswith(_WITHHELD)
    )
    for report in withheld:
        deployment.say(f"{report.site}: {report.kind} of {report.period}: {report.outcome}.")
    expected = len(made) - len(withheld)
    with console.status("The relay carries the sealed reports to the board."):
        deployment.wait_for(
            lambda: sum(chain["sequence"] for chain in board.status()["chains"]) >= expected,
            seconds=_REPORTS_WAIT_S,
            what="the arrival of every report",
            every_s=2.0,
        )
    page = deployment.folder / "board.html"
    board.run("report", str(page))
    signals = board.run_json("signals", study)
    return MonitoringResult(
        status=board.status(),
        signals=signals,
        page=page,
        months=tuple(f"{month:%Y-%m}" for month in months),
        planted={site_id: change.words for site_id, change in changes.items()},
        withheld=withheld,
    )


def _wait_for_model(deployment: Deployment, site_id: str, study: str) -> None:
    deployment.wait_for(
        lambda: deployment.site_json(site_id, "monitor", "status", study)["model_version"],
        seconds=_REPORTS_WAIT_S,
        what=f"the promoted model at {site_id}",
    )


def _one_month(
    deployment: Deployment, site_id: str, study: str, month: datetime.date, change: Change | None
) -> list[tuple[str, dict[str, str]]]:
    path = deployment.folder / "data" / f"{site_id}.csv"
    add_month(path, month, patients=_PATIENTS, seed=_SEED, change=change)
    return _report(deployment, site_id, study, f"{month:%Y-%m}", "--late")


def _report(
    deployment: Deployment, site_id: str, study: str, period: str, *words: str
) -> list[tuple[str, dict[str, str]]]:
    """Make a period's reports; return the site with what became of each."""
    made = deployment.site_json(site_id, "monitor", "report", study, "--period", period, *words)[
        "reports"
    ]
    return [(site_id, report) for report in made]


def monitoring_record(result: MonitoringResult) -> dict[str, Any]:
    """Return the result as a record for `--json`."""
    return {
        "months": list(result.months),
        "planted": result.planted,
        "withheld": [asdict(report) for report in result.withheld],
        "signals": result.signals,
        "status": result.status,
        "page": str(result.page),
    }


def print_monitoring(result: MonitoringResult, console: Console) -> None:
    """Print what the board sees, and where its page is."""
    table = Table("hospital", "state", "what the board is told after " + result.months[-1])
    for site in result.signals:
        words = [item["words"] for item in site["findings"] if item["is_certain"]]
        table.add_row(
            escape(site["site"] or "all together"),
            site["state"],
            escape("\n".join(words) or "nothing that calls for anybody"),
        )
    console.print(table)
    console.print(f"The monitor board's page: {result.page}", markup=False)
