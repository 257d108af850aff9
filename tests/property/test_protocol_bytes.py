"""Protocol bytes: what is written is read, and anything else is our error or another message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import limits
from common.crypto.keys import OpeningKey, SealingKey, VerifyKey
from common.crypto.sealing import open_sealed, seal
from common.crypto.signing import sign, verify
from common.errors import CohortiumError, EnrolmentError, ProtocolError, SealError, SignatureError
from common.ids import Digest, ReleaseId, RequestId, SiteId, StudyId
from common.privacy.mechanism import (
    PATIENT_HASH_PARTS,
    DpSgdSteps,
    GaussianVector,
    PatientPart,
)
from common.protocol.arrays import decode_parameters, encode_parameters
from common.protocol.codec import decode_reply, decode_request, encode_reply, encode_request
from common.protocol.enrolment import read_enrolment, read_request
from common.protocol.envelope import open_envelope, read_header, seal_envelope
from common.protocol.frames import join_frames, split_frames
from common.protocol.messages import (
    Direction,
    EnvelopeHeader,
    EvaluationCounts,
    LedgerStatement,
    RefusedTask,
    ReleasedTask,
    TaskKind,
    TaskRequest,
)
from common.protocol.refusals import REFUSALS
from tests.lib.messages import PARAMETERS, SHAPES, Party, header, refusal, release, request
from tests.lib.protocol_vectors import VECTORS

COORDINATOR, SITE = Party.fresh(), Party.fresh()
RELAXED = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])

hex64 = st.binary(min_size=32, max_size=32).map(bytes.hex)
hex32 = st.binary(min_size=16, max_size=16).map(bytes.hex)
slugs = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
rounds = st.integers(1, limits.ROUNDS_MAX + 1)
counts = st.integers(-(10**9), 10**9)
bodies = st.binary(max_size=300)


def reals(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


parts = (
    st.tuples(st.integers(0, PATIENT_HASH_PARTS), st.integers(0, PATIENT_HASH_PARTS))
    .filter(lambda ends: ends[0] < ends[1])
    .map(lambda ends: PatientPart(*ends))
)
mechanisms = st.one_of(
    st.builds(
        DpSgdSteps,
        noise_multiplier=reals(0.01, 1e6),
        sampling_probability=reals(1e-6, 1.0),
        steps=st.integers(1, limits.STEPS_TOTAL_MAX),
        part=parts,
    ),
    st.builds(GaussianVector, noise_multiplier=reals(0.01, 1e6), part=parts),
)
evaluations = st.integers(1, 50).flatmap(
    lambda bins: st.builds(
        EvaluationCounts,
        model_version=hex64.map(Digest),
        counts=st.tuples(*[st.tuples(*[counts] * bins)] * 2),
        noise_multiplier=reals(0.01, 1e6),
    )
)
statements = st.builds(
    LedgerStatement,
    epsilon_spent=reals(0, 100),
    epsilon_remaining=reals(0, 100),
    delta=reals(0, 1),
    ledger_head=hex64.map(Digest),
)
requests = (
    st.builds(
        TaskRequest,
        plan_digest=hex64.map(Digest),
        round_number=rounds,
        kind=st.sampled_from([TaskKind.TRAIN, TaskKind.EVALUATE]),
        evaluate=st.just(value=True),
        base_version=hex64.map(Digest),
        parameters=bodies,
    )
    | st.builds(
        TaskRequest,
        plan_digest=hex64.map(Digest),
        round_number=st.just(0),
        kind=st.just(TaskKind.SCALE),
        evaluate=st.just(value=False),
        base_version=hex64.map(Digest),
        parameters=st.just(b""),
    )
    | st.builds(
        TaskRequest,
        plan_digest=hex64.map(Digest),
        round_number=rounds,
        kind=st.just(TaskKind.COUNT),
        evaluate=st.just(value=False),
        base_version=hex64.map(Digest),
        parameters=bodies,
    )
)
refusals = st.builds(
    RefusedTask,
    plan_digest=hex64.map(Digest),
    round_number=rounds,
    number=st.sampled_from(sorted(REFUSALS)),
)
releases = st.builds(
    ReleasedTask,
    plan_digest=hex64.map(Digest),
    round_number=rounds,
    kind=st.just(TaskKind.TRAIN),
    base_version=hex64.map(Digest),
    release_id=hex64.map(ReleaseId),
    declared_cohort_size=st.integers(1, 10**9),
    update=bodies,
    evaluation=st.none() | evaluations,
    mechanisms=st.lists(mechanisms, max_size=limits.LEDGER_RECORDS_PER_RELEASE_MAX).map(tuple),
    statement=statements,
)
replies = st.one_of(refusals, releases)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Return one change of some bytes: a flip, a cut, an insertion, a repetition."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "repeat", "swap"]))
    where, extra = draw(st.floats(0, 1, exclude_max=True)), draw(st.binary(min_size=1, max_size=9))

    def damage(data: bytes) -> bytes:
        i = int(where * len(data))
        if kind == "flip":
            return data[:i] + bytes([data[i] ^ (extra[0] or 1)]) + data[i + 1 :]
        if kind == "cut":
            return data[:i] + data[i + len(extra) :]
        if kind == "insert":
            return data[:i] + extra + data[i:]
        if kind == "repeat":
            return data + data[i:]
        return data[i:] + data[:i]

    return damage


def _open(data: bytes) -> tuple[EnvelopeHeader, bytes]:
    return open_envelope(
        data,
        verify_key=COORDINATOR.signing.verify_key,
        opening_key=SITE.opening,
        direction=Direction.REQUEST,
    )


ENVELOPE = seal_envelope(
    header(COORDINATOR, SITE),
    encode_request(request()),
    signing_key=COORDINATOR.signing,
    recipient=SITE.opening.sealing_key,
)


@RELAXED
@given(requests)
def test_every_request_survives(message: TaskRequest) -> None:
    assert decode_request(encode_request(message)) == message


@RELAXED
@given(replies)
def test_every_reply_survives(message: RefusedTask | ReleasedTask) -> None:
    assert decode_reply(encode_reply(message)) == message


@RELAXED
@given(damages(), st.sampled_from([release(), refusal()]))
def test_a_damaged_message_is_refused_or_is_the_one_form_of_another(
    damage: Callable[[bytes], bytes], reply: RefusedTask | ReleasedTask
) -> None:
    cases: list[tuple[bytes, Callable[[bytes], Any], Callable[[Any], bytes]]] = [
        (encode_request(request()), decode_request, encode_request),
        (encode_reply(reply), decode_reply, encode_reply),
    ]
    for data, decode, encode in cases:
        changed = damage(data)
        try:
            message = decode(changed)
        except ProtocolError:
            continue
        assert encode(message) == changed


@RELAXED
@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused_with_our_error(data: bytes) -> None:
    framed = join_frames([data, b""])
    in_envelope = join_frames([data, b"", b""], magic=b"CHE1")
    for read in (
        lambda: decode_request(framed),
        lambda: decode_reply(framed),
        lambda: read_header(in_envelope),
        lambda: _open(data),
        lambda: split_frames(data, count=3),
        lambda: decode_parameters(data, expected=SHAPES, bytes_max=1 << 20),
    ):
        with pytest.raises(CohortiumError):
            read()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@RELAXED
@given(
    st.sampled_from(sorted(json.loads(bytes(split_frames(encode_reply(release()), count=2)[0])))),
    json_values,
)
def test_any_value_in_any_field_is_read_or_refused_with_our_error(field: str, value: Any) -> None:
    head, body = split_frames(encode_reply(release()), count=2)
    record = {**json.loads(bytes(head)), field: value}
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    changed = join_frames([text.encode("utf-8", errors="surrogatepass"), bytes(body)])
    try:
        message = decode_reply(changed)
    except ProtocolError:
        return
    assert encode_reply(message) == changed


def test_every_changed_byte_of_an_envelope_is_refused() -> None:
    for position in range(len(ENVELOPE)):
        for mask in (0x01, 0x80):
            changed = bytearray(ENVELOPE)
            changed[position] ^= mask
            with pytest.raises((ProtocolError, SignatureError, SealError)):
                _open(bytes(changed))


@RELAXED
@given(damages())
def test_a_damaged_envelope_is_refused(damage: Callable[[bytes], bytes]) -> None:
    changed = damage(ENVELOPE)
    if changed == ENVELOPE:
        return
    with pytest.raises((ProtocolError, SignatureError, SealError)):
        _open(changed)


@RELAXED
@given(
    study=slugs,
    site=slugs,
    round_number=rounds,
    request_id=hex32,
    issued=st.integers(0, 2**40),
    expires=st.integers(0, 2**40),
    direction=st.sampled_from(Direction),
    plaintext=bodies,
)
def test_every_envelope_opens_for_its_receiver(
    study: str,
    site: str,
    round_number: int,
    request_id: str,
    issued: int,
    expires: int,
    direction: Direction,
    plaintext: bytes,
) -> None:
    of = EnvelopeHeader(
        direction=direction,
        study_id=StudyId(study),
        site_id=SiteId(site),
        round_number=round_number,
        request_id=RequestId(request_id),
        issued_at_s=issued,
        expires_at_s=expires,
        sender_fingerprint=COORDINATOR.signing.fingerprint,
        recipient_fingerprint=SITE.opening.fingerprint,
    )
    data = seal_envelope(
        of, plaintext, signing_key=COORDINATOR.signing, recipient=SITE.opening.sealing_key
    )
    assert read_header(data) == of
    opened = open_envelope(
        data,
        verify_key=COORDINATOR.signing.verify_key,
        opening_key=SITE.opening,
        direction=direction,
    )
    assert opened == (of, plaintext)


@RELAXED
@given(st.lists(bodies, max_size=5), st.lists(bodies, max_size=5))
def test_a_signature_is_for_one_list_of_parts(first: list[bytes], second: list[bytes]) -> None:
    signature = sign(COORDINATOR.signing, "label", *first)
    if first == second:
        verify(COORDINATOR.signing.verify_key, "label", signature, *second)
        return
    with pytest.raises(SignatureError):
        verify(COORDINATOR.signing.verify_key, "label", signature, *second)


@RELAXED
@given(bodies, damages())
def test_a_damaged_seal_does_not_open(plaintext: bytes, damage: Callable[[bytes], bytes]) -> None:
    key: OpeningKey = SITE.opening
    sealed = seal(plaintext, to=key.sealing_key, label="l", context=b"c")
    assert open_sealed(sealed, key=key, label="l", context=b"c") == plaintext
    changed = damage(sealed)
    if changed == sealed:
        return
    with pytest.raises(SealError):
        open_sealed(changed, key=key, label="l", context=b"c")


@RELAXED
@given(st.text(max_size=60))
def test_any_text_is_a_public_key_or_refused_with_our_error(text: str) -> None:
    with pytest.raises(SealError):
        SealingKey.from_text(text)
    try:
        key = VerifyKey.from_text(text)
    except SignatureError:
        return
    assert key.to_text() == text


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}", fullmatch=True)
arrays = st.dictionaries(
    names,
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements=st.floats(width=32),
    ),
    max_size=5,
)


@RELAXED
@given(arrays)
def test_every_set_of_arrays_survives_bit_by_bit(original: dict[str, Any]) -> None:
    data = encode_parameters(original)
    shapes = {name: array.shape for name, array in original.items()}
    decoded = decode_parameters(data, expected=shapes, bytes_max=len(data))
    assert {n: a.tobytes() for n, a in decoded.items()} == {
        n: a.tobytes() for n, a in original.items()
    }
    with pytest.raises(ProtocolError):
        decode_parameters(data, expected={**shapes, "0": (1,)}, bytes_max=len(data))


@RELAXED
@given(damages())
def test_damaged_parameters_are_refused_or_the_one_form_of_others(
    damage: Callable[[bytes], bytes],
) -> None:
    changed = damage(PARAMETERS)
    try:
        decoded = decode_parameters(changed, expected=SHAPES, bytes_max=1 << 20)
    except ProtocolError:
        return
    assert encode_parameters(decoded) == changed


@pytest.mark.parametrize(
    ("name", "read"),
    [("enrolment-request.json", read_request), ("enrolment.json", read_enrolment)],
)
def test_every_changed_byte_of_an_enrolment_file_is_refused_or_says_the_same(
    tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    data = (VECTORS / name).read_bytes()
    right = read(VECTORS / name)
    path = tmp_path / name
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x01
        path.write_bytes(changed)
        try:
            assert read(path) == right
        except EnrolmentError:
            continue
