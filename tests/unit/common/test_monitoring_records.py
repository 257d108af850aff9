"""Records of monitoring that nobody may make, and how members find their way in a roster."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common import limits
from common.canonical import canonical_bytes, canonical_float
from common.crypto.keys import X25519_SUITE
from common.errors import ProtocolError
from common.ids import BoardId, SiteId
from common.privacy.mechanism import GaussianVector
from common.protocol.frames import join_frames
from common.protocol.monitoring.notice_codec import read_notice, sign_notice
from common.protocol.monitoring.notices import Action
from common.protocol.monitoring.refusals import BOARD_REFUSALS
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.report_content import (
    META_BYTES_MAX,
    check_content,
    encode_content,
    join_content,
    split_content,
)
from common.protocol.monitoring.report_envelope import (
    MAGIC,
    open_report,
    read_report_header,
)
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B
from common.protocol.monitoring.roster import BoardRole, MonitoringRoster, RosterBoard, Standing
from common.protocol.monitoring.roster_file import read_roster, sign_roster, verify_roster_chain
from common.protocol.monitoring.signed_notice import NoticeKind, read_signed
from common.study.report_tensors import ReportKind
from tests.lib.monitoring import (
    AUTHORITY,
    BOARD,
    BOARD_KEYS,
    DECIDER_KEYS,
    NORTH,
    NOW_S,
    OPENING_KEYS,
    SITE_KEYS,
    make_content,
    make_notices,
    make_report,
    make_roster,
    opening_key,
    refused,
    signing_key,
)

ROSTER = make_roster()


def _with_aggregators() -> MonitoringRoster:
    added = [
        RosterBoard(
            BoardId(f"sum-{letter}"),
            role,
            opening_key(20 + place).sealing_key,
            signing_key(20 + place).verify_key,
            Standing.ACTIVE,
        )
        for place, (letter, role) in enumerate(
            [("a", BoardRole.AGGREGATOR_A), ("b", BoardRole.AGGREGATOR_B)]
        )
    ]
    return replace(ROSTER, boards=(*ROSTER.boards, *added))


@pytest.mark.parametrize(("kind", "seed"), [(SHARE_A, 20), (SHARE_B, 21)])
def test_a_share_is_sealed_to_its_aggregator_alone(kind: str, seed: int) -> None:
    roster = _with_aggregators()
    sign_roster(roster, AUTHORITY)
    report = make_report(roster, kind=kind)
    header = check_report(report, roster=roster, arrived_at_s=NOW_S)
    assert header.recipients == (opening_key(seed).fingerprint,)
    verify_key = SITE_KEYS[NORTH].verify_key
    open_report(report, verify_key=verify_key, opening_key=opening_key(seed))
    with pytest.raises(ProtocolError) as caught:
        open_report(report, verify_key=verify_key, opening_key=OPENING_KEYS[BOARD])
    assert caught.value.number == "B5"


@pytest.mark.parametrize("period", ["reference", "2026-Q1"])
def test_a_share_may_be_of_the_reference_or_of_a_period(period: str) -> None:
    report = make_report(_with_aggregators(), kind=SHARE_A, period=period)
    assert read_report_header(report).period == period


def test_a_key_of_another_suite_opens_nothing() -> None:
    weak = opening_key(6, X25519_SUITE)
    with pytest.raises(ProtocolError) as caught:
        open_report(make_report(ROSTER), verify_key=SITE_KEYS[NORTH].verify_key, opening_key=weak)
    assert caught.value.number == "B5"


def test_a_retired_board_gets_no_more_reports() -> None:
    first, second = ROSTER.boards
    roster = replace(ROSTER, boards=(replace(first, status=Standing.RETIRED), second))
    header = read_report_header(make_report(roster))
    assert header.recipients == (second.sealing_key.fingerprint,)


def test_a_report_is_sealed_to_somebody_and_with_one_suite() -> None:
    mixed = [opening_key(6).sealing_key, opening_key(7, X25519_SUITE).sealing_key]
    for recipients in ([], mixed):
        with pytest.raises(ProtocolError) as caught:
            make_report(ROSTER, recipients=recipients)
        assert caught.value.number == "B4"


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"kind": "reference"},
        {"period": "reference"},
        {"period": "2026-13"},
        {"period": "2026-W54"},
        {"period": "2026-Q5"},
        {"sequence": 0},
        {"key_epoch": 0},
        {"content": bytes(4095)},
        {"content": b""},
        {"model_version": "A" * 64},
        {"study_id": "with.monitoring", "previous": "0" * 64},
        {"recipients": [OPENING_KEYS[BOARD].sealing_key] * 2},
    ],
)
def test_a_site_cannot_seal_what_receivers_would_refuse(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        make_report(ROSTER, **changes)


def test_a_header_larger_than_any_header_is_refused() -> None:
    frames = [bytes(limits.HEADER_BYTES_MAX + 1), b"", b"", b""]
    refused("B1", read_report_header, join_frames(frames, magic=MAGIC))


@pytest.mark.parametrize(
    "counts",
    [np.zeros((2, 2)), np.array([2**31]), np.array([-(2**31) - 1]), np.zeros(250_001)],
)
def test_counts_that_do_not_fit_are_not_written(counts: Any) -> None:
    refused("B6", encode_content, make_content(counts=counts.astype(np.int64)))


def test_every_report_of_the_accountant_fits_into_its_record() -> None:
    longest = 1 / 3 * 1e-5
    content = make_content(
        mechanisms=(GaussianVector(noise_multiplier=longest * 1e4),) * 5,
        epsilon_spent=longest,
        epsilon_remaining=longest,
        delta=longest,
        software_version="9" * 40,
    )
    assert len(canonical_float(longest)) >= 20
    assert len(encode_content(content)) == 4096


def test_a_record_or_a_length_out_of_bounds_is_refused() -> None:
    refused("B6", lambda: join_content({"x": "y" * META_BYTES_MAX}, b""))
    longer = (META_BYTES_MAX + 1).to_bytes(4, "big") + bytes(4092)
    refused("B6", lambda: split_content(longer, body_bytes=0))
    refused("B6", lambda: split_content(bytes(4096), body_bytes=4000))


def test_content_of_another_kind_or_period_than_its_header_is_refused() -> None:
    header = read_report_header(make_report(ROSTER))
    check_content(header, make_content())
    refused("B6", check_content, header, make_content(kind=ReportKind.CASE_MIX))
    refused("B6", check_content, header, make_content(period="2026-03"))


@pytest.mark.parametrize(
    "changes",
    [
        {"action": Action.WATCH},
        {"site_id": None},
        {"action": Action.ROLL_BACK, "site_id": None},
        {"reason": ""},
        {"reason": " \n"},
        {"reason": "right to left \u202e"},
        {"period": "later"},
        {"number": 0},
    ],
)
def test_a_decision_that_says_nothing_clear_is_refused(changes: dict[str, Any]) -> None:
    decision = replace(make_notices().decision, **changes)
    with pytest.raises(ProtocolError) as caught:
        sign_notice(decision, {"ada": DECIDER_KEYS["ada"]})
    assert caught.value.number == "T2"


def test_a_reason_may_have_several_lines_and_any_language() -> None:
    decision = replace(make_notices().decision, reason="Natrium fehlt.\nVoir le résumé ci-joint.")
    data = sign_notice(decision, {"ada": DECIDER_KEYS["ada"]})
    assert read_notice(data).content == decision


def test_a_notice_needs_a_signature_and_has_a_bound() -> None:
    unsigned = canonical_bytes({"record": {"notice": "receipt", "version": 1}, "signatures": []})
    refused("T1", read_signed, unsigned)
    refused("T1", read_signed, bytes(limits.NOTICE_BYTES_MAX + 1))


def test_signers_of_a_notice_rise_and_are_there_once() -> None:
    both = sign_notice(
        make_notices().decision, {name: DECIDER_KEYS[name] for name in ("ada", "ben")}
    )
    outer = json.loads(both)
    first, second = outer["signatures"]
    for signatures in ([second, first], [first, first]):
        refused("T1", read_signed, canonical_bytes({**outer, "signatures": signatures}))


def test_signatures_do_not_change_a_notices_digest() -> None:
    decision = make_notices().decision
    alone = sign_notice(decision, {"ada": DECIDER_KEYS["ada"]})
    both = sign_notice(decision, {name: DECIDER_KEYS[name] for name in ("ada", "ben")})
    assert read_notice(alone).digest == read_notice(both).digest


def test_a_roster_is_a_notice_and_other_notices_are_no_rosters() -> None:
    data = sign_roster(ROSTER, AUTHORITY)
    notice = read_notice(data)
    assert (notice.kind, notice.content, notice.digest) == (NoticeKind.ROSTER, None, ROSTER.digest)
    assert read_roster(data) == ROSTER
    receipt = sign_notice(make_notices().receipt, {BOARD: BOARD_KEYS[BOARD]})
    with pytest.raises(ProtocolError):
        read_roster(receipt)


def test_an_empty_chain_of_rosters_is_refused() -> None:
    with pytest.raises(ProtocolError):
        verify_roster_chain([], authority=AUTHORITY.verify_key, now_s=NOW_S, pinned=None)


def test_a_roster_names_no_more_receivers_than_a_report_can_have() -> None:
    many = tuple(
        RosterBoard(
            BoardId(f"board-{place:02}"),
            BoardRole.BOARD,
            opening_key(100 + place).sealing_key,
            signing_key(100 + place).verify_key,
            Standing.ACTIVE,
        )
        for place in range(limits.REPORT_RECIPIENTS_MAX + 1)
    )
    refused("O4", sign_roster, replace(ROSTER, boards=many), AUTHORITY)
    sign_roster(replace(ROSTER, boards=many[1:]), AUTHORITY)


def test_a_site_that_is_not_in_the_roster_is_named() -> None:
    refused("B2", ROSTER.site, SiteId("nowhere"))


def test_refusals_are_numbered_without_gaps() -> None:
    assert list(BOARD_REFUSALS) == [f"B{number}" for number in range(1, 15)]
