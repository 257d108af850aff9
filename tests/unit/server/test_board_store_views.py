"""From a real board's store to its pages: what arrived, is missing, was signed, and cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.ids import SiteId
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import Action, Decision, decision_genesis
from common.protocol.monitoring.roster import Standing
from common.study.report_tensors import ReportKind
from server.monitor_board.cli import app
from server.monitor_board.decision_book import take_decision
from server.monitor_board.signal_types import State
from server.monitor_board.web.pages import PAGES, render_page, render_site
from server.monitor_board.web.report_file import report_html
from server.monitor_board.web.selection import Query
from server.monitor_board.web.store_views import StoreViews
from server.monitor_board.web.views import StudyView
from tests.lib.board_world import (
    CONSORTIUM,
    DAY_S,
    NOW_S,
    STUDY,
    BoardSide,
    make_board,
    make_world,
    utc_s,
)
from tests.lib.html_pages import Page

NORTH, SOUTH = SiteId("north"), SiteId("south")


@pytest.fixture
def board(tmp_path: Path) -> BoardSide:
    return make_board(make_world(), tmp_path)


def _maker(board: BoardSide) -> StoreViews:
    return StoreViews(board.store, name="Heart network", clock=board.world.clock)


def _study(board: BoardSide) -> StudyView:
    return _maker(board).make().studies[STUDY]


def _fill(board: BoardSide) -> None:
    """Take the references and February's reports of both sites, once its outcomes are known."""
    world = board.world
    for site in (NORTH, SOUTH):
        board.take(world.report(site, "reference", period="reference", patients=4_000))
        board.take(world.report(site, patients=4_000))
    world.clock.seconds = utc_s(2026, 4, 2)
    for site in (NORTH, SOUTH):
        board.take(world.report(site, "outcome", patients=4_000))


def test_every_page_of_a_real_board_renders_and_its_numbers_are_those_reported(
    board: BoardSide,
) -> None:
    _fill(board)
    view = _maker(board).make()
    study = view.studies[STUDY]
    pages = {key: Page(render_page(view, study, key, Query(), stale=False)) for key, _ in PAGES}
    for site in study.sites.values():
        Page(render_site(view, study, site, stale=False, whole=True))
    assert [row.site_id for row in study.rows] == ["north", "south"]
    assert study.pooled is not None
    title, _, _ = study.model.performances[0].title.partition(",")
    assert title == "All sites together (2 reported)"
    [account, _] = study.privacy
    assert (account.spent, account.remaining) == (2.0, 20.0)
    assert [period for period, _ in account.periods] == ["reference", "2026-02"]
    assert pages["model"].with_tag("svg")
    assert Page(report_html(view)).tables


def test_shown_patients_are_the_sums_of_the_reported_noisy_counts(board: BoardSide) -> None:
    _fill(board)
    outcomes = [
        report for report in board.store.kept_reports(STUDY) if report.kind is ReportKind.OUTCOME
    ]
    [pooled, reference] = _study(board).model.performances
    summed = sum(report.tensors["overall"].values for report in outcomes).sum(axis=0)
    assert [item.patients for item in pooled.reliability] == [round(count) for count in summed]
    assert pooled.period == "2026-02"
    assert reference.title.endswith("reference")


def test_a_gap_a_waiting_report_and_a_refusal_are_on_the_protocol_page(board: BoardSide) -> None:
    world = board.world
    board.take(world.report(NORTH, "reference", period="reference"))
    lost = world.report(NORTH)
    world.clock.seconds = utc_s(2026, 4, 2)
    board.take(world.report(NORTH, "outcome"))
    board.take(b"x" * 5_000)
    [north, south] = _study(board).protocol.rows
    assert (north.missing, north.waiting, north.state) == ("2", "3", State.SILENT)
    assert (north.newest_sequence, north.reports, north.key_epoch) == (1, 1, 1)
    assert (south.newest_sequence, south.age_s, south.reports) == (0, None, 0)
    board.take(lost)
    assert _study(board).protocol.rows[0].missing == ""


def test_a_site_that_owes_a_report_is_silent_in_the_heat_map(board: BoardSide) -> None:
    world = board.world
    world.clock.seconds = utc_s(2026, 4, 2)
    board.take(world.report(NORTH, "reference", period="reference"))
    rows = {row.site_id: row for row in _study(board).rows}
    assert rows["south"].state is State.SILENT
    assert rows["south"].cells[0].state is State.SILENT
    page = Page(render_page(_maker(board).make(), _study(board), "overview", Query(), stale=False))
    assert "overdue" in page.text


def _decision(board: BoardSide, **changes: object) -> Decision:
    decision = Decision(
        study_id=STUDY,
        number=1,
        previous=decision_genesis(CONSORTIUM, STUDY),
        action=Action.PAUSE_SITE,
        site_id=NORTH,
        model_version=None,
        reason="creatinine changed its <unit>",
        period="2026-02",
        opened_at_s=NOW_S,
    )
    return dataclasses.replace(decision, **changes)


def test_a_decision_is_shown_with_the_signatures_that_verify(board: BoardSide) -> None:
    world = board.world
    signers = {name: world.deciders[name] for name in ("ada", "ben")}
    notice = sign_notice(_decision(board), signers)
    before = _maker(board).newest_position()
    with board.database.transaction() as connection:
        take_decision(connection, notice, rosters=[world.roster], now_s=NOW_S)
    assert _maker(board).newest_position() > before
    [row] = _study(board).decisions
    assert [item.name for item in row.signatures] == ["ada", "ben"]
    assert row.signatures[0].fingerprint in world.deciders["ada"].verify_key.fingerprint
    assert (row.action, row.about, row.is_valid) == ("pause-site", "site north", True)


def test_a_signature_that_does_not_verify_counts_for_nothing(board: BoardSide) -> None:
    from server.monitor_board.web.protocol_views import decision_rows

    world = board.world
    forged = {"ada": world.deciders["ada"], "ben": world.deciders["cleo"], "eve": world.authority}
    [row] = decision_rows([sign_notice(_decision(board), forged), b"none"], world.roster)
    assert [item.name for item in row.signatures] == ["ada"]
    assert not row.is_valid


def test_a_decision_that_was_not_valid_any_more_when_it_came_is_shown_as_that(
    board: BoardSide,
) -> None:
    world = board.world
    notice = sign_notice(_decision(board), {name: world.deciders[name] for name in ("ada", "ben")})
    world.next_roster(
        deciders=tuple(
            dataclasses.replace(person, status=Standing.REVOKED) if person.name == "ben" else person
            for person in world.roster.deciders
        )
    )
    with board.database.transaction() as connection:
        take_decision(connection, notice, rosters=world.rosters, now_s=NOW_S)
    [row] = _study(board).decisions
    assert not row.is_valid
    assert row.objection == "signed under roster 1, whose decider ben is revoked now"


def test_news_in_the_store_move_its_position_and_nothing_else_does(board: BoardSide) -> None:
    maker = _maker(board)
    first = maker.newest_position()
    assert maker.newest_position() == first
    board.take(board.world.report(NORTH, "reference", period="reference"))
    second = maker.newest_position()
    assert second > first
    board.take_roster(board.world.next_roster(grace_s=8 * DAY_S))
    assert maker.newest_position() > second
    assert maker.make().position == maker.newest_position()


def test_a_board_without_a_roster_or_a_report_has_pages_all_the_same(tmp_path: Path) -> None:
    board = make_board(make_world(), tmp_path)
    view = _maker(board).make()
    for study in view.studies.values():
        for key, _ in PAGES:
            Page(render_page(view, study, key, Query(), stale=False))
    assert Page(report_html(view)).text


def test_a_counted_period_is_the_last_of_which_both_reports_tell(board: BoardSide) -> None:
    world = board.world
    board.take(world.report(NORTH, "reference", period="reference"))
    board.take(world.report(NORTH, content_changes={"epsilon_spent": 2.5}))
    world.clock.seconds += 27 * DAY_S
    board.take(world.report(NORTH, "outcome", content_changes={"epsilon_spent": 3.5}))
    [account] = _study(board).privacy
    assert account.periods == (("reference", 2.0), ("2026-02", 3.5))


def test_no_command_writes_over_a_report_file(tmp_path: Path) -> None:
    home, out = tmp_path / "board", tmp_path / "report.html"
    runner = CliRunner()
    made = runner.invoke(
        app, ["--home", str(home), "init", "--consortium", "Heart network", "--id", "board"]
    )
    assert made.exit_code == 0, made.output
    written = runner.invoke(app, ["--home", str(home), "report", str(out)])
    assert written.exit_code == 0, written.output
    assert "No plan was added" in Page(out.read_text()).text
    again = runner.invoke(app, ["--home", str(home), "report", str(out)])
    assert again.exit_code != 0


def test_no_page_has_the_digest_of_an_envelope(
    board: BoardSide,
) -> None:
    _fill(board)
    view = _maker(board).make()
    study = view.studies[STUDY]
    digests = [report.digest for report in board.store.kept_reports(STUDY)]
    for key, _ in PAGES:
        html = render_page(view, study, key, Query(), stale=False)
        assert not [digest for digest in digests if digest in html]
