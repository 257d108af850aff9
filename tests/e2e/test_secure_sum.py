"""A secure sum over a real relay and mutual TLS, by the commands that people type."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.canonical import digest_bytes
from common.command_line import run_command
from common.crypto.keys import OpeningKey
from common.protocol.monitoring.check_key import SealedCheckKey, open_check_key
from common.protocol.monitoring.closing import SUM_SITE_ID
from common.protocol.monitoring.notice_codec import read_notice
from common.protocol.monitoring.report_content import ReportContent
from common.protocol.monitoring.report_header import SHARE_A, SHARE_B, ReportDraft, genesis
from common.protocol.monitoring.roster import BoardRole, MonitoringRoster
from common.study.report_tensors import (
    ReportKind,
    report_mechanisms,
    report_tensors,
    schema_digest,
)
from server.monitor_board.cli import app
from server.monitor_board.config import BoardPaths
from tests.lib.board_home import MODEL, STUDY, board_home, past_weeks, promote, store_of
from tests.lib.relaying import Relaying, ReportingSite, submit
from tests.lib.summing import noised, split_report, summed_plan

pytestmark = pytest.mark.e2e
KIND = ReportKind.CASE_MIX
PLAN = summed_plan(every="week", periods_max=400, late_days=366, sum_sites_min=3)
ADDERS = {"adder-a": BoardRole.AGGREGATOR_A, "adder-b": BoardRole.AGGREGATOR_B}


class Summing(Relaying):
    """A consortium with two aggregators besides."""

    def _first_roster(self) -> MonitoringRoster:
        self.boards.pop("board-b")
        self.boards |= {name: self._board(name) for name in ADDERS}
        roster = super()._first_roster()
        boards = [
            replace(board, role=ADDERS.get(board.board_id, BoardRole.BOARD))
            for board in roster.boards
        ]
        return replace(roster, boards=tuple(sorted(boards, key=lambda board: board.board_id)))


def run(home: BoardPaths, *words: str) -> None:
    assert (
        run_command(app, name="cohortium-board", arguments=["--home", str(home.home), *words]) == 0
    )


def send(relaying: Summing, site: ReportingSite, check_key: Any, period: str) -> np.ndarray:
    """Let a site noise, split and submit its report; return what it noised."""
    cells = sum(tensor.cells for tensor in report_tensors(PLAN, KIND))
    counts = noised(PLAN, np.arange(cells, dtype=np.int64))
    content = ReportContent(
        kind=KIND,
        period=period,
        mechanisms=report_mechanisms(PLAN, KIND),
        epsilon_spent=1.5,
        epsilon_remaining=2.0,
        delta=PLAN.privacy.delta,
        ledger_head=digest_bytes("test", b"ledger"),
        software_version="0.1.0",
        counts=counts,
    )
    draft = ReportDraft(
        study_id=STUDY,
        site_id=site.site_id,
        key_epoch=1,
        kind=KIND.value,
        period=period,
        sequence=1,
        previous=genesis(STUDY, site.site_id),
        model_version=MODEL,
        schema=schema_digest(PLAN, KIND),
        roster=relaying.roster.digest,
        sealed_at_s=1,
    )
    (to_a,), (to_b,) = (relaying.roster.recipients(kind) for kind in (SHARE_A, SHARE_B))
    envelopes = split_report(
        content,
        draft,
        check_key=check_key,
        signing_key=site.signing_key,
        aggregator_a=to_a.sealing_key,
        aggregator_b=to_b.sealing_key,
    )
    with relaying.as_site(site.site_id) as stub:
        for envelope in envelopes:
            submit(stub, envelope)
    return counts


def test_four_sites_two_aggregators_and_a_board_make_one_sum_by_their_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relaying = Summing(tmp_path, sites=("east", "north", "south", "west"))
    promote(relaying, plan=PLAN)
    board = board_home(relaying, "board-a", tmp_path, plan=PLAN)
    adders = [
        board_home(relaying, name, tmp_path, plan=PLAN, role=role.value)
        for name, role in ADDERS.items()
    ]
    authority, roster, made = (tmp_path / name for name in ("a.key", "roster.json", "check.json"))
    relaying.authority_key.write(authority)
    roster.write_bytes(relaying.signed(relaying.roster))
    requests = [f"--request={tmp_path / name}.request.json" for name in relaying.sites]
    words = [f"--roster={roster}", f"--authority-key={authority}", "--number=1", *requests]
    run(board, "check-key", "make", str(made), *words)
    run(board, "check-key", "publish", str(made))
    sealed = read_notice(made.read_bytes()).content
    assert isinstance(sealed, SealedCheckKey)
    (period,) = past_weeks(1)
    with relaying.running():
        run(board, "collect")
        reports = []
        for site in relaying.sites.values():
            opening = OpeningKey.read(site.paths.opening_key)
            key = open_check_key(sealed, key=opening)
            reports.append(send(relaying, site, key, period))
        capsys.readouterr()
        for adder in adders:
            run(adder, "aggregate", "--json")
            said = json.loads(capsys.readouterr().out)
            assert said == {"acknowledged": 4, "answered": 0, "refused": []}
        run(board, "collect")
        capsys.readouterr()
        for adder in adders:
            run(adder, "aggregate", "--json")
            said = json.loads(capsys.readouterr().out)
            assert said == {"acknowledged": 0, "answered": 1, "refused": []}
        run(board, "collect")
        run(board, "status")
        assert f"sum      small-study  case-mix of {period}, 4 sites: joined" in (
            capsys.readouterr().out
        )
    store = store_of(board)
    assert store.refusals() == ()
    assert store.refused_notices() == ()
    (kept,) = store.kept_reports(STUDY)
    assert (kept.site_id, kept.kind, kept.period) == (SUM_SITE_ID, KIND, period)
    flat = np.concatenate([tensor.values.ravel() for tensor in kept.tensors.values()])
    assert np.array_equal(flat, np.sum(reports, axis=0))


def test_an_aggregators_folder_does_not_collect_and_a_boards_does_not_aggregate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relaying = Summing(tmp_path, sites=("east",))
    adder = board_home(relaying, "adder-a", tmp_path, plan=PLAN, role="aggregator-a")
    board = board_home(relaying, "board-a", tmp_path, plan=PLAN)
    for home, word in ((adder, "collect"), (board, "aggregate")):
        code = run_command(app, name="cohortium-board", arguments=["--home", str(home.home), word])
        assert code == 11
    assert "an aggregator has a folder of its own" in capsys.readouterr().err
