"""A consortium whose roster allows X25519 alone: card, roster, relay, reports, rotation."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.clock import SystemClock
from common.command_line import run_command
from common.crypto.certificates import tls_fingerprint
from common.crypto.keys import X25519_SUITE
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.roster_file import read_roster
from server.board_certificates import issue_board_certificate
from server.monitor_board.cli import app
from server.monitor_board.config import BoardPaths, read_config
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.plan_book import add_plan
from server.monitor_board.storage.database import BoardDatabase
from server.relay_rosters import pin_given_roster
from tests.lib.board_home import PLAN, STUDY, past_weeks, promote, store_of, world_of
from tests.lib.relaying import Relaying, submit

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class Commands:
    """A board's folder, and its commands."""

    def __init__(self, relaying: Relaying, folder: Path) -> None:
        self.relaying = relaying
        self.folder = folder
        self.paths = BoardPaths(folder / "board")
        relaying.authority_key.write(folder / "authority.key")
        (folder / "first.json").write_bytes(relaying.signed(relaying.roster))

    def run(self, *words: str | Path, code: int = 0) -> None:
        arguments = ["--home", str(self.paths.home), *map(str, words)]
        assert run_command(app, name="cohortium-board", arguments=arguments) == code

    def found(self) -> None:
        """Make the board with its certificate and the pinned authority."""
        self.run("init", "--consortium", "Heart network", "--id", "board-x", "--suite", "x25519")
        self.run("certificate", "request", self.folder / "board.csr")
        enrolling = self.relaying.enrolling
        issue_board_certificate(
            self.folder / "board.csr",
            board_id="board-x",
            fingerprint=tls_fingerprint((self.folder / "board.csr").read_text()),
            answer=self.folder / "board-x.json",
            paths=enrolling.paths,
            config=enrolling.config,
            clock=SystemClock(),
        )
        coordinator = ("--fingerprint", enrolling.fingerprint)
        self.run("certificate", "take", self.folder / "board-x.json", *coordinator)
        authority = ("--fingerprint", self.relaying.authority_key.fingerprint)
        self.run("trust", self.folder / "first.json", *authority)

    def next_roster(self) -> bytes:
        """Draft, sign and return the roster in which this board alone is active."""
        draft, first = self.folder / "draft", self.folder / "first.json"
        self.run("roster", "new", draft, "--after", first)
        self.run("roster", "add-board", draft, self.paths.card, code=23)  # hybrid alone so far
        self.run("roster", "new", draft, "--after", first, "--suite", "x25519")
        for name in ("board-a", "board-b"):
            self.run("roster", "revoke", draft, f"board/{name}")
        self.run("roster", "add-board", draft, self.paths.card)
        signed = self.folder / "second.json"
        key = self.folder / "authority.key"
        self.run("roster", "sign", draft, "--authority", key, "--out", signed)
        return signed.read_bytes()


def test_reports_sealed_with_x25519_alone_reach_a_board_that_was_made_for_it(
    tmp_path: Path,
) -> None:
    relaying = Relaying(tmp_path)
    promote(relaying)
    board = Commands(relaying, tmp_path)
    board.found()
    signed = board.next_roster()
    roster = read_roster(signed)
    assert roster.suites == (X25519_SUITE,)
    pin_given_roster(relaying.store, signed, fingerprint="", now_s=SystemClock().now_s())
    database = BoardDatabase.of(board.paths, read_config(board.paths))
    with database.transaction() as connection:
        add_plan(connection, PLAN, now_s=SystemClock().now_s())
    database.close()
    world = world_of(relaying)
    world.rosters.append(roster)
    with relaying.running():
        sent = []
        for site_id, site in world.sites.items():
            with relaying.as_site(site_id) as stub:
                sent.append(world.report(site.site_id, period=past_weeks(1)[0]))
                submit(stub, sent[-1])
        board.run("collect", "--once")
        kept = store_of(board.paths).kept_reports(STUDY)
        assert [item.digest for item in kept] == [report_digest(envelope) for envelope in sent]
    board.run("keys", "rotate")
    suites = {key.suite for key in OpeningKeys.read(board.paths.opening_keys).keys.values()}
    assert suites == {X25519_SUITE}
