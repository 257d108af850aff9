"""What a plan's own federated path reaches, with privacy and without, beside alone and pooled.

    python -m benchmarks.utility stroke-hospitals [--seeds 5] [--json FILE]

Federated means: the real coordinator and the real code of every site, patient-level DP-SGD at the
site, sealed envelopes, ledgers; only Flower is not there (`simulations.federation`). Epsilon "inf"
is the same path without noise, which only a simulation can do. Alone and pooled are scikit-learn's
logistic regression without privacy on the same patients, features and splits.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.utility.heart import heart_questions
from benchmarks.utility.questions import Question
from benchmarks.utility.run import (
    Outcome,
    alone,
    alone_tuned,
    data_folder,
    pooled,
    run_comparator,
    run_federated,
)
from benchmarks.utility.stroke import stroke_questions

NAMES = (
    "heart",
    "heart-flamby",
    "stroke-countries",
    "stroke-hospitals",
    "stroke-hospitals-own-split",
)
_SEEDS = {"heart": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("question", choices=NAMES)
    parser.add_argument("--seeds", type=int, default=0, help="5, and 10 for heart, when not given")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = data_folder()
    of_data = heart_questions if arguments.question.startswith("heart") else stroke_questions
    question = next(item for item in of_data(folder) if item.name == arguments.question)
    seeds = range(1, (arguments.seeds or _SEEDS.get(question.name, 5)) + 1)
    print(f"{question.title}\n{question.protocol}\n")
    began = time.monotonic()
    outcomes: list[Outcome] = []
    for name, way in (
        ("alone, C = 1", alone),
        ("alone, C by cross-validation", alone_tuned),
        ("pooled, no privacy", pooled),
    ):
        outcomes.append(run_comparator(question, name, way, seeds))
        print_outcome(outcomes[-1])
    for epsilon in question.choices:
        outcomes.append(run_federated(question, epsilon, seeds))
        print_outcome(outcomes[-1])
    print_sites(outcomes)
    print(f"\n{len(seeds)} seeds, {time.monotonic() - began:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(as_record(question, outcomes), indent=1) + "\n")


def print_outcome(outcome: Outcome) -> None:
    """Print one line: mean, SD over seeds, target and what the ledgers state."""
    target = "" if outcome.target is None else f"  target {outcome.target:.3f}"
    spent = "" if outcome.epsilon_spent is None else f"  spent {outcome.epsilon_spent:.4f}"
    print(
        f"{outcome.way:32} {outcome.mean:.4f}  SD {outcome.spread:.4f}{target}{spent}", flush=True
    )


def print_sites(outcomes: list[Outcome]) -> None:
    """Print one line for each site: its figure in each way, mean over seeds."""
    print("\nsite" + " " * 24 + " ".join(f"{outcome.way[-12:]:>12}" for outcome in outcomes))
    for site_id in sorted({site_id for outcome in outcomes for site_id in outcome.sites}):
        cells = [outcome.sites.get(site_id) for outcome in outcomes]
        texts = ["-" if cell is None else f"{cell:.3f}" for cell in cells]
        print(f"{site_id:28}" + " ".join(f"{text:>12}" for text in texts))


def as_record(question: Question, outcomes: list[Outcome]) -> dict[str, object]:
    """Return everything as JSON values."""
    return {
        "question": question.name,
        "protocol": question.protocol,
        "choices": {f"{key:g}": vars(choice) for key, choice in question.choices.items()},
        "outcomes": [
            {
                "way": outcome.way,
                "mean": outcome.mean,
                "sd_over_seeds": outcome.spread,
                "figures": outcome.figures,
                "target": outcome.target,
                "epsilon_spent_max": outcome.epsilon_spent,
                "sites": outcome.sites,
            }
            for outcome in outcomes
        ],
    }


if __name__ == "__main__":
    main()
