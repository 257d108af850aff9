"""A new consortium: every secret private, nothing made over another."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from common.clock import FixedClock
from common.crypto.certificates import check_issued
from common.crypto.keys import OpeningKey, SigningKey
from common.errors import ConfigError, KeyFileError
from server.config import CoordinatorPaths, ServerConfig, make_config, read_config
from server.consortium import (
    found_consortium,
    renew_server_certificate,
    server_certificate_ends_at_s,
)
from tests.lib.memory_channel import CONFIG, copy_consortium
from tests.lib.messages import NOW_S


def _snapshot(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }


def test_founding_makes_keys_certificates_store_and_config(tmp_path: Path) -> None:
    paths = CoordinatorPaths(tmp_path / "c")
    fingerprint = found_consortium(paths.home, CONFIG, clock=FixedClock(NOW_S))
    assert fingerprint == SigningKey.read(paths.signing_key).fingerprint
    OpeningKey.read(paths.opening_key)
    assert read_config(paths) == CONFIG
    assert paths.database.is_file()
    authority = paths.ca_certificate.read_text(encoding="ascii")
    check_issued(authority, paths.server_certificate.read_text(encoding="ascii"), "127.0.0.1")
    for path in (paths.ca_certificate, paths.server_certificate):
        assert "PRIVATE" not in path.read_text(encoding="ascii")


def test_every_secret_is_for_its_owner_only(tmp_path: Path) -> None:
    paths = CoordinatorPaths(tmp_path / "c")
    found_consortium(paths.home, CONFIG, clock=FixedClock(NOW_S))
    for folder in (paths.home, paths.keys, paths.models, paths.flower_home):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secrets = sorted(paths.keys.iterdir())
    assert len(secrets) == 6
    for secret in secrets:
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    token = paths.operator_token.read_text(encoding="ascii")
    assert len(token) == 64
    assert len(paths.superexec_secret.read_bytes()) == 96


def test_a_consortium_is_never_made_over_another(tmp_path: Path) -> None:
    paths = copy_consortium(tmp_path)
    before = _snapshot(paths.home)
    with pytest.raises(ConfigError) as caught:
        found_consortium(paths.home, CONFIG, clock=FixedClock(NOW_S))
    assert caught.value.exit_code == 11
    assert _snapshot(paths.home) == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError) as caught:
        found_consortium(tmp_path / "file" / "c", CONFIG, clock=FixedClock(NOW_S))
    assert str(tmp_path / "file" / "c") in caught.value.expected


@pytest.mark.parametrize(
    "name",
    [
        'Heart "North" network',
        "back\\slash",
        "Herz-Verbund Süd",
        "a # b",
        "two\nlines",
        "a\x7f\x01",
    ],
)
def test_any_name_comes_back_from_the_config_as_it_was(name: str, tmp_path: Path) -> None:
    config = ServerConfig(consortium=name, host="localhost", port=8443, operator_port=8444)
    home = tmp_path / "c"
    found_consortium(home, config, clock=FixedClock(NOW_S))
    assert read_config(CoordinatorPaths(home)) == config


def test_a_wrong_config_is_told_every_problem_at_once(tmp_path: Path) -> None:
    paths = CoordinatorPaths(tmp_path)
    paths.config.write_text('consortium = "x"\nport = 0\noperator_port = "8444"\nmore = 1\n')
    with pytest.raises(ConfigError) as caught:
        read_config(paths)
    for key in ("host", "port", "operator_port", "more"):
        assert key in caught.value.arrived


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe", b"= 1"])
def test_a_config_that_is_not_toml_is_refused(content: bytes, tmp_path: Path) -> None:
    paths = CoordinatorPaths(tmp_path)
    paths.config.write_bytes(content)
    with pytest.raises(ConfigError):
        read_config(paths)


def test_no_config_says_to_init(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(CoordinatorPaths(tmp_path))
    assert "init" in caught.value.todo


def test_a_renewed_certificate_is_of_the_same_authority_and_key_and_lasts_from_today(
    tmp_path: Path,
) -> None:
    home = tmp_path / "c"
    found_consortium(home, CONFIG, clock=FixedClock(NOW_S))
    paths = CoordinatorPaths(home)
    before = _snapshot(home)
    later = NOW_S + 700 * 86_400
    ends = renew_server_certificate(paths, CONFIG, clock=FixedClock(later))
    assert ends == server_certificate_ends_at_s(paths) > later + 800 * 86_400
    changed = {name for name, content in _snapshot(home).items() if before.get(name) != content}
    assert changed == {str(paths.server_certificate.relative_to(home))}
    authority = paths.ca_certificate.read_text()
    check_issued(authority, paths.server_certificate.read_text(), CONFIG.host)


def test_a_damaged_certificate_says_how_to_renew_it(tmp_path: Path) -> None:
    home = tmp_path / "c"
    found_consortium(home, CONFIG, clock=FixedClock(NOW_S))
    paths = CoordinatorPaths(home)
    paths.server_certificate.write_text("damaged")
    with pytest.raises(KeyFileError) as caught:
        server_certificate_ends_at_s(paths)
    assert "renew" in caught.value.todo
    assert renew_server_certificate(paths, CONFIG, clock=FixedClock(NOW_S)) > NOW_S


def test_an_interrupted_init_is_taken_up_with_the_keys_it_made(tmp_path: Path) -> None:
    home = tmp_path / "c"
    bad = ServerConfig(consortium="x", host="bad host", port=8443, operator_port=8444)
    with pytest.raises(ConfigError, match="server certificate"):
        found_consortium(home, bad, clock=FixedClock(NOW_S))
    paths = CoordinatorPaths(home)
    key = paths.signing_key.read_bytes()
    found_consortium(home, CONFIG, clock=FixedClock(NOW_S))
    assert paths.signing_key.read_bytes() == key
    assert read_config(paths) == CONFIG


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"consortium": ""}, "consortium"),
        ({"consortium": "x" * 201}, "consortium"),
        ({"operator_port": CONFIG.port}, "must differ"),
    ],
)
def test_a_senseless_configuration_is_one_clear_error(
    change: dict[str, object], where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({**CONFIG.model_dump(), **change}, source="the configuration")
    assert where in caught.value.arrived
