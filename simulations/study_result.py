"""What a simulated study gave, with what only a simulation may look at: its patients' outcomes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import RoundFailed
from common.ids import Digest, SiteId, parse_digest
from common.limits import PARAMETERS_BYTES_MAX
from common.protocol.arrays import Parameters, decode_parameters
from common.protocol.messages import LedgerStatement
from common.study.plan import StudyPlan
from common.study.scaling import model_shapes, split_model
from server.books import Books
from server.round_book import Answer, Outcome, Round
from simulations.auroc import auroc
from simulations.site_turn import SitesInFolder
from site_client.features.matrix import FeatureMatrix, split
from site_client.features.scaled import scale
from site_client.training.evaluation import score


@dataclass(frozen=True)
class SiteOutcome:
    """What one site got and gave.

    Args:
        patients_trained, patients_held_out: exact numbers, which a real site would not tell.
        auroc: of the final model on the held-out patients; None when they have one outcome only.
        accuracy: of the same, at a probability of one half; None without held-out patients.
        statement: the site's last ledger statement; None when no release was accepted.
        refusals: round, and number or reason, of each answer that was not accepted.
    """

    site_id: SiteId
    patients_trained: int
    patients_held_out: int
    auroc: float | None
    accuracy: float | None
    statement: LedgerStatement | None
    refusals: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class FederationResult:
    """A finished simulated study.

    Args:
        parameters: of the final model, with its scaling if it has one.
        version: its digest.
        rounds: as the coordinator recorded them, the final evaluation last.
        sites: by id.
        answers: of every site in every round, as the coordinator recorded them, oldest first; a
            round that was asked again has those of each time.
    """

    parameters: Parameters
    version: Digest
    rounds: tuple[Round, ...]
    sites: tuple[SiteOutcome, ...]
    answers: tuple[Answer, ...] = ()

    @property
    def auroc_mean(self) -> float:
        """Mean of the sites' AUROCs, of those that have one."""
        return float(np.mean([item.auroc for item in self.sites if item.auroc is not None]))

    @property
    def accuracy_mean(self) -> float:
        """Mean of the sites' accuracies, of those that have one."""
        return float(np.mean([item.accuracy for item in self.sites if item.accuracy is not None]))


def read_result(plan: StudyPlan, books: Books, sites: SitesInFolder) -> FederationResult:
    """Return what a study has given so far, its newest model scored at each site.

    Args:
        plan: of the study.
        books: of its coordinator.
        sites: of its run.

    Raises:
        RoundFailed: when no round is complete.
    """
    study_id = books.register.all_studies()[0].study_id
    last = books.rounds.last_complete(study_id)
    if last is None:
        raise RoundFailed(
            "the study has no model yet",
            expected="one complete round or more",
            arrived="none",
            todo="let the run go on",
        )
    version = parse_digest(last.new_version)
    parameters = decode_parameters(
        books.rounds.read_parameters(version),
        expected=model_shapes(plan),
        bytes_max=PARAMETERS_BYTES_MAX,
    )
    answers = books.rounds.answers(study_id)
    by_site: defaultdict[SiteId, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_site[answer.site_id].append(answer)
    return FederationResult(
        parameters=parameters,
        version=version,
        rounds=books.rounds.rounds(study_id),
        sites=tuple(
            _site_outcome(plan, parameters, site_id, sites.features(site_id), by_site[site_id])
            for site_id in sorted(sites.sites)
        ),
        answers=answers,
    )


def _site_outcome(
    plan: StudyPlan,
    parameters: Parameters,
    site_id: SiteId,
    patients: FeatureMatrix,
    answers: Sequence[Answer],
) -> SiteOutcome:
    trained, held_out = split(patients, plan)
    auroc, accuracy = score_exactly(plan, parameters, held_out)
    statements = [a.detail["statement"] for a in answers if a.outcome is Outcome.ACCEPTED]
    return SiteOutcome(
        site_id=site_id,
        patients_trained=len(trained.y),
        patients_held_out=len(held_out.y),
        auroc=auroc,
        accuracy=accuracy,
        statement=_statement(statements[-1]) if statements else None,
        refusals=tuple(
            (a.round_number, a.number) for a in answers if a.outcome is not Outcome.ACCEPTED
        ),
    )


def score_exactly(
    plan: StudyPlan, parameters: Parameters, patients: FeatureMatrix
) -> tuple[float | None, float | None]:
    """Return AUROC and accuracy without noise, each None where these patients cannot tell it.

    Args:
        plan: of the study.
        parameters: of the model, with its scaling if it has one.
        patients: held out, of whom the first sample is scored, as in an evaluation.
    """
    if len(patients.y) == 0:
        return None, None
    trained, scaling = split_model(parameters)
    patients = scale(patients, plan, scaling).first_samples()
    probabilities = score(plan, trained, patients.x)
    accuracy = float(np.mean((probabilities >= 0.5) == (patients.y == 1)))
    if patients.y.min() == patients.y.max():
        return None, accuracy
    return auroc(patients.y, probabilities), accuracy


def _statement(record: Mapping[str, str]) -> LedgerStatement:
    return LedgerStatement(
        epsilon_spent=float(record["epsilon_spent"]),
        epsilon_remaining=float(record["epsilon_remaining"]),
        delta=float(record["delta"]),
        ledger_head=parse_digest(record["ledger_head"]),
    )
