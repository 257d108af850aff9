"""Run one study, round by round, over a `SiteChannel`; resume from the last complete round."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from common.clock import Clock
from common.crypto.keys import OpeningKey, SigningKey
from common.errors import CohortiumError, RoundFailed, UpdateRefused
from common.ids import Digest, RequestId, SiteId, parse_digest
from common.privacy.calibration import PlannedMechanisms, plan_mechanisms
from common.privacy.mechanism import MechanismRecord
from common.protocol.arrays import decode_parameters, encode_parameters, parameters_digest
from common.protocol.codec import encode_request
from common.protocol.counts import count_question_digest
from common.protocol.envelope import seal_envelope
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    RefusedTask,
    TaskKind,
    TaskRequest,
)
from common.protocol.round_states import StudyState
from common.study.columns import parameter_shapes
from common.study.scaling import MOMENTS, model_shapes, moment_shapes, split_model
from server.aggregation import WeightedMean
from server.books import Books
from server.registry.first_model import first_model
from server.round_book import Outcome
from server.scaling_estimate import estimate_scaling
from server.selection_rounds import SelectionRounds, cells_asked
from server.server_optimizer import ServerOptimizer
from server.site_channel import Arrived, Missing, SiteChannel
from server.site_directory import Site
from server.site_memories import site_memories
from server.study_register import Study
from server.update_checks import Expectation, SiteMemory, check_release, open_reply

ATTEMPTS_PER_ROUND_MAX: Final = 3
_REPLY_GRACE_S: Final = 3600

logger = logging.getLogger("cohortium.coordinator")


@dataclass(frozen=True)
class CoordinatorKeys:
    """The coordinator's two private keys."""

    signing: SigningKey
    opening: OpeningKey


@dataclass(frozen=True)
class _Position:
    """Where a study stands between two rounds."""

    next_round: int
    parameters: bytes
    optimizer: ServerOptimizer


class Coordinator:
    """One study's rounds.

    Args:
        study: as registered; running.
        books: where rounds, answers and models are recorded.
        keys: sign and open.
        channel: carries envelopes.
        clock: for times in envelopes and records.
        should_stop: asked before each round and while waiting; true ends the run cleanly.
    """

    def __init__(
        self,
        study: Study,
        *,
        books: Books,
        keys: CoordinatorKeys,
        channel: SiteChannel,
        clock: Clock,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._study = study
        self._books = books
        self._keys = keys
        self._channel = channel
        self._clock = clock
        self._should_stop = should_stop
        self._shapes = model_shapes(study.plan)
        self._planned: PlannedMechanisms = plan_mechanisms(study.plan)

    def run(self) -> None:
        """Run all rounds that are left and the final evaluation, and set the study's state."""
        plan, study_id = self._study.plan, self._study.study_id
        if plan.selection is not None:
            SelectionRounds(
                self._study,
                self._books,
                ask=self._count,
                should_stop=self._should_stop,
            ).run()
            return
        position = self._position()
        while position.next_round <= plan.training.rounds:
            if self._should_stop():
                return
            following = self._next_round(position)
            if following is None:
                return
            position = following
        if self._should_stop():
            return
        self._final_evaluation(position)
        if not self._should_stop():
            self._books.register.change_state(study_id, StudyState.FINISHED)

    def _position(self) -> _Position:
        last = self._books.rounds.last_complete(self._study.study_id)
        training = self._study.plan.training
        optimizer = partial(
            ServerOptimizer, training.strategy, average_decay=training.model_average_decay
        )
        if last is None:
            parameters = first_model(
                self._study.plan, registry=self._books.registry, rounds=self._books.rounds
            )
            self._books.rounds.store_parameters(parameters)
            return _Position(1 if self._planned.scaling is None else 0, parameters, optimizer())
        parameters = self._books.rounds.read_parameters(parse_digest(last.new_version))
        state = self._books.rounds.read_optimizer_state(parse_digest(last.optimizer_state))
        if 1 <= last.round_number <= self._study.plan.training.rounds:
            # A crash may have come between the checkpoint and its registration.
            self._books.registry.register(self._study, last.round_number)
        # The final evaluation is stored as round `rounds + 1` and changes no model.
        return _Position(last.round_number + 1, parameters, optimizer(state=state))

    def _next_round(self, position: _Position) -> _Position | None:
        """Run one round with retries; return the next position, or None when the study stops."""
        number = position.next_round
        is_scaling = number == 0
        # Before there is a scaling there is no model to send.
        content = b"" if is_scaling else position.parameters
        mean = self._with_quorum(number, TaskKind.SCALE if is_scaling else TaskKind.TRAIN, content)
        if mean is None:
            return None
        return (self._complete_scaling if is_scaling else self._complete)(position, mean)

    def _count(self, number: int, question: bytes) -> bool:
        return self._with_quorum(number, TaskKind.COUNT, question) is not None

    def _with_quorum(self, number: int, kind: TaskKind, content: bytes) -> WeightedMean | None:
        """Ask until the quorum answers; return what came, or None when the study stops."""
        study_id = self._study.study_id
        for attempt in range(1, ATTEMPTS_PER_ROUND_MAX + 1):
            mean = self._ask_round(number, kind, content)
            if self._should_stop():
                return None
            quorum = self._study.plan.training.quorum
            if mean.count >= quorum:
                return mean
            reason = f"{mean.count} of {quorum} sites needed answered (attempt {attempt})"
            self._books.rounds.fail_round(study_id, number, reason=reason)
            logger.info("round %d failed: %s", number, reason)
        self._books.register.change_state(
            study_id, StudyState.FAILED, reason=f"round {number}: {reason}"
        )
        raise RoundFailed(
            f"round {number} of {study_id} did not reach its quorum",
            expected=f"{quorum} accepted updates",
            arrived=reason,
            todo="look at the reasons in `cohortium-coordinator status`, then `resume`",
        )

    def _complete(self, position: _Position, mean: WeightedMean) -> _Position:
        number = position.next_round
        before = decode_parameters(
            position.parameters, expected=self._shapes, bytes_max=len(position.parameters)
        )
        trained, scaling = split_model(before)
        stepped = position.optimizer.step(trained, mean.mean())
        if number == self._study.plan.training.rounds:
            stepped = position.optimizer.last(stepped)
        after = encode_parameters(stepped | ({} if scaling is None else scaling.arrays()))
        self._books.rounds.complete_round(
            self._study.study_id,
            number,
            parameters=after,
            optimizer_state=position.optimizer.state_bytes(),
        )
        self._books.registry.register(self._study, number)
        logger.info("round %d complete: %d updates", number, mean.count)
        return _Position(number + 1, after, position.optimizer)

    def _complete_scaling(self, position: _Position, mean: WeightedMean) -> _Position:
        """Make the first model whole with the scaling that follows from all sites' sums."""
        plan, scaling = self._study.plan, self._planned.scaling
        estimated = estimate_scaling(
            mean.mean()[MOMENTS] * mean.count,
            plan,
            noise_multiplier=0.0 if scaling is None else scaling.noise_multiplier,
            sites=mean.count,
        )
        start = decode_parameters(
            position.parameters,
            expected=parameter_shapes(plan),
            bytes_max=len(position.parameters),
        )
        after = encode_parameters(start | estimated.arrays())
        self._books.rounds.complete_round(
            self._study.study_id,
            0,
            parameters=after,
            optimizer_state=position.optimizer.state_bytes(),
        )
        logger.info("numeric features scaled from %d sites' sums", mean.count)
        return _Position(1, after, position.optimizer)

    def _final_evaluation(self, position: _Position) -> None:
        study_id = self._study.study_id
        number = self._study.plan.training.rounds + 1
        if position.next_round > number:
            # A crash may have come between the evaluation and the lineage that names it.
            self._books.registry.refresh_lineage(self._study)
            return
        self._ask_round(number, TaskKind.EVALUATE, position.parameters)
        if self._should_stop():
            return
        # A site that misses the evaluation loses nothing: the model is complete without it.
        self._books.rounds.complete_round(
            study_id,
            number,
            parameters=position.parameters,
            optimizer_state=position.optimizer.state_bytes(),
        )
        self._books.registry.refresh_lineage(self._study)

    def _ask_round(self, number: int, kind: TaskKind, content: bytes) -> WeightedMean:
        study_id, is_count = self._study.study_id, kind is TaskKind.COUNT
        base_version = count_question_digest(content) if is_count else parameters_digest(content)
        self._books.rounds.open_round(study_id, number, base_version)
        logger.info("round %d opened", number)
        expectation = self._expectation(number, kind, base_version)
        if is_count:
            cells = cells_asked(self._study.plan, content)
            expectation = replace(expectation, shapes={}, cells=cells)
        sites = {site.site_id: site for site in self._books.sites.active_sites()}
        request_ids = {site_id: RequestId(secrets.token_hex(16)) for site_id in sites}
        task = TaskRequest(
            plan_digest=self._study.plan_digest,
            round_number=number,
            kind=kind,
            evaluate=expectation.is_evaluated,
            base_version=base_version,
            parameters=content,
        )
        issued_at_s = self._clock.now_s()
        requests = {
            site_id: partial(self._seal, task, site, request_ids[site_id], issued_at_s)
            for site_id, site in sites.items()
        }
        mean = WeightedMean(expectation.shapes)
        outstanding = {request_id: site_id for site_id, request_id in request_ids.items()}
        memories = site_memories(self._books.rounds, self._study.study_id, sites)
        deadline_s = float(self._study.plan.training.round_deadline_s)
        for event in self._channel.ask(requests, deadline_s=deadline_s):
            if isinstance(event, Missing):
                self._refused(number, event.site_id, Outcome.MISSING, event.reason)
                continue
            self._take(
                event,
                sites[event.site_id],
                expectation=expectation,
                outstanding=outstanding,
                memory=memories[event.site_id],
                mean=mean,
            )
        return mean

    def _take(
        self,
        event: Arrived,
        site: Site,
        *,
        expectation: Expectation,
        outstanding: dict[RequestId, SiteId],
        memory: SiteMemory,
        mean: WeightedMean,
    ) -> None:
        number = expectation.round_number
        try:
            reply = open_reply(
                event.envelope,
                site=self._books.sites.find(site.site_id),
                opening_key=self._keys.opening,
                outstanding=outstanding,
                expectation=expectation,
                now_s=self._clock.now_s(),
            )
            # What is answered is no longer outstanding, however often the answer is delivered.
            for request_id in [key for key, asked in outstanding.items() if asked == site.site_id]:
                del outstanding[request_id]
            if isinstance(reply, RefusedTask):
                self._refused(number, site.site_id, Outcome.REFUSED_BY_SITE, reply.number)
                return
            update = check_release(reply, expectation=expectation, memory=memory)
        except UpdateRefused as error:
            self._refused(number, site.site_id, Outcome.REFUSED_BY_COORDINATOR, error.number)
            return
        if expectation.kind in (TaskKind.TRAIN, TaskKind.COUNT):
            mean.add(update, weight=float(reply.declared_cohort_size))
        if expectation.kind is TaskKind.SCALE:
            mean.add(update, weight=1.0)
        self._books.rounds.record_accepted(self._study.study_id, site.site_id, reply)
        logger.info("round %d: %s accepted", number, site.site_id)

    def _refused(self, number: int, site_id: SiteId, outcome: Outcome, reason: str) -> None:
        self._books.rounds.record_refusal(self._study.study_id, number, site_id, outcome, reason)
        logger.info("round %d: %s %s (%s)", number, site_id, outcome.value, reason)

    def _seal(
        self, task: TaskRequest, site: Site, request_id: RequestId, issued_at_s: int
    ) -> bytes:
        deadline_s = self._study.plan.training.round_deadline_s
        header = EnvelopeHeader(
            direction=Direction.REQUEST,
            study_id=self._study.study_id,
            site_id=site.site_id,
            round_number=task.round_number,
            request_id=request_id,
            issued_at_s=issued_at_s,
            expires_at_s=issued_at_s + min(deadline_s + _REPLY_GRACE_S, 7 * 24 * 3600),
            sender_fingerprint=self._keys.signing.fingerprint,
            recipient_fingerprint=site.sealing_key.fingerprint,
        )
        return seal_envelope(
            header,
            encode_request(task),
            signing_key=self._keys.signing,
            recipient=site.sealing_key,
        )

    def _expectation(self, number: int, kind: TaskKind, base_version: Digest) -> Expectation:
        plan = self._study.plan
        is_evaluated = number in self._planned.evaluation_rounds
        mechanisms: list[MechanismRecord] = []
        if kind is TaskKind.COUNT and self._planned.selection is not None:
            mechanisms.append(self._planned.selection.of_round(number))
        if kind is TaskKind.TRAIN:
            mechanisms.append(self._planned.train_per_round)
        if kind is TaskKind.SCALE and self._planned.scaling is not None:
            mechanisms.append(self._planned.scaling)
        if is_evaluated:
            mechanisms.append(self._planned.evaluation_of(number))
        return Expectation(
            study_id=self._study.study_id,
            plan_digest=self._study.plan_digest,
            round_number=number,
            kind=kind,
            is_evaluated=is_evaluated,
            base_version=base_version,
            shapes=moment_shapes(plan) if kind is TaskKind.SCALE else parameter_shapes(plan),
            update_norm_max=plan.training.update_norm_max,
            mechanisms=tuple(mechanisms),
            score_bins=plan.evaluation.score_bins,
        )


def describe_failure(error: CohortiumError) -> str:
    """Return one line about why a run ended, without text from another party."""
    return f"{type(error).__name__} {error.number}".strip()
