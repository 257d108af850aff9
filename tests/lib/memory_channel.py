"""A consortium in memory: real keys, real envelopes, real store; only Flower is not there."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from common.clock import Clock, FixedClock
from common.crypto.keys import OpeningKey, SealingKey, SigningKey
from common.ids import Digest, ReleaseId, RequestId, SiteId, StudyId, parse_site_id
from common.privacy.calibration import plan_mechanisms
from common.privacy.mechanism import MechanismRecord
from common.protocol.arrays import Parameters, encode_parameters
from common.protocol.codec import decode_request, encode_reply
from common.protocol.envelope import open_envelope, seal_envelope
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    EvaluationCounts,
    LedgerStatement,
    RefusedTask,
    ReleasedTask,
    TaskKind,
    TaskReply,
    TaskRequest,
)
from common.protocol.round_states import StudyState
from common.study.columns import parameter_shapes
from common.study.plan import StudyPlan
from common.study.scaling import MOMENTS, SECOND_MOMENT_OFFSET, moment_shapes
from server.books import Books
from server.config import CoordinatorPaths, ServerConfig
from server.consortium import found_consortium
from server.coordinator import Coordinator, CoordinatorKeys
from server.registry.store import ModelRegistry
from server.round_book import RoundBook
from server.site_channel import Arrived, Missing
from server.site_directory import SiteDirectory
from server.storage.database import Database
from server.study_register import Study, StudyRegister
from tests.lib.enrolment import enrolment_request
from tests.lib.messages import NOW_S, Party
from tests.lib.plans import make_plan
from tests.lib.selecting import honest_count

SITE_IDS = ("east", "north", "south", "west")
CONFIG = ServerConfig(consortium="Heart network", host="127.0.0.1", port=18443, operator_port=18444)

ReplyChange = Callable[[ReleasedTask], TaskReply]
HeaderChange = Callable[[EnvelopeHeader], EnvelopeHeader]


@dataclass
class Lie:
    """What one site does instead of answering honestly.

    Args:
        reply: changes the honest reply before it is sealed.
        header: changes the honest header before it is signed.
        signing: whose key signs, when not the site's own.
        envelope: replaces the whole envelope; None as its result is silence.
    """

    reply: ReplyChange = lambda reply: reply
    header: HeaderChange = lambda header: header
    signing: SigningKey | None = None
    envelope: Callable[[bytes], bytes | None] = lambda envelope: envelope


@dataclass
class MemorySite:
    """One site: answers the same request always in the same way, unless told to lie.

    Args:
        site_id: its id.
        party: its private keys.
        plan: of the study.
        coordinator: checks and seals what goes between the two.
        cohort_size: declared.
        lies: round number to what is done instead; missing rounds are honest.
    """

    site_id: SiteId
    party: Party
    plan: StudyPlan
    coordinator: Party
    cohort_size: int
    lies: dict[int, Lie] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)

    def answer(self, envelope: bytes) -> bytes | None:
        """Return the reply's envelope, or None for silence."""
        header, plaintext = open_envelope(
            envelope,
            verify_key=self.coordinator.signing.verify_key,
            opening_key=self.party.opening,
            direction=Direction.REQUEST,
        )
        request = decode_request(plaintext)
        lie = self.lies.get(request.round_number, Lie())
        signing = lie.signing or self.party.signing
        sealed = seal_envelope(
            lie.header(self._header(header, signing)),
            encode_reply(lie.reply(self.reply(request))),
            signing_key=signing,
            recipient=SealingKey.from_text(self.coordinator.opening.sealing_key.to_text()),
        )
        self.sent.append(sealed)
        return lie.envelope(sealed)

    def reply(self, request: TaskRequest) -> ReleasedTask:
        """Return the honest reply: it depends on nothing but site, round and model."""
        if request.kind is TaskKind.COUNT:
            place = SITE_IDS.index(self.site_id)
            return honest_count(self.plan, request, size=self.cohort_size, place=place)
        planned = plan_mechanisms(self.plan)
        is_training = request.kind is TaskKind.TRAIN
        is_scaling = request.kind is TaskKind.SCALE
        seed = hashlib.sha256(
            f"{self.site_id} {request.round_number} {request.base_version}".encode()
        ).digest()
        rng = np.random.default_rng(int.from_bytes(seed, "big"))
        update: Parameters = {
            name: rng.normal(0, 0.05, shape).astype(np.float32)
            for name, shape in parameter_shapes(self.plan).items()
        }
        bins = self.plan.evaluation.score_bins
        evaluation = EvaluationCounts(
            model_version=request.base_version,
            counts=(tuple(range(40 + bins, 40, -1)), tuple(range(40, 40 + bins))),
            noise_multiplier=planned.evaluation_per_release.noise_multiplier,
        )
        mechanisms: tuple[MechanismRecord, ...] = (planned.train_per_round,) if is_training else ()
        if is_scaling:
            assert planned.scaling is not None
            mechanisms = (planned.scaling,)
            update = {MOMENTS: self.moments()}
        if request.evaluate:
            mechanisms = (*mechanisms, planned.evaluation_per_release)
        return ReleasedTask(
            plan_digest=request.plan_digest,
            round_number=request.round_number,
            kind=request.kind,
            base_version=request.base_version,
            release_id=ReleaseId(seed.hex()),
            declared_cohort_size=self.cohort_size,
            update=encode_parameters(update) if is_training or is_scaling else b"",
            evaluation=evaluation if request.evaluate else None,
            mechanisms=mechanisms,
            statement=LedgerStatement(
                epsilon_spent=0.1 * request.round_number,
                epsilon_remaining=2.0,
                delta=self.plan.privacy.delta,
                ledger_head=Digest(seed.hex()),
            ),
        )

    def moments(self) -> np.ndarray:
        """Return what the site releases for scaling: three quarters of its patients, half at 0.2,
        half at 0.4, and no noise."""
        count = 0.75 * self.cohort_size
        [shape] = moment_shapes(self.plan).values()
        column = np.array([0.3 * count, (0.1 - SECOND_MOMENT_OFFSET) * count, count], np.float32)
        return np.repeat(column[:, None], shape[1], axis=1)

    def _header(self, request: EnvelopeHeader, signing: SigningKey) -> EnvelopeHeader:
        return replace(
            request,
            direction=Direction.REPLY,
            sender_fingerprint=signing.fingerprint,
            recipient_fingerprint=self.coordinator.opening.fingerprint,
        )


class MemoryChannel:
    """Carries envelopes to sites in this process; a silent site is missing at once.

    Args:
        sites: by id.
        is_reversed: whether answers come in the other order.
        copies: how often each answer is delivered.
        before: called with each site just before its answer arrives.
    """

    def __init__(
        self,
        sites: Mapping[SiteId, MemorySite],
        *,
        is_reversed: bool = False,
        copies: int = 1,
        before: Callable[[SiteId], None] = lambda site_id: None,
    ) -> None:
        self._sites = sites
        self._is_reversed = is_reversed
        self._copies = copies
        self._before = before
        self.asked: list[SiteId] = []

    def ask(
        self, requests: Mapping[SiteId, Callable[[], bytes]], *, deadline_s: float
    ) -> Iterator[Arrived | Missing]:
        """Ask each site in turn."""
        assert deadline_s > 0
        for site_id in sorted(requests, reverse=self._is_reversed):
            self.asked.append(site_id)
            envelope = self._sites[site_id].answer(requests[site_id]())
            self._before(site_id)
            if envelope is None:
                yield Missing(site_id, "no answer before the deadline")
                continue
            for _ in range(self._copies):
                yield Arrived(site_id, envelope)


@dataclass
class Consortium:
    """A founded coordinator with enrolled sites and one registered, running study."""

    paths: CoordinatorPaths
    database: Database
    books: Books
    keys: CoordinatorKeys
    study: Study
    sites: dict[SiteId, MemorySite]
    clock: Clock

    @property
    def study_id(self) -> StudyId:
        """The study."""
        return self.study.study_id

    def site(self, name: str) -> MemorySite:
        """Return one site."""
        return self.sites[parse_site_id(name)]

    def run(
        self,
        channel: MemoryChannel | None = None,
        *,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run what is left of the study, as a new process would."""
        if self.books.register.find(self.study_id).state is not StudyState.RUNNING:
            self.books.register.start_run(self.study_id, "1", restarts=0)
        Coordinator(
            self.books.register.find(self.study_id),
            books=self.books,
            keys=self.keys,
            channel=channel or MemoryChannel(self.sites),
            clock=self.clock,
            should_stop=should_stop,
        ).run()

    def outcomes(self, name: str) -> list[tuple[int, str, str]]:
        """Return round, outcome and number of each answer of one site."""
        return [
            (item.round_number, item.outcome.value, item.number)
            for item in self.books.rounds.answers(self.study_id)
            if item.site_id == name
        ]

    @property
    def final_version(self) -> str:
        """The newest model that a complete round made."""
        last = self.books.rounds.last_complete(self.study_id)
        assert last is not None
        return last.new_version


def open_books_at(paths: CoordinatorPaths, clock: Clock) -> tuple[Database, Books]:
    """Return database and books of a coordinator under a clock that tests can fix."""
    database = Database.of(paths, CONFIG)
    rounds = RoundBook(database, paths, clock)
    return database, Books(
        register=StudyRegister(database, clock),
        rounds=rounds,
        sites=SiteDirectory(database, clock),
        registry=ModelRegistry(database, rounds, clock),
    )


def copy_consortium(folder: Path) -> CoordinatorPaths:
    """Return a founded coordinator with four enrolled sites, all its own files."""
    home = folder / "coordinator"
    shutil.copytree(_template()[0], home)
    return CoordinatorPaths(home)


def make_consortium(folder: Path, plan: StudyPlan | None = None) -> Consortium:
    """Return a consortium of four sites with one study, running."""
    plan = plan or make_plan()
    paths = copy_consortium(folder)
    clock = FixedClock(NOW_S)
    database, books = open_books_at(paths, clock)
    keys = CoordinatorKeys(
        signing=SigningKey.read(paths.signing_key), opening=OpeningKey.read(paths.opening_key)
    )
    coordinator = Party(keys.signing, keys.opening)
    study = books.register.register(plan, keys.signing)
    books.register.start_run(study.study_id, "1", restarts=0)
    sites = {
        parse_site_id(name): MemorySite(
            site_id=parse_site_id(name),
            party=party,
            plan=plan,
            coordinator=coordinator,
            cohort_size=100 * (number + 1),
        )
        for number, (name, party) in enumerate(_template()[1].items())
    }
    return Consortium(
        paths=paths,
        database=database,
        books=books,
        keys=keys,
        study=study,
        sites=sites,
        clock=clock,
    )


@lru_cache(maxsize=1)
def _template() -> tuple[Path, dict[str, Party]]:
    """Found one consortium for this process; each test gets a copy of its folder."""
    folder = tempfile.TemporaryDirectory(prefix="cohortium-test-")
    _KEPT.append(folder)
    home = Path(folder.name) / "coordinator"
    clock = FixedClock(NOW_S)
    found_consortium(home, CONFIG, clock=clock)
    paths = CoordinatorPaths(home)
    database, books = open_books_at(paths, clock)
    parties = {name: Party.fresh() for name in SITE_IDS}
    for name, party in parties.items():
        books.sites.admit(
            enrolment_request(party, Path(folder.name), name),
            fingerprint=party.signing.fingerprint,
            cohort_size_max=10_000,
            paths=paths,
            config=CONFIG,
            answer=Path(folder.name) / f"{name}.json",
        )
    database.engine.dispose()
    return home, parties


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the process ends."""

OTHER_REQUEST = RequestId("ab" * 16)
GARBAGE = b"CHE1" + bytes(range(256)) * 4


def array_lie(change: Callable[[Parameters], Parameters], plan: StudyPlan) -> ReplyChange:
    """Return a lie about the numbers of an update."""

    def lie(reply: ReleasedTask) -> ReleasedTask:
        zeros: Parameters = {
            name: np.zeros(shape, dtype=np.float32)
            for name, shape in parameter_shapes(plan).items()
        }
        return replace(reply, update=encode_parameters(change(zeros)))

    return lie


def refusal_lie(number: str) -> ReplyChange:
    """Return the site's own numbered refusal."""
    return lambda reply: RefusedTask(reply.plan_digest, reply.round_number, number)
