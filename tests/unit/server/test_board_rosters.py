"""The ceremony of a roster by its commands, keys that rotate, and keys that are deleted in time."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from common.command_line import run_command
from common.crypto.keys import OpeningKey, SigningKey, VerifyKey
from common.errors import CohortiumError
from common.ids import BoardId, SiteId
from common.protocol.enrolment import read_request, write_request
from common.protocol.monitoring.roster import Standing
from common.protocol.monitoring.roster_file import read_roster, sign_key_change, verify_roster
from server.monitor_board.cli import app
from server.monitor_board.config import BoardPaths
from server.monitor_board.key_retention import expired_keys
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.roster_book import RosterBook
from tests.lib.board_world import DAY_S, NOW_S, make_board, make_world, utc_s
from tests.lib.enrolment import enrolment_request
from tests.lib.messages import Party


class Ceremony:
    """A table with a board, a site, two deciders and the authority, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = BoardPaths(folder / "board")
        self.party = Party.fixed(folder / "north", 7)

    def run(self, *words: str, code: int = 0) -> None:
        """Run a command in this folder."""
        arguments = ["--home", str(self.home.home), *words]
        assert run_command(app, name="cohortium-board", arguments=arguments) == code

    def at(self, name: str) -> str:
        """Return a file's path as a word."""
        return str(self.folder / name)

    def fingerprint(self, name: str) -> str:
        """Return the fingerprint of a key file."""
        return SigningKey.read(self.folder / name).fingerprint

    def request(self, name: str, party: Party) -> str:
        """Write a site's enrolment request signed by a key."""
        asked = enrolment_request(party, self.folder / "north", "north")
        write_request(self.folder / name, asked, party.signing)
        (self.folder / "north" / "north-node.key").unlink()
        return self.at(name)

    def first_roster(self) -> None:
        """Make version 1 by the commands."""
        self.run("init", "--consortium", "Heart network", "--id", "board")
        self.run("authority", self.at("authority.key"))
        for name in ("ada", "ben"):
            self.run(
                "decide", "key", name, "--out", self.at(f"{name}.key"), "--card", self.at(name)
            )
        draft, authority = self.at("draft"), self.at("authority.key")
        self.run("roster", "new", draft, "--consortium", "Heart network", "--authority", authority)
        self.run("roster", "add-site", draft, self.request("request", self.party))
        self.run("roster", "add-board", draft, str(self.home.card))
        for name in ("ada", "ben"):
            self.run("roster", "add-decider", draft, self.at(name))
        self.run("roster", "sign", draft, "--authority", authority, "--out", self.at("roster-1"))


@pytest.fixture
def ceremony(tmp_path: Path) -> Ceremony:
    return Ceremony(tmp_path)


def test_the_ceremony_ends_with_a_roster_that_every_reader_takes(
    ceremony: Ceremony, capsys: pytest.CaptureFixture[str]
) -> None:
    ceremony.first_roster()
    data = (ceremony.folder / "roster-1").read_bytes()
    authority = SigningKey.read(ceremony.folder / "authority.key").verify_key
    now_s = read_roster(data).not_before_s
    roster = verify_roster(data, authority=authority, now_s=now_s, pinned=None)
    assert [site.site_id for site in roster.sites] == ["north"]
    assert [person.name for person in roster.active_deciders()] == ["ada", "ben"]
    (key,) = OpeningKeys.read(ceremony.home.opening_keys).keys.values()
    assert roster.active_boards()[0].sealing_key == key.sealing_key
    capsys.readouterr()
    ceremony.run("roster", "show", ceremony.at("roster-1"))
    shown = capsys.readouterr().out
    assert authority.fingerprint in shown
    assert ceremony.party.signing.fingerprint in shown


def test_a_roster_with_fewer_deciders_than_it_asks_for_is_not_signed(ceremony: Ceremony) -> None:
    ceremony.first_roster()
    draft = ceremony.at("draft")
    ceremony.run("roster", "new", draft, "--after", ceremony.at("roster-1"))
    ceremony.run("roster", "revoke", draft, "decider/ben")
    sign = ("--authority", ceremony.at("authority.key"), "--out", ceremony.at("roster-2"))
    ceremony.run("roster", "sign", draft, *sign, code=23)
    assert not (ceremony.folder / "roster-2").exists()


def test_a_draft_is_no_roster(ceremony: Ceremony) -> None:
    ceremony.first_roster()
    data = (ceremony.folder / "draft").read_bytes()
    with pytest.raises(CohortiumError) as caught:
        verify_roster(
            data,
            authority=SigningKey.read(ceremony.folder / "authority.key").verify_key,
            now_s=read_roster(data).not_before_s,
            pinned=None,
        )
    assert caught.value.number == "O2"


def test_a_board_trusts_an_authority_by_its_fingerprint_and_publishes_only_its_rosters(
    ceremony: Ceremony,
) -> None:
    ceremony.first_roster()
    roster = ceremony.at("roster-1")
    ceremony.run("roster", "publish", roster, code=11)
    ceremony.run("trust", roster, "--fingerprint", "0000 0000", code=23)
    ceremony.run("trust", roster, "--fingerprint", ceremony.fingerprint("authority.key"))
    ceremony.run("roster", "publish", roster)
    ceremony.run("authority", ceremony.at("other.key"))
    ceremony.run("roster", "new", ceremony.at("draft"), "--after", roster)
    ceremony.run(
        *("roster", "sign", ceremony.at("draft"), "--authority", ceremony.at("other.key")),
        *("--out", ceremony.at("forged")),
        code=21,
    )


def test_a_boards_key_rotates_with_the_next_roster_and_the_old_one_is_retired(
    ceremony: Ceremony,
) -> None:
    ceremony.first_roster()
    ceremony.run("keys", "rotate")
    draft = ceremony.at("draft")
    ceremony.run("roster", "new", draft, "--after", ceremony.at("roster-1"))
    ceremony.run("roster", "rotate", draft, str(ceremony.home.card))
    ceremony.run(
        *("roster", "sign", draft, "--authority", ceremony.at("authority.key")),
        *("--out", ceremony.at("roster-2")),
    )
    roster = read_roster((ceremony.folder / "roster-2").read_bytes())
    assert sorted(board.status.value for board in roster.boards) == ["active", "retired"]
    keys = OpeningKeys.read(ceremony.home.opening_keys).keys
    assert {board.sealing_key.fingerprint for board in roster.boards} == set(keys)


def test_a_sites_key_rotates_with_its_old_keys_countersignature_or_after_revocation(
    ceremony: Ceremony,
) -> None:
    ceremony.first_roster()
    first = read_roster((ceremony.folder / "roster-1").read_bytes())
    authority = SigningKey.read(ceremony.folder / "authority.key").verify_key
    new = Party(SigningKey.generate(), ceremony.party.opening)
    request, draft = ceremony.request("renewed", new), ceremony.at("draft")
    ceremony.run("roster", "new", draft, "--after", ceremony.at("roster-1"))
    ceremony.run("roster", "rotate", draft, request, code=23)
    signed = sign_key_change(
        ceremony.party.signing,
        consortium="Heart network",
        site_id=SiteId("north"),
        key_epoch=2,
        new=new.signing.verify_key,
    )
    text = base64.b64encode(signed).decode()
    for wrong in ("no base64", text[:40], base64.b64encode(bytes(64)).decode()):
        ceremony.run("roster", "rotate", draft, request, "--countersignature", wrong, code=23)
    ceremony.run("roster", "rotate", draft, request, "--countersignature", text)
    sign = ("--authority", ceremony.at("authority.key"), "--out", ceremony.at("roster-2"))
    ceremony.run("roster", "sign", draft, *sign)
    data = (ceremony.folder / "roster-2").read_bytes()
    roster = verify_roster(
        data, authority=authority, now_s=read_roster(data).not_before_s, pinned=first
    )
    assert roster.site(SiteId("north")).verify_key == new.signing.verify_key


def test_members_are_suspended_readmitted_and_revoked_and_a_revoked_key_stays_revoked(
    ceremony: Ceremony,
) -> None:
    ceremony.first_roster()
    draft = ceremony.at("draft")
    ceremony.run("roster", "new", draft, "--after", ceremony.at("roster-1"))
    ceremony.run("roster", "suspend", draft, "site/north")
    assert read_roster(Path(draft).read_bytes()).sites[0].status is Standing.SUSPENDED
    ceremony.run("roster", "readmit", draft, "site/north")
    ceremony.run("roster", "revoke", draft, "decider/ben")
    ceremony.run("roster", "revoke", draft, "site/north")
    ceremony.run("roster", "readmit", draft, "site/north", code=23)
    ceremony.run("roster", "revoke", draft, "site/nowhere", code=23)
    roster = read_roster(Path(draft).read_bytes())
    assert [person.name for person in roster.active_deciders()] == ["ada"]
    assert roster.sites[0].status is Standing.REVOKED


def test_a_suspended_site_that_changes_its_key_stays_suspended(ceremony: Ceremony) -> None:
    ceremony.first_roster()
    new, draft = Party(SigningKey.generate(), ceremony.party.opening), ceremony.at("draft")
    ceremony.run("roster", "new", draft, "--after", ceremony.at("roster-1"))
    ceremony.run("roster", "suspend", draft, "site/north")
    signed = sign_key_change(
        ceremony.party.signing,
        consortium="Heart network",
        site_id=SiteId("north"),
        key_epoch=2,
        new=new.signing.verify_key,
    )
    text = base64.b64encode(signed).decode()
    request = ceremony.request("renewed", new)
    ceremony.run("roster", "rotate", draft, request, "--countersignature", text)
    (site,) = read_roster(Path(draft).read_bytes()).sites
    assert (site.key_epoch, site.status) == (2, Standing.SUSPENDED)


def test_a_changed_card_is_refused(ceremony: Ceremony) -> None:
    ceremony.first_roster()
    card = json.loads((ceremony.folder / "ada").read_text())
    card["record"]["name"] = "eve"
    (ceremony.folder / "eve").write_text(json.dumps(card))
    draft = ceremony.at("draft")
    ceremony.run("roster", "add-decider", draft, ceremony.at("eve"), code=23)


def test_a_request_with_the_sites_own_key_is_what_the_draft_shows(ceremony: Ceremony) -> None:
    ceremony.first_roster()
    asked = read_request(ceremony.folder / "request")
    roster = read_roster((ceremony.folder / "draft").read_bytes())
    assert roster.sites[0].verify_key == VerifyKey.from_text(asked.verify_key)


def test_reports_of_before_and_after_a_rotation_open_and_the_old_key_is_deleted_in_its_time(
    tmp_path: Path,
) -> None:
    world = make_world()
    board = make_board(world, tmp_path)
    old = world.opening[BoardId("board")]
    before = world.report(SiteId("north"), period="2026-01")
    new = OpeningKeys.make(board.folder)
    assert isinstance(new, OpeningKey)
    (named,) = world.roster.boards
    board.take_roster(
        world.next_roster(
            boards=tuple(
                sorted(
                    (
                        replace(named, status=Standing.RETIRED),
                        replace(named, sealing_key=new.sealing_key),
                    ),
                    key=lambda item: (item.board_id, item.sealing_key.fingerprint),
                )
            )
        )
    )
    assert board.take(before, at_s=utc_s(2026, 2, 2)) == [("used", "")]
    assert board.take(world.report(SiteId("north"))) == [("used", "")]
    keys = OpeningKeys.read(board.folder)

    def expired(days: int, waiting: tuple[bytes, ...] = ()) -> tuple[str, ...]:
        return expired_keys(
            keys,
            RosterBook(tuple(world.rosters)),
            waiting=waiting,
            retention_days=30,
            now_s=NOW_S + days * DAY_S,
        )

    assert expired(37) == ()
    assert expired(38) == (old.fingerprint,)
    assert expired(38, (before,)) == ()
    keys.delete(old.fingerprint)
    assert list(OpeningKeys.read(board.folder).keys) == [new.fingerprint]
    assert len(board.store.kept_reports(board.store.plans().popitem()[0])) == 2
