"""What monitoring wrote once under version 1 is read, and written again, for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.crypto.keys import HYBRID_SUITE, X25519_SUITE
from common.protocol.monitoring.chain import ChainState, check_chain
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.report_content import (
    check_content,
    decode_content,
    encode_content,
)
from common.protocol.monitoring.report_envelope import open_report, report_digest
from common.protocol.monitoring.report_header import genesis
from common.protocol.monitoring.roster_file import sign_roster, verify_roster
from tests.lib.monitoring import (
    AUTHORITY,
    CELLS,
    DAY_S,
    NORTH,
    NOW_S,
    SITE_KEYS,
    STUDY,
    make_content,
    make_notices,
    opening_key,
)
from tests.lib.monitoring_vectors import NEW_SITE_KEY, VECTORS, notices, rosters


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(VECTORS.read_text(encoding="ascii"))
    return loaded


def test_content_has_the_same_bytes(vectors: dict[str, Any]) -> None:
    data = bytes.fromhex(vectors["content"])
    assert encode_content(make_content()) == data
    assert decode_content(data, cells=CELLS).counts.tolist() == make_content().counts.tolist()
    assert genesis(STUDY, NORTH) == vectors["genesis"]


@pytest.mark.parametrize("name", ["roster", "next_roster", "x25519_roster"])
def test_rosters_have_the_same_bytes_and_digest(vectors: dict[str, Any], name: str) -> None:
    roster = rosters()[name]
    assert sign_roster(roster, AUTHORITY).decode() == vectors[name]
    assert roster.digest == vectors[f"{name}_digest"]


def test_rosters_of_version_1_are_taken_in_order(vectors: dict[str, Any]) -> None:
    pinned = None
    for name in ("roster", "next_roster"):
        pinned = verify_roster(
            vectors[name].encode(),
            authority=AUTHORITY.verify_key,
            now_s=NOW_S + DAY_S,
            pinned=pinned,
        )
    assert pinned == rosters()["next_roster"]


@pytest.mark.parametrize("kind", notices())
def test_notices_have_the_same_bytes(vectors: dict[str, Any], kind: str) -> None:
    assert notices()[kind].decode() == vectors[kind]
    assert read_notice(vectors[kind].encode()).content == getattr(make_notices(), kind)


@pytest.mark.parametrize(
    ("name", "suite", "roster"),
    [("report", HYBRID_SUITE, "roster"), ("x25519_report", X25519_SUITE, "x25519_roster")],
)
@pytest.mark.parametrize("seed", [6, 7])
def test_a_report_sealed_under_version_1_opens_for_each_receiver(
    vectors: dict[str, Any], name: str, suite: int, roster: str, seed: int
) -> None:
    envelope = bytes.fromhex(vectors[name])
    check_report(envelope, roster=rosters()[roster], arrived_at_s=NOW_S)
    header, plaintext = open_report(
        envelope,
        verify_key=SITE_KEYS[NORTH].verify_key,
        opening_key=opening_key(seed, suite),
    )
    assert plaintext.hex() == vectors["content"]
    check_content(header, decode_content(plaintext, cells=CELLS))


def test_a_chain_of_version_1_goes_on_over_a_new_key(vectors: dict[str, Any]) -> None:
    state = ChainState.start(STUDY, NORTH)
    made = rosters()
    for name in ("report", "next_report"):
        envelope = bytes.fromhex(vectors[name])
        header = check_report(
            envelope,
            roster=made["next_roster"],
            arrived_at_s=NOW_S + DAY_S,
            earlier=[made["roster"]],
        )
        state = check_chain(header, report_digest(envelope), state)
    open_report(envelope, verify_key=NEW_SITE_KEY.verify_key, opening_key=opening_key(6))
    assert state.sequence == 2
