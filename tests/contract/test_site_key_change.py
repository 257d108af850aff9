"""A site's next signing key: coordinator, roster, relay and the site's own records take it."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from common.clock import SystemClock
from common.command_line import run_command
from common.crypto.keys import OpeningKey, SigningKey, VerifyKey
from common.errors import EnrolmentError, SignatureError
from common.ids import SiteId
from common.protocol.enrolment import read_request
from common.protocol.enrolment_records import EnrolmentRequest
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.roster import Standing
from server.cli import app as coordinator
from server.monitor_board import rosters
from server.relay_rosters import consortium_of_change, pin_given_roster
from server.site_directory import SiteDirectory
from server.storage.database import Database
from site_client.cli import app as site_app
from site_client.enrolment import own_request
from site_client.key_change import begin_key_change, finish_key_change
from site_client.open_site import open_site
from tests.lib.ledgers import reserve
from tests.lib.plans import make_plan
from tests.lib.relaying import Relaying, submit

CLOCK = SystemClock()
PLAN = make_plan()


@pytest.fixture
def relaying(tmp_path: Path) -> Relaying:
    return Relaying(tmp_path, sites=("north", "south"))


def _directory(relaying: Relaying) -> SiteDirectory:
    return SiteDirectory(Database.of(relaying.paths, relaying.enrolling.config), CLOCK)


def _approve(relaying: Relaying) -> None:
    opened = open_site(relaying.sites["north"].paths, clock=CLOCK)
    opened.records.approvals.approve(
        PLAN, person="Dr. North", until_s=CLOCK.now_s() + 3600, signing_key=opened.keys.signing
    )


@pytest.mark.slow
def test_a_new_key_that_the_old_one_countersigned_is_taken_everywhere_without_enrolling_anew(
    relaying: Relaying, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    north = relaying.sites["north"]
    old, first = north.signing_key, relaying.roster
    _approve(relaying)
    request, answer = tmp_path / "change.json", tmp_path / "answer.json"
    made = begin_key_change(
        north.paths, organisation="North", contact="it@north", out=request, clock=CLOCK
    )
    again = begin_key_change(
        north.paths, organisation="North", contact="it@north", out=request, clock=CLOCK
    )
    assert (made, made.key_epoch) == (again, 2)
    assert SigningKey.read(north.paths.signing_key).verify_key == old.verify_key
    words = ["--key-epoch", "2", "--countersignature", made.countersignature]
    words += ["--fingerprint", made.fingerprint, "--out", str(answer)]
    arguments = ["--home", str(relaying.paths.home), "change-key", str(request), *words]
    for _ in range(2):  # the same again changes nothing
        assert run_command(coordinator, name="cohortium-coordinator", arguments=arguments) == 0
    word = base64.b64decode(made.countersignature)
    second = rosters.with_new_site_key(
        relaying.next_roster(not_before_s=int(time.time())), read_request(request), word
    )
    joining = ["--home", str(north.paths.home), "join", str(answer)]
    joining += ["--fingerprint", relaying.enrolling.fingerprint, "--relay", relaying.address]
    assert run_command(site_app, name="cohortium-site", arguments=joining) == 0
    assert "next signing key is in use" in capsys.readouterr().out
    new = SigningKey.read(north.paths.signing_key)
    assert new.fingerprint == made.fingerprint
    assert not north.paths.next_signing_key.exists()
    assert _directory(relaying).find(SiteId("north")).verify_key == new.verify_key
    [approval] = open_site(north.paths, clock=CLOCK).records.approvals.all_approvals()
    assert approval.person == "Dr. North"
    before = replace(north).seal(first)  # sealed by the old key, and still on its way
    with relaying.running(), relaying.as_site("north") as stub:
        pin_given_roster(
            relaying.store, relaying.signed(second), fingerprint="", now_s=CLOCK.now_s()
        )
        time.sleep(1.2)
        assert submit(stub, north.seal(first)) == 1  # its grace is not over, and it countersigned
        north.signing_key = new
        report = north.seal(second, key_epoch=2)
        assert submit(stub, report) == 2
        with pytest.raises(grpc.RpcError) as refused:
            north.signing_key = old
            submit(stub, north.seal(second, key_epoch=2))
        assert refused.value.details() == "B2"
    for envelope in (before, report):  # what a board checks alike
        header = check_report(envelope, roster=second, earlier=(first,), arrived_at_s=CLOCK.now_s())
        assert header.site_id == "north"


def test_a_key_that_the_enrolled_one_did_not_countersign_is_refused_and_changes_nothing(
    relaying: Relaying, tmp_path: Path
) -> None:
    north, south = relaying.sites["north"], relaying.sites["south"]
    request = tmp_path / "change.json"
    made = begin_key_change(
        north.paths, organisation="North", contact="it@north", out=request, clock=CLOCK
    )
    of_south = begin_key_change(
        south.paths, organisation="South", contact="it@south", out=tmp_path / "s", clock=CLOCK
    )
    right = {
        "fingerprint": made.fingerprint,
        "key_epoch": 2,
        "countersignature": base64.b64decode(made.countersignature),
    }
    other = base64.b64decode(of_south.countersignature)
    for wrong in (
        {"fingerprint": of_south.fingerprint},
        {"key_epoch": 3},
        {"countersignature": b""},
        {"countersignature": other},
    ):
        with pytest.raises(EnrolmentError):
            _directory(relaying).change_key(
                read_request(request),
                **{**right, **wrong},  # type: ignore[arg-type]
                paths=relaying.paths,
                config=relaying.enrolling.config,
                answer=tmp_path / "answer.json",
            )
    assert not (tmp_path / "answer.json").exists()
    enrolled = _directory(relaying).find(SiteId("north")).verify_key
    assert enrolled == north.signing_key.verify_key
    # An answer that does not name the next key leaves the one in use.
    assert not finish_key_change(north.paths, north.paths.enrolment, CLOCK)
    assert SigningKey.read(north.paths.signing_key).verify_key == enrolled


def _changed(relaying: Relaying, name: str, folder: Path) -> dict[str, Any]:
    """Let a site begin another change; return what its coordinator is given."""
    request = folder / f"{name}-{time.monotonic_ns()}.json"
    made = begin_key_change(
        relaying.sites[name].paths, organisation=name, contact="it", out=request, clock=CLOCK
    )
    return {
        "request": read_request(request),
        "fingerprint": made.fingerprint,
        "key_epoch": made.key_epoch,
        "countersignature": base64.b64decode(made.countersignature),
        "paths": relaying.paths,
        "config": relaying.enrolling.config,
        "answer": folder / f"{name}.answer",
    }


def test_a_change_that_was_made_is_not_made_again_after_the_next_and_no_old_key_comes_back(
    relaying: Relaying, tmp_path: Path
) -> None:
    north, directory = relaying.sites["north"], _directory(relaying)
    enrolled, first = (
        directory.find(SiteId("north")).verify_key,
        _changed(relaying, "north", tmp_path),
    )
    directory.change_key(**first)
    assert finish_key_change(north.paths, first["answer"], CLOCK)
    second = _changed(relaying, "north", tmp_path)
    directory.change_key(**second)
    for replayed in (first, {**first, "request": _request_of(relaying, north.signing_key)}):
        again = {**replayed, "fingerprint": _fingerprint(replayed["request"])}
        with pytest.raises(EnrolmentError):
            directory.change_key(**again)
    now = directory.find(SiteId("north")).verify_key
    assert now.fingerprint == second["fingerprint"] != enrolled.fingerprint


def test_a_site_that_countersigned_under_the_rosters_name_of_the_consortium_is_understood(
    relaying: Relaying, tmp_path: Path
) -> None:
    change = _changed(relaying, "north", tmp_path)
    config = relaying.enrolling.config.model_copy(update={"consortium": "Heart network, Ltd."})
    with pytest.raises(EnrolmentError):
        _directory(relaying).change_key(**{**change, "config": config})
    found = consortium_of_change(relaying.store, SiteId("north"))
    changed = _directory(relaying).change_key(
        **{**change, "config": config}, roster_consortium=found
    )
    assert changed.verify_key.fingerprint == change["fingerprint"]


def test_of_two_changes_at_once_one_is_made(
    relaying: Relaying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, north = _directory(relaying), relaying.sites["north"]
    first = _changed(relaying, "north", tmp_path)
    north.paths.next_signing_key.unlink()
    second = _changed(relaying, "north", tmp_path)
    before = directory.find(SiteId("north"))
    directory.change_key(**first)
    with monkeypatch.context() as patch:  # it looked before the first was written
        patch.setattr(directory, "find", lambda _: before)
        with pytest.raises(EnrolmentError):
            directory.change_key(**second)
    assert directory.find(SiteId("north")).verify_key.fingerprint == first["fingerprint"]


def test_a_key_of_another_site_is_refused_in_our_words_and_breaks_no_roster(
    relaying: Relaying, tmp_path: Path
) -> None:
    directory, north = _directory(relaying), relaying.sites["north"]
    relaying.sites["south"].signing_key.write(north.paths.next_signing_key)  # one hand runs both
    with pytest.raises(EnrolmentError, match="change of a site's key is refused"):
        directory.change_key(**_changed(relaying, "north", tmp_path))


def test_a_suspended_site_that_changes_its_key_stays_suspended(
    relaying: Relaying, tmp_path: Path
) -> None:
    directory = _directory(relaying)
    directory.suspend(SiteId("north"))
    assert not directory.change_key(**_changed(relaying, "north", tmp_path)).is_active


def test_a_key_that_the_roster_has_revoked_countersigns_no_other(
    relaying: Relaying, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request, answer = tmp_path / "change.json", tmp_path / "answer.json"
    made = begin_key_change(
        relaying.sites["north"].paths, organisation="N", contact="it", out=request, clock=CLOCK
    )
    sites = tuple(
        replace(site, status=Standing.REVOKED) if site.site_id == "north" else site
        for site in relaying.roster.sites
    )
    second = relaying.next_roster(not_before_s=int(time.time()), sites=sites)
    pin_given_roster(relaying.store, relaying.signed(second), fingerprint="", now_s=CLOCK.now_s())
    words = ["--key-epoch", "2", "--countersignature", made.countersignature]
    words += ["--fingerprint", made.fingerprint, "--out", str(answer)]
    arguments = ["--home", str(relaying.paths.home), "change-key", str(request), *words]
    assert run_command(coordinator, name="cohortium-coordinator", arguments=arguments) == 23
    assert "has not revoked" in capsys.readouterr().err
    assert not answer.exists()


def test_the_ledgers_chain_goes_on_over_a_change_and_is_verified_offline_by_the_next_key(
    relaying: Relaying, tmp_path: Path
) -> None:
    north = relaying.sites["north"]
    records = open_site(north.paths, clock=CLOCK).records
    head = reserve(records.ledger, 1).digest
    old, change = north.signing_key.fingerprint, _changed(relaying, "north", tmp_path)
    _directory(relaying).change_key(**change)
    assert finish_key_change(north.paths, change["answer"], CLOCK)
    records = open_site(north.paths, clock=CLOCK).records
    reserve(records.ledger, 2)
    records.ledger.verify(must_contain={head})
    export = tmp_path / "ledger.json"
    home = ["--home", str(north.paths.home)]

    def run(*words: str) -> int:
        return run_command(site_app, name="cohortium-site", arguments=[*home, *words])

    assert run("ledger", "export", "--out", str(export)) == 0
    assert run("ledger", "verify", str(export), "--fingerprint", change["fingerprint"]) == 0
    assert run("ledger", "verify", str(export), "--fingerprint", old) == 41


def _request_of(relaying: Relaying, key: SigningKey) -> EnrolmentRequest:
    """Return the site's request with the key that it had first."""
    north = relaying.sites["north"]
    return own_request(
        north.paths,
        site_id="north",
        organisation="North",
        contact="it",
        verify_key=key.verify_key,
        sealing_key=OpeningKey.read(north.paths.opening_key).sealing_key,
        now_s=CLOCK.now_s(),
    )


def _fingerprint(request: EnrolmentRequest) -> str:
    return VerifyKey.from_text(request.verify_key).fingerprint


def test_a_change_that_a_crash_cut_short_is_finished_by_joining_again(
    relaying: Relaying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = relaying.sites["north"]
    _approve(relaying)
    request, answer = tmp_path / "change.json", tmp_path / "answer.json"
    made = begin_key_change(
        north.paths, organisation="North", contact="it@north", out=request, clock=CLOCK
    )
    _directory(relaying).change_key(
        read_request(request),
        fingerprint=made.fingerprint,
        key_epoch=2,
        countersignature=base64.b64decode(made.countersignature),
        paths=relaying.paths,
        config=relaying.enrolling.config,
        answer=answer,
    )

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("site_client.key_change.os.replace", die)
        with pytest.raises(KeyboardInterrupt):
            finish_key_change(north.paths, answer, CLOCK)
    with pytest.raises(SignatureError):  # approvals are the next key's already: nothing leaves
        open_site(north.paths, clock=CLOCK).records.approvals.all_approvals()
    assert finish_key_change(north.paths, answer, CLOCK)
    assert not finish_key_change(north.paths, answer, CLOCK)
    assert len(open_site(north.paths, clock=CLOCK).records.approvals.all_approvals()) == 1
