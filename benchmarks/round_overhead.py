"""What a deployed round costs beside training: the demo's federation, measured from its own logs.

    python benchmarks/round_overhead.py [--rounds 20]

Overhead of a round = from its opening to the next one's, minus the longest site's time in the agent
(checks, training, gate). Four sites, one coordinator, TLS, on this machine; then stock Flower.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from simulations.demo import start
from simulations.deployment import Deployment
from simulations.heart_sites import heart_sites

sys.path.insert(0, str(Path(__file__).parent))
from stock_flower import round_seconds

PLAN = Path(__file__).parents[1] / "docs" / "examples" / "heart-disease.toml"
LINE = re.compile(r"^(\S+ \S+) cohortium\.(\S+) (.*)$")
STAMP = "%Y-%m-%d %H:%M:%S,%f"


def events(path: Path) -> list[tuple[float, str]]:
    found = []
    for line in path.read_text().splitlines():
        match = LINE.match(line)
        if match:
            stamp = datetime.strptime(match[1], STAMP).timestamp()  # noqa: DTZ007 - one clock
            found.append((stamp, match[3]))
    return found


def first(path: Path, pattern: str) -> dict[int, float]:
    """Return round to when a line that matches first came."""
    found: dict[int, float] = {}
    for stamp, text in events(path):
        if match := re.match(pattern, text):
            found.setdefault(int(match[1]), stamp)
    return found


def last(path: Path, pattern: str) -> dict[int, float]:
    """Return round to when a line that matches last came."""
    return {int(m[1]): stamp for stamp, text in events(path) if (m := re.match(pattern, text))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plan = folder / "plan.toml"
        text = PLAN.read_text().replace("rounds = 10", f"rounds = {rounds}")
        # More rounds need more noise in each, and so a wider bound (rule P25).
        plan.write_text(text.replace("update_norm_max = 10.0", "update_norm_max = 20.0"))
        sites = heart_sites(folder / "data", uci=None)
        deployment = Deployment(folder / "f", sites)
        deployment.found("Benchmark")
        for site in sites:
            deployment.enrol(site)
            deployment.approve(site.site_id, plan)
        with deployment.processes:
            start(deployment, sites)
            deployment.coordinator("launch", str(plan))
            deployment.wait_for(
                lambda: (
                    deployment.coordinator_json("status", "heart-disease")["state"] == "finished"
                ),
                seconds=600,
                what="the end of the study",
                every_s=15.0,
            )
        logs = [deployment.site_home(site.site_id) / "logs" / "agent.log" for site in sites]
        asked = [first(path, r"round (\d+) of \S+ asked") for path in logs]
        answered = [first(path, r"round (\d+) of \S+ answered") for path in logs]
        study = deployment.coordinator_home / "logs" / "study-heart-disease.log"
        opened = first(study, r"round (\d+) opened")
        accepted = last(study, r"round (\d+): \S+ accepted")
    parts: dict[str, list[float]] = {}
    for number in range(2, rounds):  # the first round waits for nothing but the start
        work = max(end[number] - begin[number] for begin, end in zip(asked, answered, strict=True))
        whole = opened[number + 1] - opened[number]
        arrived = max(begin[number] for begin in asked)
        done = max(end[number] for end in answered)
        for name, seconds in (
            ("whole round", whole),
            ("longest agent: checks, training, gate, ledger", work),
            ("overhead: whole round without the longest agent", whole - work),
            (
                "- out: opened to the last agent asked (seal, Flower, couriers' polls)",
                arrived - opened[number],
            ),
            (
                "- back: last agent's answer to last acceptance (couriers, Flower, poll, checks)",
                accepted[number] - done,
            ),
            (
                "- close: last acceptance to the next round (mean, checkpoint, registry)",
                opened[number + 1] - accepted[number],
            ),
        ):
            parts.setdefault(name, []).append(seconds)
    with tempfile.TemporaryDirectory() as scratch:
        stock = round_seconds(Path(scratch), rounds=5)
    parts["stock Flower's whole round: FedAvg, four SuperNodes, TLS, no training"] = stock
    print("| part | median s | maximum s |\n|---|---|---|")
    for name, values in parts.items():
        print(f"| {name} | {statistics.median(values):.2f} | {max(values):.2f} |")
    ratio = statistics.median(stock) / statistics.median(parts["whole round"])
    print(f"\nStock Flower's round is {ratio:.1f} times ours.")


if __name__ == "__main__":
    main()
