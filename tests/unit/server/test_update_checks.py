"""The numbered checks U1 to U16, one test each, and their order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common import limits
from common.errors import UpdateRefused
from common.ids import Digest, ReleaseId, RequestId, SiteId, StudyId
from common.privacy.mechanism import DiscreteGaussianCounts, DpSgdSteps, GaussianVector
from common.protocol.arrays import Parameters, encode_parameters
from common.protocol.codec import encode_reply
from common.protocol.counts import encode_counts
from common.protocol.envelope import seal_envelope
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    RefusedTask,
    ReleasedTask,
    TaskKind,
    TaskReply,
)
from common.study.scaling import MOMENTS
from server import update_checks
from server.site_directory import Site
from server.update_checks import Expectation, SiteMemory, check_release, open_reply
from tests.lib.messages import (
    BASE_VERSION,
    NOW_S,
    PLAN_DIGEST,
    SHAPES,
    Party,
    header,
    refusal,
    release,
)

COORDINATOR, NORTH, SOUTH = Party.fresh(), Party.fresh(), Party.fresh()
HEADER = header(NORTH, COORDINATOR, direction=Direction.REPLY)
RELEASE = release()
SITE = Site(
    site_id=SiteId("north"),
    organisation="North",
    verify_key=NORTH.signing.verify_key,
    sealing_key=NORTH.opening.sealing_key,
    node_public_key="",
    is_active=True,
    cohort_size_max=1000,
)
OUTSTANDING = {HEADER.request_id: SITE.site_id}
NOTHING_YET = SiteMemory(releases=frozenset(), cohort_size=None, cohort_size_max=1000)
EXPECTED = Expectation(
    study_id=StudyId("small-study"),
    plan_digest=PLAN_DIGEST,
    round_number=1,
    kind=TaskKind.TRAIN,
    is_evaluated=True,
    base_version=BASE_VERSION,
    shapes=SHAPES,
    update_norm_max=10.0,
    mechanisms=RELEASE.mechanisms,
    score_bins=4,
)
FINAL = replace(EXPECTED, kind=TaskKind.EVALUATE, round_number=5, mechanisms=RELEASE.mechanisms[1:])
FINAL_RELEASE = replace(
    RELEASE,
    kind=TaskKind.EVALUATE,
    round_number=5,
    update=b"",
    mechanisms=RELEASE.mechanisms[1:],
)


def _sealed(reply: TaskReply = RELEASE, of: EnvelopeHeader = HEADER, *, by: Party = NORTH) -> bytes:
    return seal_envelope(
        replace(of, sender_fingerprint=by.signing.fingerprint),
        encode_reply(reply),
        signing_key=by.signing,
        recipient=COORDINATOR.opening.sealing_key,
    )


def _open(envelope: bytes, **changes: Any) -> TaskReply:
    settings: dict[str, Any] = {
        "site": SITE,
        "opening_key": COORDINATOR.opening,
        "outstanding": OUTSTANDING,
        "expectation": EXPECTED,
        "now_s": NOW_S,
    }
    return open_reply(envelope, **{**settings, **changes})


def _check(
    reply: ReleasedTask, expectation: Expectation = EXPECTED, memory: SiteMemory = NOTHING_YET
) -> Parameters:
    return check_release(reply, expectation=expectation, memory=memory)


def _is_refused(number: str, what: Callable[[], object]) -> None:
    with pytest.raises(UpdateRefused) as caught:
        what()
    assert caught.value.number == number
    assert caught.value.exit_code == 50


def _update(**changes: Any) -> bytes:
    zeros = {name: np.zeros(shape, dtype=np.float32) for name, shape in SHAPES.items()}
    return encode_parameters({**zeros, **changes})


def test_an_honest_reply_passes_every_check() -> None:
    reply = _open(_sealed())
    assert reply == RELEASE
    assert isinstance(reply, ReleasedTask)
    assert set(_check(reply)) == set(SHAPES)


def test_an_honest_final_evaluation_passes_and_carries_no_update() -> None:
    assert _check(FINAL_RELEASE, FINAL) == {}


def test_a_site_that_refuses_is_understood() -> None:
    assert _open(_sealed(refusal())) == refusal()


def test_U1_the_envelope_opens_and_is_signed_by_that_sites_key() -> None:
    for envelope in (b"", b"garbage", _sealed()[:-1], _sealed(by=SOUTH), _sealed() + b"\0"):
        _is_refused("U1", lambda envelope=envelope: _open(envelope))
    late = replace(HEADER, issued_at_s=NOW_S - 9000, expires_at_s=NOW_S - 8000)
    _is_refused("U1", lambda: _open(_sealed(of=late)))
    # Sealed to somebody else.
    other = replace(HEADER, recipient_fingerprint=SOUTH.opening.fingerprint)
    foreign = seal_envelope(
        other,
        encode_reply(RELEASE),
        signing_key=NORTH.signing,
        recipient=SOUTH.opening.sealing_key,
    )
    _is_refused("U1", lambda: _open(foreign))
    # The coordinator's own request, sent back.
    mirrored = seal_envelope(
        replace(HEADER, direction=Direction.REQUEST),
        encode_reply(RELEASE),
        signing_key=NORTH.signing,
        recipient=COORDINATOR.opening.sealing_key,
    )
    _is_refused("U1", lambda: _open(mirrored))


def test_U1_an_envelope_that_holds_no_reply_is_refused() -> None:
    nonsense = seal_envelope(
        HEADER, b"nonsense", signing_key=NORTH.signing, recipient=COORDINATOR.opening.sealing_key
    )
    _is_refused("U1", lambda: _open(nonsense))


def test_U2_the_site_is_active() -> None:
    _is_refused("U2", lambda: _open(_sealed(), site=replace(SITE, is_active=False)))


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": RequestId("00" * 16)},
        {"site_id": SiteId("south")},
        {"study_id": StudyId("other-study")},
        {"round_number": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_U3_it_answers_a_request_that_is_outstanding(change: dict[str, Any]) -> None:
    _is_refused("U3", lambda: _open(_sealed(of=replace(HEADER, **change))))


def test_U3_a_request_to_another_site_is_not_outstanding_for_this_one() -> None:
    _is_refused("U3", lambda: _open(_sealed(), outstanding={HEADER.request_id: SiteId("south")}))
    _is_refused("U3", lambda: _open(_sealed(), outstanding={}))


def test_U4_it_is_about_this_exact_plan() -> None:
    for reply in (RELEASE, refusal()):
        other = replace(reply, plan_digest=Digest("b2" * 32))
        _is_refused("U4", lambda other=other: _open(_sealed(other)))


def test_U5_it_is_about_this_round_and_this_kind_of_task() -> None:
    _is_refused("U5", lambda: _open(_sealed(replace(RELEASE, round_number=2))))
    _is_refused("U5", lambda: _open(_sealed(replace(refusal(), round_number=2))))
    _is_refused("U5", lambda: _open(_sealed(replace(FINAL_RELEASE, round_number=1))))


def test_U6_it_was_made_from_the_model_that_was_sent() -> None:
    _is_refused("U6", lambda: _check(replace(RELEASE, base_version=Digest("e5" * 32))))


def test_U7_its_bytes_are_within_the_bound_for_this_model() -> None:
    _is_refused("U7", lambda: _check(replace(RELEASE, update=bytes((1 << 20) + 17))))
    _is_refused("U7", lambda: _check(replace(FINAL_RELEASE, update=b"x"), FINAL))


@pytest.mark.parametrize(
    "update",
    [
        b"",
        b"\0" * 64,
        _update(**{"linear.bias": np.zeros(2, dtype=np.float32)}),
        _update(more=np.zeros(1, dtype=np.float32)),
        encode_parameters({"linear.weight": np.zeros((1, 3), dtype=np.float32)}),
        _update().replace(b"F32", b"I32"),
        _update() + b"\0",
        _update()[:-1],
    ],
    ids=["none", "zeros", "shape", "another", "missing", "type", "longer", "shorter"],
)
def test_U8_its_arrays_have_the_plans_names_shapes_and_type(update: bytes) -> None:
    _is_refused("U8", lambda: _check(replace(RELEASE, update=update)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_U9_every_number_is_finite(value: float) -> None:
    for name, shape in SHAPES.items():
        array = np.zeros(shape, dtype=np.float32)
        array.reshape(-1)[-1] = value
        update = _update(**{name: array})
        _is_refused("U9", lambda update=update: _check(replace(RELEASE, update=update)))


def test_U10_its_norm_is_within_the_plans_bound() -> None:
    def with_norm(norm: float) -> ReleasedTask:
        # The norm is over all arrays together: half of its square in each of two.
        part = np.float32(norm / np.sqrt(2))
        weight = np.array([[0, part, 0]], dtype=np.float32)
        bias = np.array([part], dtype=np.float32)
        return replace(RELEASE, update=_update(**{"linear.weight": weight, "linear.bias": bias}))

    _check(with_norm(10.0))
    _is_refused("U10", lambda: _check(with_norm(10.02)))
    _is_refused("U10", lambda: _check(with_norm(3e38)))


def test_U11_its_mechanism_records_are_the_plans() -> None:
    train, counted = RELEASE.mechanisms
    assert isinstance(train, DpSgdSteps)
    assert isinstance(counted, GaussianVector)
    for mechanisms in (
        (),
        (train,),
        (counted, train),
        (train, counted, counted),
        (replace(train, noise_multiplier=1.2), counted),
        (replace(train, steps=21), counted),
        (replace(train, sampling_probability=0.6), counted),
        (train, replace(counted, part=train.part)),
    ):
        _is_refused(
            "U11",
            lambda mechanisms=mechanisms: _check(replace(RELEASE, mechanisms=mechanisms)),
        )


def test_U12_its_release_was_never_accepted_before() -> None:
    memory = replace(NOTHING_YET, releases={RELEASE.release_id})
    _is_refused("U12", lambda: _check(RELEASE, memory=memory))
    _check(replace(RELEASE, release_id=ReleaseId("f6" * 32)), memory=memory)


def test_U13_its_evaluation_is_present_exactly_when_asked_for_and_well_formed() -> None:
    counted = RELEASE.evaluation
    assert counted is not None
    _is_refused("U13", lambda: _check(replace(RELEASE, evaluation=None)))
    _is_refused("U13", lambda: _check(RELEASE, replace(EXPECTED, is_evaluated=False)))
    for wrong in (
        replace(counted, model_version=Digest("e5" * 32)),
        replace(counted, counts=((1, 2, 3), (1, 2, 3))),
        replace(counted, noise_multiplier=2.4),
    ):
        _is_refused("U13", lambda wrong=wrong: _check(replace(RELEASE, evaluation=wrong)))


def test_U14_its_declared_cohort_size_is_at_most_the_admitted_and_stays_the_same() -> None:
    for size in (1, limits.COHORT_SIZE_MIN - 1, 1001, 100_000_000):
        _is_refused("U14", lambda size=size: _check(replace(RELEASE, declared_cohort_size=size)))
    _check(replace(RELEASE, declared_cohort_size=1000))
    _is_refused("U14", lambda: _check(RELEASE, memory=replace(NOTHING_YET, cohort_size=304)))
    _check(RELEASE, memory=replace(NOTHING_YET, cohort_size=303))
    # Admitted before the number was asked for: it counts again when the coordinator sets one.
    _is_refused("U14", lambda: _check(RELEASE, memory=replace(NOTHING_YET, cohort_size_max=0)))


def _sums(total: float, squares: float, count: float) -> ReleasedTask:
    sums = np.array([[total], [squares], [count]], dtype=np.float32)
    return replace(
        RELEASE,
        kind=TaskKind.SCALE,
        round_number=0,
        update=encode_parameters({MOMENTS: sums}),
        evaluation=None,
        mechanisms=(GaussianVector(1.0),),
        declared_cohort_size=303,
    )


def test_U15_its_sums_are_those_that_so_many_patients_can_have() -> None:
    expected = replace(
        EXPECTED,
        kind=TaskKind.SCALE,
        round_number=0,
        is_evaluated=False,
        shapes={MOMENTS: (3, 1)},
        mechanisms=(GaussianVector(1.0),),
    )
    for honest in (_sums(300, 150, 300), _sums(-300, -150, 303), _sums(5, -3, -9)):
        _check(honest, expected)
    for wrong in (_sums(330, 0, 300), _sums(-330, 0, 300), _sums(0, 180, 300), _sums(0, 0, 330)):
        _is_refused("U15", lambda wrong=wrong: _check(wrong, expected))
    _is_refused("U10", lambda: _check(_sums(500, 0, 0), expected))


def test_U16_its_counts_are_one_for_each_cell_and_not_beyond_its_cohort_and_noise() -> None:
    mechanism = DiscreteGaussianCounts(10.0, 2)
    counting = replace(
        EXPECTED, kind=TaskKind.COUNT, is_evaluated=False, mechanisms=(mechanism,), cells=4
    )
    counted = replace(RELEASE, kind=TaskKind.COUNT, evaluation=None, mechanisms=(mechanism,))
    most, least = 2 * RELEASE.declared_cohort_size + 120, -120
    assert _check(replace(counted, update=encode_counts([0, 7, most, least])), counting) == {}
    for counts in ([0, 7, 9], [], [0, 7, 9, most + 1], [least - 1, 0, 7, 9]):
        wrong = replace(counted, update=encode_counts(counts))
        _is_refused("U16", lambda wrong=wrong: _check(wrong, counting))


def test_U4_is_not_asked_of_a_refusal_that_comes_before_any_plan_is_known() -> None:
    """A wrong clock (R4) or a busy agent (R16) is told by its own number, not as another plan."""
    before = {"R1", "R2", "R3", "R4", "R5", "R16"}
    for number in (f"R{value}" for value in (*range(1, 17), 99)):
        reply = RefusedTask(Digest("0" * 64), 1, number)
        if number in before:
            assert _open(_sealed(reply)) == reply
        else:
            _is_refused("U4", lambda reply=reply: _open(_sealed(reply)))
    # U5 still holds, and U3: an answer to another request says nothing about this one.
    late = RefusedTask(Digest("0" * 64), 2, "R4")
    _is_refused("U5", lambda: _open(_sealed(late)))
    _is_refused(
        "U3", lambda: _open(_sealed(RefusedTask(Digest("0" * 64), 1, "R4")), outstanding={})
    )


def test_of_several_faults_the_first_number_is_reported() -> None:
    wrong = replace(RELEASE, base_version=Digest("e5" * 32), mechanisms=(), declared_cohort_size=1)
    _is_refused("U6", lambda: _check(wrong))


def test_a_refusal_quotes_nothing_that_the_site_wrote() -> None:
    named = encode_parameters({"patient-4711": np.zeros(1, dtype=np.float32)})
    with pytest.raises(UpdateRefused) as caught:
        _check(replace(RELEASE, update=named))
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_every_number_in_the_table_has_its_function_and_its_test() -> None:
    table = re.findall(r"^\((U\d+)\)", str(update_checks.__doc__), re.MULTILINE)
    assert table == [f"U{number}" for number in range(1, 17)]
    documented = [str(value.__doc__) for value in vars(update_checks).values() if callable(value)]
    for number in table:
        assert any(text.startswith(f"{number}: ") for text in documented)
        assert any(name.startswith(f"test_{number}_") for name in globals())
