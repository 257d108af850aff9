"""Which features a selection keeps on the stroke trial, with noise and without.

    python -m benchmarks.selection [--seeds 5]

32 countries as sites, the real coordinator and sites. Without noise the same steps are run on exact
counts. What the kept features are worth is the AUROC of one logistic regression without privacy,
trained on the training patients of all sites together and scored on those held out: it measures the
choice and not the training.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from benchmarks.utility.questions import Question, auroc_of_all
from benchmarks.utility.run import data_folder, pooled
from benchmarks.utility.stroke import stroke_questions
from common.study.columns import columns_of_feature, feature_columns
from common.study.contingency import count_tables
from common.study.plan import Selection, StudyPlan
from server.noisy_tables import NoisyTable, split_tables
from server.relevance import Relevance, joint_candidates, rank_candidates
from server.shortened_plan import shorten_plan
from simulations.federation import select_in_memory
from simulations.randomness import reproducible
from simulations.virtual_site import VirtualSite
from site_client.features.matrix import FeatureMatrix, split
from site_client.training.counts import exact_counts

KEEP, JOINT = 10, 10
EPSILONS = (math.inf, 3.0, 1.0, 0.5)


def selecting(question: Question, epsilon: float) -> StudyPlan:
    plan = question.plan(question.choices[1.0], 1.0 if math.isinf(epsilon) else epsilon)
    choice = Selection(keep=KEEP, present_share_min=0.01, joint_candidates=JOINT)
    return plan.model_copy(update={"selection": choice, "monitoring": None})


def rank_exactly(plan: StudyPlan, sites: list[VirtualSite]) -> tuple[Relevance, ...]:
    trained = [split(site.matrix(plan), plan)[0].first_samples() for site in sites]

    def tables(candidates: tuple[int, ...] = ()) -> tuple[NoisyTable, ...]:
        asked = count_tables(plan, candidates)
        counted = [exact_counts(patients, asked, plan=plan) for patients in trained]
        return split_tables(np.sum(counted, axis=0), asked, noise=0.0)

    singles = tables()
    pairs = {
        (item.candidates[0], item.candidates[1]): item
        for item in tables(joint_candidates(plan, singles))
    }
    return rank_candidates(plan, singles, pairs)


def worth(plan: StudyPlan, sites: list[VirtualSite], ranking: tuple[Relevance, ...]) -> float:
    """Return the AUROC of the kept features, held-out patients of all sites together."""
    short = shorten_plan(plan, ranking)
    wanted = {name for feature in short.features for name in columns_of_feature(feature)}
    columns = [place for place, name in enumerate(feature_columns(plan)) if name in wanted]
    fewer = [
        VirtualSite(site.site_id, site.declared_cohort_size, _only(site.matrix(plan), columns))
        for site in sites
    ]
    return auroc_of_all(pooled(short, fewer))


def _only(matrix: FeatureMatrix, columns: list[int]) -> FeatureMatrix:
    names = tuple(matrix.columns[place] for place in columns)
    return FeatureMatrix(names, matrix.x[:, columns], matrix.y, matrix.part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    question = stroke_questions(data_folder())[0]
    print("| ε of the selection | kept as without noise | AUROC of the kept | of all features |")
    print("|---|---|---|---|")
    for epsilon in EPSILONS:
        plan = selecting(question, epsilon)
        same, kept_worth, whole_worth = [], [], []
        for seed in seeds:
            sites = question.sites(plan, seed)
            exact = rank_exactly(plan, sites)
            ranking = exact
            if not math.isinf(epsilon):
                _, ranking = select_in_memory(plan, sites, randomness=reproducible(seed))
            kept = {item.name for item in ranking if item.is_kept}
            same.append(len(kept & {item.name for item in exact if item.is_kept}))
            kept_worth.append(worth(plan, sites, ranking))
            whole_worth.append(auroc_of_all(pooled(plan, sites)))
        shown = "∞" if math.isinf(epsilon) else f"{epsilon:g}"
        print(
            f"| {shown} | {np.mean(same):.1f} of {KEEP} | {np.mean(kept_worth):.3f} | "
            f"{np.mean(whole_worth):.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
