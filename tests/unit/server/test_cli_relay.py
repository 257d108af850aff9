"""The relay's commands: rosters are pinned and never rolled back, boards get certificates."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.command_line import run_command
from common.crypto.certificates import (
    TlsKey,
    board_name,
    certifies,
    make_certificate_request,
    tls_fingerprint,
)
from common.crypto.keys import SigningKey
from common.errors import EnrolmentError
from common.protocol.board_certificate import read_board_certificate
from common.protocol.monitoring.notice_checks import verify_promotion
from common.protocol.monitoring.roster_file import sign_roster
from common.protocol.monitoring.signed_notice import NoticeKind
from server.cli import app
from server.config import RelayConfig, read_config
from server.relay_store import RelayStore
from server.storage.database import Database
from tests.lib.enrolling import CLOCK
from tests.lib.memory_channel import copy_consortium, make_consortium
from tests.lib.relaying import Relaying

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def relaying(tmp_path: Path) -> Relaying:
    return Relaying(tmp_path, sites=("north",))


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command on the coordinator below `tmp_path`; return code, stdout and stderr."""
    home = tmp_path / "coordinator"

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(
            app, name="cohortium-coordinator", arguments=["--home", str(home), *words]
        )
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def _file(folder: Path, content: bytes) -> str:
    path = folder / "roster.json"
    path.write_bytes(content)
    return str(path)


def test_the_next_roster_is_pinned_and_a_rollback_is_refused(
    relaying: Relaying, command: Command, tmp_path: Path
) -> None:
    second = relaying.next_roster()
    code, out, _ = command("relay", "roster", _file(tmp_path, relaying.signed(second)), "--json")
    assert code == 0
    assert json.loads(out) == {"version": 2, "digest": second.digest}
    # The same again changes nothing; what is older, skips or is another of its version is refused.
    assert command("relay", "roster", _file(tmp_path, relaying.signed(second)))[0] == 0
    third = replace(second, version=3, previous=second.digest)
    for other in (
        relaying.roster,
        replace(second, grace_s=1),
        replace(third, version=4),
        replace(third, previous=relaying.roster.digest),
    ):
        code, _, err = command("relay", "roster", _file(tmp_path, relaying.signed(other)))
        assert (code, "[O5]" in err) == (30, True), err
    assert [item.content for item in relaying.store.rosters()] == [
        relaying.signed(second),
        relaying.signed(relaying.roster),
    ]
    code, out, _ = command("relay", "status", "--json")
    assert json.loads(out) == {"reports": 0, "notices": 2, "roster_version": 2}


def test_a_roster_of_another_authority_is_refused_the_first_time_and_later(
    relaying: Relaying, command: Command, tmp_path: Path
) -> None:
    stranger = SigningKey.generate()
    foreign = replace(relaying.next_roster(), authority=stranger.verify_key)
    given = _file(tmp_path, sign_roster(foreign, stranger))
    code, _, err = command("relay", "roster", given, "--fingerprint", stranger.fingerprint)
    assert code != 0
    assert "[O2]" in err
    with relaying.store._database.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM relay_rosters")
    first = _file(tmp_path, relaying.signed(relaying.roster))
    for words in ((), ("--fingerprint", stranger.fingerprint)):
        code, _, err = command("relay", "roster", first, *words)
        assert (code, "[O2]" in err) == (30, True)
    told = relaying.authority_key.fingerprint
    assert command("relay", "roster", first, "--fingerprint", told.upper())[0] == 0


def test_junk_and_no_file_are_our_errors(command: Command, relaying: Relaying) -> None:
    assert relaying
    junk = _file(relaying.paths.home, b"junk")
    assert command("relay", "roster", junk)[0] == 30
    assert command("relay", "roster", "nowhere")[0] == 11


def test_a_board_gets_a_certificate_for_its_id_and_the_key_that_was_read_out(
    relaying: Relaying, command: Command, tmp_path: Path
) -> None:
    key = TlsKey.generate()
    request, out = tmp_path / "request.pem", tmp_path / "board.json"
    pem = make_certificate_request(key, board_name("board-c"))
    request.write_text(pem)
    words = ("board-certificate", str(request), "--id", "board-c", "--out", str(out))
    other = tls_fingerprint(make_certificate_request(TlsKey.generate(), "x"))
    code, _, err = command(*words, "--fingerprint", other)
    assert (code, out.exists()) == (23, False)
    assert tls_fingerprint(pem) in err
    assert command(*words, "--fingerprint", tls_fingerprint(pem))[0] == 0
    record = read_board_certificate(out)
    assert certifies(record.certificate, key)
    assert record.relay_address == relaying.address
    document = json.loads(out.read_text())
    document["record"]["relay_address"] = "elsewhere:1"
    out.write_text(json.dumps(document))
    with pytest.raises(EnrolmentError) as caught:
        read_board_certificate(out)
    assert caught.value.number == "N9"


def test_a_certificate_for_a_site_is_none_for_a_board(
    relaying: Relaying, command: Command, tmp_path: Path
) -> None:
    from common.protocol.board_certificate import write_board_certificate

    key = TlsKey.generate()
    request, out = tmp_path / "request.pem", tmp_path / "board.json"
    pem = make_certificate_request(key, "north")
    request.write_text(pem)
    words = ("--id", "board-c", "--out", str(out), "--fingerprint", tls_fingerprint(pem))
    assert command("board-certificate", str(request), *words)[0] == 0
    site = relaying.sites["north"].paths.certificate.read_text()
    record = read_board_certificate(out).model_copy(update={"certificate": site})
    write_board_certificate(out, record, SigningKey.read(relaying.paths.signing_key))
    with pytest.raises(EnrolmentError) as caught:
        read_board_certificate(out)
    assert caught.value.number == "N10"


def test_without_a_relay_in_server_toml_each_command_says_so(
    command: Command, tmp_path: Path
) -> None:
    paths = copy_consortium(tmp_path)
    assert read_config(paths).relay is None
    request = tmp_path / "request.pem"
    request.write_text(make_certificate_request(TlsKey.generate(), "x"))
    words = ("--id", "b", "--out", "o", "--fingerprint", "x")
    assert command("relay")[0] == 11
    assert command("board-certificate", str(request), *words)[0] == 11


def test_init_with_a_relay_port_configures_it(command: Command, tmp_path: Path) -> None:
    words = ("init", "--name", "N", "--host", "127.0.0.1", "--port", "18443")
    assert command(*words, "--relay-port", "18443")[0] == 11  # the port of the sites' studies
    assert command(*words, "--relay-port", "18445")[0] == 0
    from server.config import CoordinatorPaths

    config = read_config(CoordinatorPaths(tmp_path / "coordinator"))
    assert config.relay == RelayConfig(port=18445)
    assert config.relay_address == "127.0.0.1:18445"


def test_promoting_a_model_tells_the_sites_once(command: Command, tmp_path: Path) -> None:
    consortium = make_consortium(tmp_path)
    consortium.run()
    paths = consortium.paths
    with paths.config.open("a") as stream:
        stream.write("\n[relay]\nport = 18445\n")
    versions = [item.version for item in consortium.books.registry.all_versions()]
    words = ("--as", "Dr B.", "--reason", "calibrated")
    assert command("relay", "announce")[0] == 53  # no champion yet
    for version in versions[:2]:
        code, out, _ = command("models", "promote", version, *words)
        assert (code, "It goes to the sites" in out) == (0, True)
        # For a relay that came later, or after a crash between the two; else it changes nothing.
        assert command("relay", "announce")[0] == 0
    assert command("models", "rollback", *words)[0] == 0
    store = RelayStore(Database.of(paths, read_config(paths)), CLOCK)
    key = SigningKey.read(paths.signing_key).verify_key
    notices = store.notices_of(NoticeKind.PROMOTION)
    sent = [verify_promotion(notice, key) for notice in notices]
    assert [(item.sequence, item.model_version) for item in sent] == [
        (1, versions[0]),
        (2, versions[1]),
        (3, versions[0]),
    ]
    parameters = consortium.books.rounds.read_parameters(versions[0])
    assert store.body_part(1, 0) == parameters
    assert time.time() - sent[0].at_s < 600
