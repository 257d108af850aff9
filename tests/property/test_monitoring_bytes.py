"""Bytes of monitoring: what is written is read, and any change of it is refused with our error."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.crypto.keys import HYBRID_SUITE, X25519_SUITE
from common.crypto.signing import sign
from common.errors import CohortiumError, ProtocolError
from common.ids import Digest
from common.privacy.mechanism import DiscreteGaussianCounts
from common.protocol.frames import join_frames, split_frames
from common.protocol.monitoring.notice_checks import (
    verify_closing,
    verify_decision,
    verify_partial_sum,
    verify_promotion,
    verify_receipt,
)
from common.protocol.monitoring.notice_codec import read_notice, sign_notice
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.report_content import (
    ReportContent,
    check_content,
    content_bytes,
    decode_content,
    encode_content,
    join_content,
    split_content,
)
from common.protocol.monitoring.report_envelope import (
    MAGIC,
    open_report,
    read_report_header,
)
from common.protocol.monitoring.report_header import (
    KINDS,
    NUMBER_MAX,
    ReportHeader,
    decode_header,
    encode_header,
)
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.roster_file import read_roster, sign_roster, verify_roster
from common.study.report_tensors import ReportKind
from tests.lib.monitoring import (
    AUTHORITY,
    BOARD,
    BOARD_KEYS,
    CELLS,
    COORDINATOR,
    DECIDER_KEYS,
    NORTH,
    NOW_S,
    SITE_KEYS,
    make_content,
    make_notices,
    make_report,
    make_roster,
    opening_key,
)

RELAXED = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
SUITES = (X25519_SUITE, HYBRID_SUITE)
ROSTERS = {suite: make_roster(suite=suite) for suite in SUITES}
REPORTS = {suite: make_report(roster) for suite, roster in ROSTERS.items()}
RECEIVERS = {suite: [opening_key(seed, suite) for seed in (6, 7)] for suite in SUITES}
ROSTER = ROSTERS[HYBRID_SUITE]

hex64 = st.binary(min_size=32, max_size=32).map(bytes.hex).map(Digest)
slugs = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
reals = st.floats(0, 1e6, allow_nan=False)
numbers = st.integers(1, NUMBER_MAX)
periods = st.from_regex(
    r"[0-9]{4}-(?:(?:0[1-9]|1[0-2])|Q[1-4]|W(?:0[1-9]|[1-4][0-9]|5[0-3]))", fullmatch=True
)
fingerprints = st.from_regex(r"[0-9a-f]{4}(?: [0-9a-f]{4}){7}", fullmatch=True)
headers = st.builds(
    ReportHeader,
    version=st.just(1),
    suite=st.integers(1, 255),
    study_id=slugs,
    site_id=slugs,
    key_epoch=numbers,
    kind=st.sampled_from([kind for kind in KINDS if kind != "reference"]),
    period=periods,
    sequence=numbers,
    previous=hex64,
    model_version=hex64,
    schema=hex64,
    roster=hex64,
    recipients=st.sets(fingerprints, min_size=1, max_size=5).map(sorted).map(tuple),
    body_bytes=st.integers(1, 1024).map(lambda blocks: 4096 * blocks),
    commitment=hex64,
    sealed_at_s=st.integers(0, NUMBER_MAX),
)
contents = st.builds(
    ReportContent,
    kind=st.sampled_from([ReportKind.CASE_MIX, ReportKind.OUTCOME]),
    period=periods,
    mechanisms=st.lists(
        st.builds(
            DiscreteGaussianCounts,
            noise_multiplier=st.floats(0.05, 1e4),
            cells_per_patient_max=st.integers(1, 200),
        ),
        max_size=3,
    ).map(tuple),
    epsilon_spent=reals,
    epsilon_remaining=reals,
    delta=st.floats(0, 1),
    ledger_head=hex64,
    software_version=st.text("0123456789.abcdev+", max_size=40),
    counts=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2000).map(
        lambda values: np.array(values, dtype=np.int64)
    ),
)


def receive(envelope: bytes, suite: int = HYBRID_SUITE) -> ReportContent:
    """Do all that the receivers do with a report before they look at the numbers."""
    check_report(envelope, roster=ROSTERS[suite], arrived_at_s=NOW_S + 100)
    for key in RECEIVERS[suite]:
        header, plaintext = open_report(
            envelope, verify_key=SITE_KEYS[NORTH].verify_key, opening_key=key
        )
        content = decode_content(plaintext, cells=CELLS)
        check_content(header, content)
    return content


def take(data: bytes) -> MonitoringRoster:
    return verify_roster(data, authority=AUTHORITY.verify_key, now_s=NOW_S + 100, pinned=None)


def damaged(data: bytes, random_source: random.Random) -> bytes:
    """Return bytes with one change: a flip, a cut, an insertion, a repetition, another order."""
    place = random_source.randrange(len(data))
    few = random_source.randbytes(random_source.randint(1, 9))
    length = random_source.choice([1, 4, 8, 64, 4096])
    ways: list[Callable[[], bytes]] = [
        lambda: data[:place] + bytes([data[place] ^ (few[0] or 1)]) + data[place + 1 :],
        lambda: data[:place] + bytes([data[place] ^ 1 << few[0] % 8]) + data[place + 1 :],
        lambda: data[:place] + data[place + len(few) :],
        lambda: data[:place] + few + data[place:],
        lambda: data[:place] + few + data[place + len(few) :],
        lambda: data + data[place:],
        lambda: data[place:] + data[:place],
        lambda: data[:place] + bytes(length) + data[place + length :],
        lambda: data[:place],
    ]
    return random_source.choice(ways)()


def _fuzz(envelopes: Iterator[bytes], times: int) -> None:
    for changed in itertools.islice(envelopes, times):
        with pytest.raises(CohortiumError) as caught:
            receive(changed)
        assert caught.value.number.startswith("B"), caught.value


def _damaged_reports(seed: int) -> Iterator[bytes]:
    source = random.Random(seed)
    while True:
        changed = damaged(REPORTS[HYBRID_SUITE], source)
        for _ in range(source.randint(0, 2)):
            changed = damaged(changed, source) if changed else b"x"
        if changed != REPORTS[HYBRID_SUITE]:
            yield changed


ANYTHING = [0, 1, 2, 3, -1, 2**40, 2**53, "", "reference", "north", "f" * 64, None, True, [], {}]
LIKELY: dict[str, list[Any]] = {
    "suite": [1, 3],
    "study_id": ["other-study"],
    "site_id": ["south", "nowhere"],
    "key_epoch": [2, NUMBER_MAX],
    "kind": ["case-mix", "share-a"],
    "period": ["2026-Q1", "2026-W07"],
    "sequence": [2, NUMBER_MAX],
    "body_bytes": [8192],
    "sealed_at_s": [0, NOW_S],
    **{name: ["0" * 64] for name in ("previous", "model_version", "schema", "commitment")},
    "roster": ["0" * 64],
}


def _edited_reports(seed: int) -> Iterator[bytes]:
    """Yield reports whose header has another value somewhere, in canonical form."""
    source = random.Random(seed)
    head, *others = (bytes(part) for part in split_frames(REPORTS[2][len(MAGIC) :], count=4))
    record = json.loads(head)
    for changes in itertools.count(1):
        changed = dict(record)
        for _ in range(changes % 3):
            name = source.choice([*LIKELY])
            changed[name] = source.choice(LIKELY[name])
        if changes % 3 != 1:
            name = source.choice([*record, "more"])
            changed[name] = source.choice([*ANYTHING, *record.values()])
        text = json.dumps(changed, sort_keys=True, separators=(",", ":"))
        if text.encode() != head:
            yield join_frames([text.encode(), *others], magic=MAGIC)


def _signed_again(edited: Iterator[bytes]) -> Iterator[bytes]:
    """Yield reports that the site itself signs after an edit of their header, body or stanzas."""
    source = random.Random(0)
    parts = [bytes(part) for part in split_frames(REPORTS[2][len(MAGIC) :], count=4)][:3]
    for report in edited:
        edits = [
            [bytes(part) for part in split_frames(report[len(MAGIC) :], count=4)][:3],
            [parts[0], damaged(parts[1], source), parts[2]],
            [parts[0], parts[1], damaged(parts[2], source)],
        ]
        for edit in edits:
            if edit != parts:
                signature = sign(SITE_KEYS[NORTH], "report", *edit)
                yield join_frames([*edit, signature], magic=MAGIC)


def test_ten_thousand_damaged_reports_are_refused_with_a_numbered_error() -> None:
    _fuzz(_damaged_reports(1), 10_000)


def test_ten_thousand_reports_with_an_edited_header_are_refused_with_a_numbered_error() -> None:
    _fuzz(_edited_reports(2), 10_000)


def test_reports_that_the_site_itself_signs_after_an_edit_are_refused() -> None:
    _fuzz(_signed_again(_edited_reports(3)), 1_000)


@pytest.mark.parametrize("suite", SUITES)
def test_a_board_reads_what_the_site_reported(suite: int) -> None:
    found, sent = receive(REPORTS[suite], suite), make_content()
    assert found.counts.tolist() == sent.counts.tolist()
    assert replace(found, counts=sent.counts).__dict__ == sent.__dict__


@pytest.mark.parametrize("suite", SUITES)
def test_every_changed_byte_of_a_report_is_refused(suite: int) -> None:
    report = REPORTS[suite]
    for position in range(len(report)):
        for mask in (0x01, 0x80):
            changed = bytearray(report)
            changed[position] ^= mask
            with pytest.raises(CohortiumError) as caught:
                receive(bytes(changed), suite)
            assert caught.value.number.startswith("B")


def test_every_changed_byte_of_a_roster_is_refused() -> None:
    data = sign_roster(ROSTER, AUTHORITY)
    assert take(data) == ROSTER
    for position in range(len(data)):
        for mask in (0x01, 0x20):
            changed = bytearray(data)
            changed[position] ^= mask
            with pytest.raises(CohortiumError) as caught:
                take(bytes(changed))
            assert caught.value.number in {"T1", "O1", "O2"}


NOTICES = make_notices()
SIGNED: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "receipt": (
        sign_notice(NOTICES.receipt, {BOARD: BOARD_KEYS[BOARD]}),
        lambda data: verify_receipt(data, ROSTER),
    ),
    "decision": (
        sign_notice(NOTICES.decision, {name: DECIDER_KEYS[name] for name in ("ada", "ben")}),
        lambda data: verify_decision(data, ROSTER),
    ),
    "promotion": (
        sign_notice(NOTICES.promotion, {"coordinator": COORDINATOR}),
        lambda data: verify_promotion(data, COORDINATOR.verify_key),
    ),
    "closing": (
        sign_notice(NOTICES.closing, {BOARD: BOARD_KEYS[BOARD]}),
        lambda data: verify_closing(data, ROSTER),
    ),
    "partial_sum": (
        sign_notice(NOTICES.partial_sum, {BOARD: BOARD_KEYS[BOARD]}),
        lambda data: verify_partial_sum(data, ROSTER),
    ),
}


@pytest.mark.parametrize("kind", SIGNED)
def test_every_notice_survives(kind: str) -> None:
    data, verify = SIGNED[kind]
    assert verify(data) == read_notice(data).content == getattr(NOTICES, kind)


@pytest.mark.parametrize("kind", SIGNED)
def test_every_changed_byte_of_a_notice_is_refused(kind: str) -> None:
    data, verify = SIGNED[kind]
    for position in range(len(data)):
        for mask in (0x01, 0x20, 0x80):
            changed = bytearray(data)
            changed[position] ^= mask
            with pytest.raises(CohortiumError) as caught:
                verify(bytes(changed))
            assert caught.value.number[:1] == "T"


@pytest.mark.parametrize("kind", SIGNED)
def test_a_damaged_notice_is_refused(kind: str) -> None:
    data, verify = SIGNED[kind]
    source = random.Random(5)
    for _ in range(300):
        changed = damaged(data, source)
        if changed != data:
            with pytest.raises(CohortiumError):
                verify(changed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | hex64,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@RELAXED
@given(st.data(), json_values)
def test_any_value_in_any_field_is_read_or_refused_with_our_error(
    data: st.DataObject, value: Any
) -> None:
    texts = [sign_roster(ROSTER, AUTHORITY), *(signed for signed, _ in SIGNED.values())]
    outer = json.loads(data.draw(st.sampled_from(texts)))
    place = outer["record"]
    while True:
        name = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0]))
        inner = place[name]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[name] = value
    text = json.dumps(outer, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    changed = text.encode("utf-8", errors="surrogatepass")
    for read in (read_notice, read_roster):
        try:
            read(changed)
        except ProtocolError as error:
            assert error.number in {"T1", "T2", "O1"}


@RELAXED
@given(headers)
def test_every_header_survives(header: ReportHeader) -> None:
    assert decode_header(encode_header(header)) == header


@RELAXED
@given(contents)
def test_every_content_survives_and_its_length_tells_the_number_of_counts_only(
    content: ReportContent,
) -> None:
    data = encode_content(content)
    assert len(data) == content_bytes(4 * content.counts.size)
    assert len(data) % 4096 == 0
    found = decode_content(data, cells=content.counts.size)
    assert found.counts.tolist() == content.counts.tolist()
    assert replace(found, counts=content.counts).__dict__ == content.__dict__


@RELAXED
@given(contents, st.integers(0, 2**32))
def test_damaged_content_is_refused_or_the_one_form_of_another(
    content: ReportContent, seed: int
) -> None:
    changed = damaged(encode_content(content), random.Random(seed))
    try:
        found = decode_content(changed, cells=content.counts.size)
    except ProtocolError as error:
        assert error.number == "B6"
        return
    assert encode_content(found) == changed


@RELAXED
@given(st.dictionaries(slugs, st.integers(0, 100), max_size=5), st.binary(max_size=9000))
def test_any_record_with_any_body_survives(meta: dict[str, Any], body: bytes) -> None:
    data = join_content(meta, body)
    assert split_content(data, body_bytes=len(body)) == (meta, body)


@RELAXED
@given(st.binary(max_size=600))
def test_any_bytes_are_refused_with_our_error(data: bytes) -> None:
    framed = join_frames([data, b"", b"", b""], magic=MAGIC)
    for read in (
        lambda: read_report_header(data),
        lambda: read_report_header(framed),
        lambda: read_notice(data),
        lambda: read_roster(data),
        lambda: decode_content(data, cells=10),
        lambda: decode_content(data.ljust(4096, b"\0"), cells=10),
    ):
        with pytest.raises(CohortiumError) as caught:
            read()
        assert caught.value.number
