"""Make a consortium: certificate authority, server certificate, keys, secrets and store."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from common.clock import Clock
from common.crypto.certificates import Authority, TlsKey
from common.crypto.key_files import write_secret
from common.crypto.keys import OpeningKey, SigningKey
from common.errors import ConfigError
from server.config import CoordinatorPaths, ServerConfig
from server.storage.database import Database

_SECRET_BYTES = 48  # what Flower asks of a SuperExec secret


def found_consortium(home: Path, config: ServerConfig, *, clock: Clock) -> str:
    """Make everything that a new consortium needs and return the coordinator's fingerprint.

    Raises:
        ConfigError: when the folder already holds a coordinator.
        KeyFileError: when a key cannot be written.
    """
    paths = CoordinatorPaths(home)
    if paths.config.exists():
        raise ConfigError(
            "a consortium is never made over another",
            expected=f"a folder {home} without server.toml",
            arrived="one that already holds a coordinator",
            todo="choose another folder with --home",
        )
    _make_folders(paths)
    signing_key = SigningKey.generate()
    signing_key.write(paths.signing_key)
    OpeningKey.generate().write(paths.opening_key)
    write_secret(paths.operator_token, secrets.token_hex(32).encode("ascii"))
    write_secret(paths.superexec_secret, secrets.token_hex(_SECRET_BYTES).encode("ascii"))
    _make_certificates(paths, config, now_s=clock.now_s())
    Database.of(paths, config).migrate()
    # Written last: a folder with server.toml is a whole coordinator.
    paths.config.write_text(_toml(config), encoding="utf-8")
    return signing_key.fingerprint


def _make_folders(paths: CoordinatorPaths) -> None:
    try:
        for folder in (paths.home, paths.keys, paths.flower_home, paths.models, paths.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "the coordinator's folder cannot be made",
            expected=f"a folder {paths.home} that we may write",
            arrived=error.strerror or type(error).__name__,
            todo="choose another folder with --home",
        ) from None


def _make_certificates(paths: CoordinatorPaths, config: ServerConfig, *, now_s: int) -> None:
    authority_key, server_key = TlsKey.generate(), TlsKey.generate()
    authority_key.write(paths.ca_key)
    server_key.write(paths.server_key)
    authority = Authority.make(f"{config.consortium} authority", authority_key, now_s=now_s)
    paths.ca_certificate.write_text(authority.certificate_pem, encoding="ascii")
    # Loopback names too: the operator listener and the SuperExec use the same certificate.
    hosts = list(dict.fromkeys([config.host, "localhost", "127.0.0.1"]))
    certificate = authority.issue_server_certificate(hosts, server_key, now_s=now_s)
    paths.server_certificate.write_text(certificate, encoding="ascii")


def _toml(config: ServerConfig) -> str:
    lines = ["# What this coordinator is. Restart `cohortium-coordinator up` after a change."]
    for name, value in config.model_dump().items():
        if value is None:
            lines.append(f"# {name} = ")
        elif isinstance(value, int):
            lines.append(f"{name} = {value}")
        else:
            # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
            quoted = json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{name} = {quoted}")
    return "\n".join(lines) + "\n"
