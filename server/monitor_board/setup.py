"""Make a board: its folder, keys, card and store; and its way to the relay."""

from __future__ import annotations

from pathlib import Path

from common.crypto.certificates import (
    TlsKey,
    board_name,
    certifies,
    make_certificate_request,
    tls_fingerprint,
)
from common.crypto.keys import HYBRID_SUITE, SigningKey, VerifyKey, is_same_fingerprint
from common.errors import ConfigError, EnrolmentError
from common.protocol.board_certificate import read_board_certificate
from common.protocol.enrolment_records import BoardCertificate
from common.whole_file import write_whole
from server.durable_file import write_durably
from server.monitor_board.cards import write_board_card
from server.monitor_board.config import BoardConfig, BoardPaths, config_text, read_config
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.storage.database import BoardDatabase


def found_board(paths: BoardPaths, config: BoardConfig, *, suite: int = HYBRID_SUITE) -> str:
    """Make everything that a new board needs and return its signing key's fingerprint.

    Raises:
        ConfigError: when the folder already holds a board.
        KeyFileError: when a key cannot be written.
    """
    if paths.config.exists():
        raise ConfigError(
            "a board is never made over another",
            expected=f"a folder {paths.home} without board.toml",
            arrived="one that already holds a board",
            todo="choose another folder with --home",
        )
    try:
        for folder in (paths.home, paths.keys, paths.opening_keys):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "the board's folder cannot be made",
            expected=f"a folder {paths.home} that we may write",
            arrived=error.strerror or type(error).__name__,
            todo="choose another folder with --home",
        ) from None
    # What an interrupted `init` made is kept: without board.toml nobody has used it.
    if not paths.signing_key.exists():
        SigningKey.generate().write(paths.signing_key)
    if not OpeningKeys.read(paths.opening_keys).keys:
        OpeningKeys.make(paths.opening_keys, suite=suite)
    database = BoardDatabase.of(paths, config)
    database.migrate()
    database.close()
    fingerprint = write_card(paths, config)
    # Written last: a folder with board.toml is a whole board.
    write_durably(paths.config, config_text(config).encode())
    return fingerprint


def write_card(paths: BoardPaths, config: BoardConfig, *, opening_key: str = "") -> str:
    """Write the board's card for the roster and return its signing key's fingerprint.

    Args:
        opening_key: fingerprint of the key that reports shall be sealed to; may be empty while
            there is only one.
    """
    keys = OpeningKeys.read(paths.opening_keys).keys
    key = keys[opening_key] if opening_key else next(iter(keys.values()))
    signing = SigningKey.read(paths.signing_key)
    write_board_card(
        paths.card,
        board_id=config.board_id,
        role=config.role,
        sealing_key=key.sealing_key,
        key=signing,
    )
    return signing.fingerprint


def rotate_opening_key(paths: BoardPaths, config: BoardConfig, *, suite: int | None = None) -> str:
    """Make the next opening key and a card with it; return the key's fingerprint.

    The key in use stays: reports are sealed to it until a roster names the next one.

    Args:
        suite: of the next key; None: as before.
    """
    in_use = next(iter(OpeningKeys.read(paths.opening_keys).keys.values()))
    made = OpeningKeys.make(paths.opening_keys, suite=suite or in_use.suite)
    write_card(paths, config, opening_key=made.fingerprint)
    return made.fingerprint


def trust_authority(paths: BoardPaths, authority: VerifyKey, *, fingerprint: str) -> None:
    """Pin the roster authority's key in board.toml.

    Args:
        fingerprint: of the key, as the authority's people read it on the telephone.

    Raises:
        EnrolmentError: the key has another fingerprint, or another key is pinned already.
    """
    config = read_config(paths)
    if not is_same_fingerprint(authority.fingerprint, fingerprint):
        raise EnrolmentError(
            "a roster authority is refused",
            expected=f"the key with the fingerprint you were told: {fingerprint}",
            arrived=authority.fingerprint,
            todo="call the consortium on a number you know: somebody may have replaced the file",
        )
    if config.authority not in (None, authority.to_text()):
        raise EnrolmentError(
            "a roster authority is pinned already",
            expected=f"the key {VerifyKey.from_text(str(config.authority)).fingerprint}",
            arrived=authority.fingerprint,
            todo="a consortium with another authority needs another board: `init` elsewhere",
        )
    changed = config.model_copy(update={"authority": authority.to_text()})
    write_durably(paths.config, config_text(changed).encode())


def make_request(paths: BoardPaths, config: BoardConfig, out: Path) -> str:
    """Write the certificate request for the coordinator; return its key's fingerprint."""
    if not paths.tls_key.exists():
        TlsKey.generate().write(paths.tls_key)
    request = make_certificate_request(TlsKey.read(paths.tls_key), board_name(config.board_id))
    write_durably(out, request.encode("ascii"))
    return tls_fingerprint(request)


def take_certificate(
    paths: BoardPaths, config: BoardConfig, answer: Path, *, fingerprint: str
) -> BoardCertificate:
    """Keep the coordinator's answer.

    Args:
        answer: the file that `cohortium-coordinator board-certificate` wrote.
        fingerprint: of the coordinator's key, as it read it on the telephone.

    Raises:
        EnrolmentError: another coordinator, board or key, or N9 or N10.
    """
    record = read_board_certificate(answer)
    found = VerifyKey.from_text(record.coordinator_verify_key).fingerprint
    is_ours = record.board_id == config.board_id and certifies(
        record.certificate, TlsKey.read(paths.tls_key)
    )
    if not is_same_fingerprint(found, fingerprint) or not is_ours:
        raise EnrolmentError(
            "the coordinator's answer is refused",
            expected=f"coordinator {fingerprint}, and a certificate for {config.board_id}'s key",
            arrived=f"coordinator {found}, board {record.board_id}",
            todo="compare both on the telephone, and ask for the file again",
        )
    write_whole(paths.certificate, answer.read_bytes())
    return record


def read_certificate(paths: BoardPaths) -> BoardCertificate:
    """Return the coordinator's answer; raises `ConfigError` before there is one."""
    if not paths.certificate.exists():
        raise ConfigError(
            "this board has no certificate for the relay",
            expected=f"a file {paths.certificate}",
            arrived="none",
            todo="run `cohortium-board certificate request`, then `certificate take`",
        )
    return read_board_certificate(paths.certificate)


def pinned_authority(config: BoardConfig) -> VerifyKey:
    """Return the roster authority's key; raises `ConfigError` before it is pinned."""
    if config.authority is None:
        raise ConfigError(
            "this board trusts no roster authority yet",
            expected="`authority` in board.toml",
            arrived="none",
            todo="run `cohortium-board trust ROSTER --fingerprint ...`",
        )
    return VerifyKey.from_text(config.authority)
