"""Make a consortium: certificate authority, server certificate, keys, secrets and store."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from common.clock import Clock
from common.crypto.certificates import Authority, TlsKey, expires_at_s
from common.crypto.key_files import write_secret
from common.crypto.keys import OpeningKey, SigningKey
from common.errors import ConfigError
from server.config import CoordinatorPaths, ServerConfig
from server.durable_file import write_durably
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
    # What an interrupted `init` made is kept: without server.toml nobody has used it.
    if not paths.signing_key.exists():
        SigningKey.generate().write(paths.signing_key)
    if not paths.opening_key.exists():
        OpeningKey.generate().write(paths.opening_key)
    if not paths.operator_token.exists():
        write_secret(paths.operator_token, secrets.token_hex(32).encode("ascii"))
    if not paths.superexec_secret.exists():
        write_secret(paths.superexec_secret, secrets.token_hex(_SECRET_BYTES).encode("ascii"))
    _make_certificates(paths, config, now_s=clock.now_s())
    database = Database.of(paths, config)
    database.migrate()
    database.engine.dispose()  # its files are whole now, and may be copied
    # Written last: a folder with server.toml is a whole coordinator.
    write_durably(paths.config, _toml(config).encode())
    return SigningKey.read(paths.signing_key).fingerprint


def renew_server_certificate(paths: CoordinatorPaths, config: ServerConfig, *, clock: Clock) -> int:
    """Issue the server's certificate again, for the host in server.toml; return when it ends.

    The key and the authority stay, so no site has to do anything.

    Raises:
        KeyFileError, ConfigError: when the authority cannot be used or `host` is no host.
    """
    authority = Authority.from_pem(
        paths.ca_certificate.read_text(encoding="ascii"), TlsKey.read(paths.ca_key)
    )
    return _issue(paths, config, authority, now_s=clock.now_s())


def server_certificate_ends_at_s(paths: CoordinatorPaths) -> int:
    """Return when the server's certificate ends, in seconds since 1970."""
    return expires_at_s(paths.server_certificate.read_text(encoding="ascii"))


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
    for path in (paths.ca_key, paths.server_key):
        if not path.exists():
            TlsKey.generate().write(path)
    authority = Authority.make(
        f"{config.consortium} authority", TlsKey.read(paths.ca_key), now_s=now_s
    )
    write_durably(paths.ca_certificate, authority.certificate_pem.encode("ascii"))
    _issue(paths, config, authority, now_s=now_s)


def _issue(
    paths: CoordinatorPaths, config: ServerConfig, authority: Authority, *, now_s: int
) -> int:
    # Loopback names too: the operator listener and the SuperExec use the same certificate.
    hosts = list(dict.fromkeys([config.host, "localhost", "127.0.0.1"]))
    key = TlsKey.read(paths.server_key)
    certificate = authority.issue_server_certificate(hosts, key, now_s=now_s)
    write_durably(paths.server_certificate, certificate.encode("ascii"))
    return expires_at_s(certificate)


def _toml(config: ServerConfig) -> str:
    document = config.model_dump()
    relay = document.pop("relay")
    lines = ["# What this coordinator is. Restart `cohortium-coordinator up` after a change."]
    lines += _lines(document)
    if relay is None:
        lines += ["", "# The relay of monitoring reports; docs/operating-a-coordinator.md"]
        lines += ["# [relay]", "# port = "]
    else:
        lines += ["", "[relay]", *_lines(relay)]
    return "\n".join(lines) + "\n"


def _lines(table: Mapping[str, object]) -> list[str]:
    lines = []
    for name, value in table.items():
        if value is None:
            lines.append(f"# {name} = ")
        elif isinstance(value, int):
            lines.append(f"{name} = {value}")
        else:
            # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
            quoted = json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{name} = {quoted}")
    return lines
