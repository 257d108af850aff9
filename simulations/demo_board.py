"""The demo's monitor board: set up by the commands that people type, beside the deployment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from simulations.deployment import Deployment, script_path

BOARD_ID: Final = "demo-board"
DECIDERS: Final = ("first-decider", "second-decider")
_POLL_S: Final = 1


@dataclass(frozen=True)
class DemoBoard:
    """One board with its roster authority and two deciders, each with a folder of its own.

    Args:
        deployment: whose sites report; its coordinator must have a relay.
    """

    deployment: Deployment

    @property
    def home(self) -> Path:
        """The board's folder."""
        return self.deployment.folder / "board"

    @property
    def roster(self) -> Path:
        """The signed roster."""
        return self.deployment.folder / "exchange" / "roster.json"

    def run(self, *words: str) -> str:
        """Run `cohortium-board` with these words and return what it printed."""
        return self.deployment.command("cohortium-board", "--home", str(self.home), *words)

    def run_json(self, *words: str) -> Any:
        """Run `cohortium-board … --json` and return the parsed answer."""
        return json.loads(self.run(*words, "--json"))

    def found(self, consortium: str) -> None:
        """Make board, authority and deciders; sign the roster; let everybody pin it."""
        deployment, exchange = self.deployment, self.deployment.folder / "exchange"
        self.run("init", "--consortium", consortium, "--id", BOARD_ID)
        people = deployment.folder / "people"
        people.mkdir(mode=0o700)
        authority = people / "authority.key"
        fingerprint = str(self.run_json("authority", str(authority))["fingerprint"])
        for name in DECIDERS:
            card = str(exchange / f"{name}.card.json")
            self.run("decide", "key", name, "--out", str(people / f"{name}.key"), "--card", card)
        draft = str(exchange / "roster.draft.json")
        self.run(
            "roster", "new", draft, "--consortium", consortium, "--authority", str(authority)
        )  # fmt: skip
        for site in deployment.sites:
            self.run("roster", "add-site", draft, str(deployment.request_of(site.site_id)))
        self.run("roster", "add-board", draft, str(self.home / "board-card.json"))
        for name in DECIDERS:
            self.run("roster", "add-decider", draft, str(exchange / f"{name}.card.json"))
        self.run("roster", "sign", draft, "--authority", str(authority), "--out", str(self.roster))
        self._connect()
        self.run("trust", str(self.roster), "--fingerprint", fingerprint)
        deployment.coordinator("relay", "roster", str(self.roster), "--fingerprint", fingerprint)
        for site in deployment.sites:
            deployment.site(
                site.site_id, "monitor", "trust", str(self.roster), "--fingerprint", fingerprint
            )

    def _connect(self) -> None:
        exchange = self.deployment.folder / "exchange"
        request, answer = exchange / "board.csr.pem", exchange / "board.certificate.json"
        shown = self.run_json("certificate", "request", str(request))
        self.deployment.coordinator(
            "board-certificate",
            str(request),
            "--id",
            BOARD_ID,
            "--fingerprint",
            str(shown["fingerprint"]),
            "--out",
            str(answer),
        )
        self.run("certificate", "take", str(answer), "--fingerprint", self.deployment.fingerprint)
        config = self.home / "board.toml"
        lines = config.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if "poll_s" not in line]
        config.write_text("\n".join([*kept, f"poll_s = {_POLL_S}", ""]), encoding="utf-8")

    def watch(self, plan: Path) -> None:
        """Give the board the plan, and let it collect until the demo ends."""
        words = [
            f"--cohort={site.site_id}={site.declared_cohort_size}" for site in self.deployment.sites
        ]
        self.run("plan", "add", str(plan), *words)
        self.deployment.processes.start(
            "board",
            [
                script_path("cohortium-board"),
                "--home",
                str(self.home),
                "collect",
                "--watch",
            ],
            environment=self.deployment.environment,
        )

    def status(self) -> dict[str, Any]:
        """Return what the board holds."""
        found: dict[str, Any] = self.run_json("status")
        return found
