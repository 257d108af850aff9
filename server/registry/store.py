"""Model versions with their lineage; nothing is overwritten."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update

from common.canonical import Canonical, canonical_bytes, canonical_float
from common.clock import Clock
from common.errors import RegistryError
from common.ids import Digest, StudyId, parse_digest, parse_study_id
from common.protocol.round_states import RoundState
from server.round_book import BriefAnswer, Outcome, RoundBook
from server.storage.database import Database
from server.storage.tables import model_versions
from server.study_register import Study


@dataclass(frozen=True)
class ModelVersion:
    """One registered model.

    Args:
        version: digest of its parameters.
        study_id: the study that made it.
        round_number: after which round.
        plan_digest: of that study's plan.
        lineage: `title`, `rounds` (participants, releases and reasons of each) and `statements`
            (the ledger statement of each site); with scaling, `scaling` (where it clips).
    """

    version: Digest
    study_id: StudyId
    round_number: int
    plan_digest: Digest
    lineage: dict[str, Any]
    created_at_s: int


class ModelRegistry:
    """Register and look up model versions."""

    def __init__(self, database: Database, rounds: RoundBook, clock: Clock) -> None:
        self._database = database
        self._rounds = rounds
        self._clock = clock

    def register(self, study: Study, round_number: int) -> ModelVersion:
        """Register the model that a complete round made; again changes nothing."""
        done = {item.round_number: item for item in self._rounds.rounds(study.study_id)}
        version = parse_digest(done[round_number].new_version)
        lineage = canonical_bytes(self._lineage(study, round_number)).decode()
        with self._database.transaction() as connection:
            known = connection.execute(
                select(model_versions.c.version).where(model_versions.c.version == version)
            ).one_or_none()
            if known is None:
                connection.execute(
                    insert(model_versions).values(
                        version=version,
                        study_id=study.study_id,
                        round_number=round_number,
                        plan_digest=study.plan_digest,
                        lineage=lineage,
                        created_at_s=self._clock.now_s(),
                    )
                )
        return self.find(version)

    def refresh_lineage(self, study: Study) -> None:
        """Add the final evaluation's releases to the last model's lineage."""
        last = study.plan.training.rounds
        lineage = canonical_bytes(self._lineage(study, last + 1)).decode()
        with self._database.transaction() as connection:
            connection.execute(
                update(model_versions)
                .where(model_versions.c.study_id == study.study_id)
                .where(model_versions.c.round_number == last)
                .values(lineage=lineage)
            )

    def all_versions(self, study_id: StudyId | None = None) -> tuple[ModelVersion, ...]:
        """Return versions, oldest first, of one study or of all."""
        query = select(model_versions).order_by(
            model_versions.c.created_at_s, model_versions.c.round_number
        )
        if study_id is not None:
            query = query.where(model_versions.c.study_id == study_id)
        with self._database.transaction() as connection:
            rows = connection.execute(query).all()
        return tuple(
            ModelVersion(
                version=parse_digest(row.version),
                study_id=parse_study_id(row.study_id),
                round_number=row.round_number,
                plan_digest=parse_digest(row.plan_digest),
                lineage=json.loads(row.lineage),
                created_at_s=row.created_at_s,
            )
            for row in rows
        )

    def find(self, name: str) -> ModelVersion:
        """Return the version with this digest, or unique beginning; raises `RegistryError`."""
        found = [item for item in self.all_versions() if item.version.startswith(name)]
        if len(found) != 1 or len(name) < 6:
            raise RegistryError(
                "no single such model version",
                expected="a version's digest, or at least its first 6 characters",
                arrived=f"{name[:64]!r}, which names {len(found)}",
                todo="look at `cohortium-coordinator models list`",
            )
        return found[0]

    def _lineage(self, study: Study, last_round: int) -> dict[str, Canonical]:
        by_round: defaultdict[int, dict[str, BriefAnswer]] = defaultdict(dict)
        # A round asked again has several answers of a site: the last one counts.
        for answer in self._rounds.brief_answers(study.study_id):
            by_round[answer.round_number][answer.site_id] = answer
        rounds: list[Canonical] = []
        newest: dict[str, int] = {}
        for item in self._rounds.rounds(study.study_id):
            if item.round_number > last_round or item.state is not RoundState.COMPLETE:
                continue
            releases: dict[str, Canonical] = {}
            absent: dict[str, Canonical] = {}
            for site_id, answer in sorted(by_round[item.round_number].items()):
                if answer.outcome is Outcome.ACCEPTED:
                    releases[site_id] = answer.release_id
                    newest[site_id] = answer.answer_id
                else:
                    absent[site_id] = f"{answer.outcome.value} {answer.number}".strip()
            rounds.append(
                {
                    "absent": absent,
                    "base_version": item.base_version,
                    "new_version": item.new_version,
                    "releases": releases,
                    "round": item.round_number,
                }
            )
        details = self._rounds.details(tuple(newest.values()))
        lineage: dict[str, Canonical] = {
            "rounds": rounds,
            "statements": {
                site_id: details[answer_id]["statement"] for site_id, answer_id in newest.items()
            },
            "title": study.plan.study.title,
        }
        if study.plan.scaling is not None:
            most = canonical_float(study.plan.scaling.deviations_max)
            lineage["scaling"] = {"deviations_max": most}
        return lineage
