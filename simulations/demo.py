"""`cohortium-sim demo`: four hospitals train one model on this machine, with all the real parts.

Real processes, real TLS, real node authentication, real privacy ledgers: everything that a
consortium runs, on loopback, set up by the commands that people type.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from common.errors import ConfigError, ServiceError
from common.study.plan_file import read_plan
from simulations.demo_monitoring import MonitoringResult, print_monitoring, run_monitoring
from simulations.deployment import DemoSite, Deployment
from simulations.heart_sites import heart_sites, uci_folder

MARK: Final = ".cohortium-demo"
START_WAIT_S: Final = 90.0
STUDY_WAIT_S: Final = 900.0


@dataclass(frozen=True)
class DemoResult:
    """What the demo left behind.

    Args:
        report: the study's report, as `status --json` gives it.
        version: digest of the last model version.
        card: folder of the model card.
        seconds: from launch to the end of the study.
        monitoring: of the months after training; None for a plan without `[monitoring]`.
    """

    report: dict[str, Any]
    version: str
    card: Path
    seconds: float
    monitoring: MonitoringResult | None = None


def run_demo(folder: Path, *, plan: Path | None, console: Console) -> DemoResult:
    """Run the demo in `folder` and print its result; every process is gone when it returns."""
    with only_demo(folder):
        return _run(folder, plan, console)


def _run(folder: Path, plan: Path | None, console: Console) -> DemoResult:
    chosen = plan or example_plan(folder)
    uci = uci_folder()
    sites = heart_sites(folder / "data", uci=uci)
    console.print(
        "Patients: UCI heart disease, four hospitals (CC BY 4.0)."
        if uci
        else "Patients: generated, four hospitals that differ; no real patient is in them."
    )
    deployment = Deployment(
        folder, sites, say=lambda line: console.print(f"  {line}", markup=False)
    )
    with deployment.processes:
        set_up(deployment, chosen, sites)
        start(deployment, sites)
        result = run_study(deployment, chosen, console=console)
        if read_plan(chosen).monitoring is not None and plan is None:
            after = run_monitoring(deployment, chosen, version=result.version, console=console)
            result = replace(result, monitoring=after)
    print_result(result, deployment, console)
    if result.monitoring is not None:
        print_monitoring(result.monitoring, console)
    return result


@contextmanager
def only_demo(folder: Path) -> Iterator[None]:
    """Empty an earlier demo's folder and hold it for this one.

    Raises:
        ConfigError: for a folder that is not a demo's, or whose demo still runs.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise ConfigError(
            "the demo never deletes a folder that is not its own",
            expected=f"no folder {folder}, an empty one, or an earlier demo's",
            arrived="a folder with other files",
            todo="choose another folder with --folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / MARK).open("a") as mark:
        try:
            fcntl.flock(mark.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "another demo runs in this folder",
                expected=f"a folder {folder} that no running demo uses",
                arrived="a running one",
                todo="wait for it, stop it, or choose another folder with --folder",
            ) from None
        for item in folder.iterdir():
            if item.name == MARK:
                continue
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            else:
                item.unlink()
        yield


def example_plan(folder: Path) -> Path:
    """Return the heart disease plan that ships with the software, copied into `folder`."""
    content = (resources.files("simulations") / "plans" / "heart-disease.toml").read_bytes()
    path = folder / "heart-disease.toml"
    path.write_bytes(content)
    return path


def set_up(deployment: Deployment, plan: Path, sites: tuple[DemoSite, ...]) -> None:
    """Found the consortium, enrol every site and let every steward approve the plan."""
    deployment.found("Demo consortium")

    def join(site: DemoSite) -> str:
        deployment.enrol(site)
        deployment.approve(site.site_id, plan)
        return site.organisation

    # Sites enrol independently of each other; two at a time keep two cores busy.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for organisation in pool.map(join, sites):
            deployment.say(f"{organisation} has enrolled and approved the plan.")


def start(deployment: Deployment, sites: tuple[DemoSite, ...]) -> None:
    """Start the coordinator and every site and wait until all couriers have logged in."""
    deployment.start_coordinator()
    for site in sites:
        deployment.start_site(site.site_id)
    deployment.say("The SuperLink and the sites' agents and couriers are starting.")
    for site in sites:
        node_id = deployment.site_home(site.site_id) / "courier" / "node-id"
        deployment.wait_for(
            node_id.exists, seconds=START_WAIT_S, what=f"the login of {site.site_id}"
        )
        deployment.wait_for(
            (deployment.site_home(site.site_id) / "run" / "agent.sock").exists,
            seconds=START_WAIT_S,
            what=f"the agent of {site.site_id}",
        )


def run_study(deployment: Deployment, plan: Path, *, console: Console) -> DemoResult:
    """Launch the study, show its rounds until it has ended, and write its model card."""
    study_id = read_plan(plan).study.id
    deployment.coordinator("launch", str(plan))
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=console,
    )
    task = progress.add_task("rounds", total=read_plan(plan).training.rounds)
    report: dict[str, Any] = {}

    def is_over() -> bool:
        report.update(deployment.coordinator_json("status", study_id))
        progress.update(task, completed=report["rounds_complete"])
        return report["state"] not in ("running", "registered")

    with Live(progress, console=console, refresh_per_second=4):
        deployment.wait_for(is_over, seconds=STUDY_WAIT_S, what="the end of the study")
    if report["state"] != "finished":
        raise ServiceError(
            "the study did not finish",
            expected="state finished",
            arrived=f"state {report['state']} {report['reason']}",
            todo=f"read the logs in {deployment.processes.log_folder}",
        )
    version = deployment.coordinator_json("models", "list")[-1]["version"]
    card = deployment.folder / "model-card"
    deployment.coordinator("models", "card", version, "--out", str(card))
    return DemoResult(report, version, card, progress.tasks[0].elapsed or 0.0)


def print_result(result: DemoResult, deployment: Deployment, console: Console) -> None:
    """Print the table of sites and where to look."""
    table = Table("hospital", "patients", "AUROC (95 %)", "ε spent", "ε left", "rounds")
    for site in result.report["sites"]:
        table.add_row(
            escape(site["site_id"]),
            escape(site["patients"]),
            _auroc(site, ""),
            f"{site['epsilon_spent']:.3f}",
            f"{site['epsilon_remaining']:.3f}",
            str(site["rounds"]),
        )
    console.print(table)
    console.print(f"All hospitals together: AUROC {_auroc(result.report, 'pooled_')}")
    console.print(
        "AUROC is of held-out patients; its interval includes the noise added for privacy. "
        "ε is for each patient, at the plan's δ (add or remove one patient)."
    )
    site = deployment.sites[0].site_id
    console.print(
        f"\nModel card:      {result.card / 'card.html'}\n"
        f"Logs:            {deployment.processes.log_folder} and "
        f"{deployment.coordinator_home / 'logs'}\n"
        f"A site's ledger: {Path(sys.executable).with_name('cohortium-site')} "
        f"--home {deployment.site_home(site)} ledger show",
        markup=False,
    )


def _auroc(record: dict[str, Any], prefix: str) -> str:
    value = record[f"{prefix}auroc"]
    if value is None:
        return "insufficient data"
    low, high = record[f"{prefix}auroc_low"], record[f"{prefix}auroc_high"]
    return f"{value:.3f} ({low:.2f}–{high:.2f})"
