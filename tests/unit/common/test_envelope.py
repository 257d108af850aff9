"""Envelopes: bound to sender, receiver, study, site, round and direction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common import limits
from common.canonical import canonical_bytes, parse_canonical
from common.crypto.signing import sign
from common.errors import CohortiumError, ProtocolError, SealError, SignatureError
from common.ids import SiteId
from common.protocol import envelope
from common.protocol.envelope import (
    MAGIC,
    check_fresh,
    envelope_digest,
    open_envelope,
    read_header,
    seal_envelope,
)
from common.protocol.frames import join_frames, split_frames
from common.protocol.messages import Direction, EnvelopeHeader
from tests.lib.messages import NOW_S, Party, header

COORDINATOR, NORTH, SOUTH = Party.fresh(), Party.fresh(), Party.fresh()
HEADER = header(COORDINATOR, NORTH)


def _seal(of: EnvelopeHeader = HEADER, plaintext: bytes = b"model") -> bytes:
    return seal_envelope(
        of, plaintext, signing_key=COORDINATOR.signing, recipient=NORTH.opening.sealing_key
    )


def _open(
    data: bytes,
    *,
    sender: Party = COORDINATOR,
    recipient: Party = NORTH,
    direction: Direction = Direction.REQUEST,
) -> tuple[EnvelopeHeader, bytes]:
    return open_envelope(
        data,
        verify_key=sender.signing.verify_key,
        opening_key=recipient.opening,
        direction=direction,
    )


def _frames(data: bytes) -> list[bytes]:
    return [bytes(frame) for frame in split_frames(data[len(MAGIC) :], count=3)]


def _signed_again(head: bytes, body: bytes, *, by: Party = COORDINATOR) -> bytes:
    signature = sign(by.signing, "envelope/request", head, body)
    return join_frames([head, body, signature], magic=MAGIC)


@pytest.mark.parametrize("plaintext", [b"", b"model", b"\0" * 200_000])
def test_an_envelope_opens_for_its_receiver(plaintext: bytes) -> None:
    assert _open(_seal(plaintext=plaintext)) == (HEADER, plaintext)


def test_a_relay_reads_the_header_and_only_that() -> None:
    data = _seal(plaintext=b"marked-4711")
    assert read_header(data) == HEADER
    assert b"4711" not in data


def test_another_receiver_is_refused_by_fingerprint() -> None:
    with pytest.raises(ProtocolError):
        _open(_seal(), recipient=SOUTH)


def test_another_sender_is_refused_by_fingerprint() -> None:
    with pytest.raises(ProtocolError):
        _open(_seal(), sender=SOUTH)


def test_a_reply_is_not_taken_for_a_request() -> None:
    reply = replace(HEADER, direction=Direction.REPLY)
    with pytest.raises(ProtocolError):
        _open(_seal(reply))


def test_a_sender_cannot_seal_under_anothers_fingerprint() -> None:
    forged = replace(HEADER, sender_fingerprint=SOUTH.signing.fingerprint)
    with pytest.raises(ProtocolError):
        _seal(forged)


def test_a_stranger_who_writes_the_right_fingerprint_is_refused_by_signature() -> None:
    head, body, _ = _frames(_seal())
    with pytest.raises(SignatureError):
        _open(_signed_again(head, body, by=SOUTH))


def test_a_body_moved_under_another_header_does_not_open_even_when_signed() -> None:
    head = _frames(_seal(replace(HEADER, site_id=SiteId("south"))))[0]
    body = _frames(_seal())[1]
    with pytest.raises(SealError):
        _open(_signed_again(head, body))


def test_a_body_stripped_and_signed_by_another_site_does_not_open() -> None:
    data = _seal()
    head, body, _ = _frames(data)
    record = parse_canonical(head)
    assert isinstance(record, dict)
    stolen = canonical_bytes({**record, "sender": SOUTH.signing.fingerprint})
    with pytest.raises(SealError):
        _open(_signed_again(stolen, body, by=SOUTH), sender=SOUTH)


def test_a_request_signed_for_the_other_direction_is_refused() -> None:
    head, body, _ = _frames(_seal())
    signature = sign(COORDINATOR.signing, "envelope/reply", head, body)
    with pytest.raises(SignatureError):
        _open(join_frames([head, body, signature], magic=MAGIC))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"direction": "sideways"},
        {"round": -1},
        {"round": limits.ROUNDS_MAX + 2},
        {"request_id": "0F" * 16},
        {"site": "North"},
        {"study": "../etc"},
        {"issued_at_s": -1},
        {"expires_at_s": 2**41},
        {"sender": "x"},
        {"recipient": "0" * 32},
        {"extra": 0},
    ],
)
def test_a_header_with_a_wrong_field_is_refused_even_when_signed(change: dict[str, int]) -> None:
    head, body, _ = _frames(_seal())
    record = parse_canonical(head)
    assert isinstance(record, dict)
    with pytest.raises(ProtocolError):
        _open(_signed_again(canonical_bytes({**record, **change}), body))


@pytest.mark.parametrize("round_number", [-1, limits.ROUNDS_MAX + 2])
def test_a_header_that_the_receiver_would_refuse_is_not_sealed(round_number: int) -> None:
    with pytest.raises(ProtocolError):
        _seal(replace(HEADER, round_number=round_number))


@pytest.mark.parametrize(
    "data", [b"", b"CHE1", b"CHE2" + b"\0" * 24, b"CHE1" + b"\0" * 24, b"CHE1" + b"\xff" * 64]
)
def test_bytes_that_are_no_envelope_are_refused(data: bytes) -> None:
    for use in (read_header, _open):
        with pytest.raises(ProtocolError):
            use(data)


def test_an_envelope_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(ProtocolError, match="CHE1"):
        _open(b"CHE2" + _seal()[4:])


def test_an_envelope_with_something_after_its_end_is_refused() -> None:
    with pytest.raises(ProtocolError):
        _open(_seal() + b"\0")


def test_a_header_beyond_the_bound_is_refused_before_it_is_parsed() -> None:
    data = join_frames([b"[" * (limits.HEADER_BYTES_MAX + 1), b"", b""], magic=MAGIC)
    with pytest.raises(ProtocolError, match="at most"):
        read_header(data)


def test_an_envelope_beyond_the_bound_is_neither_made_nor_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = _seal()
    monkeypatch.setattr(limits, "ENVELOPE_BYTES_MAX", len(data) - 1)
    with pytest.raises(ProtocolError, match="at most"):
        _open(data)
    with pytest.raises(ProtocolError, match="at most"):
        _seal()


@pytest.mark.parametrize(
    "now_s", [NOW_S, NOW_S + 600, NOW_S - limits.CLOCK_SKEW_S_MAX, NOW_S + 600 + 300]
)
def test_an_envelope_is_fresh_within_its_life_give_or_take_the_clocks(now_s: int) -> None:
    check_fresh(HEADER, now_s)


@pytest.mark.parametrize("now_s", [0, NOW_S - limits.CLOCK_SKEW_S_MAX - 1, NOW_S + 901])
def test_an_envelope_outside_its_life_is_refused_as_r4(now_s: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_fresh(HEADER, now_s)
    assert caught.value.number == "R4"


@pytest.mark.parametrize("life_s", [-1, limits.REQUEST_AGE_S_MAX + 1])
def test_an_envelope_with_an_impossible_life_is_refused_as_r4(life_s: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_fresh(replace(HEADER, expires_at_s=NOW_S + life_s), NOW_S)
    assert caught.value.number == "R4"


def test_two_envelopes_of_the_same_message_have_two_digests() -> None:
    assert envelope_digest(_seal()) != envelope_digest(_seal())


def test_no_error_shows_what_was_sealed() -> None:
    data = _seal(plaintext=b"marked-4711")
    for position in range(0, len(data), 37):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(CohortiumError) as caught:
            _open(bytes(changed))
        assert "4711" not in str(caught.value)


def test_a_header_that_does_not_come_out_the_same_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = _seal()
    envelope._parse_header.cache_clear()  # it was read when it was sealed
    monkeypatch.setattr(envelope, "parse_site_id", lambda text: SiteId("south"))
    with pytest.raises(ProtocolError, match="one byte form"):
        _open(data)
