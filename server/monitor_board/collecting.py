"""A collector for a board's folder: its keys, its authority, its coordinator."""

from __future__ import annotations

from common.clock import Clock, SystemClock
from common.crypto.keys import SigningKey
from common.errors import ConfigError
from common.ids import BoardId
from common.protocol.enrolment_records import BoardCertificate
from server.monitor_board.collector import Collector
from server.monitor_board.config import BoardConfig, BoardPaths
from server.monitor_board.inbox import Inbox
from server.monitor_board.notices_in import NoticeReader, coordinator_key
from server.monitor_board.opening_keys import OpeningKeys
from server.monitor_board.setup import pinned_authority
from server.monitor_board.storage.database import BoardDatabase
from server.monitor_board.sum_desk import SumDesk


def open_collector(
    paths: BoardPaths,
    config: BoardConfig,
    database: BoardDatabase,
    certificate: BoardCertificate,
    *,
    clock: Clock | None = None,
) -> Collector:
    """Return the collector of one board.

    Raises:
        ConfigError: no roster authority is pinned, or the folder is an aggregator's.
        KeyFileError: a key cannot be read.
    """
    if config.role != "board":  # its receipts say that it opened a share, not that it holds one
        raise ConfigError(
            "an aggregator does not collect",
            expected="a folder with role board",
            arrived=f"role {config.role}",
            todo="run `cohortium-board aggregate`",
        )
    clock = clock or SystemClock()
    signing_key = SigningKey.read(paths.signing_key)

    def make_inbox() -> Inbox:
        return Inbox(
            database,
            OpeningKeys.read(paths.opening_keys),
            board_id=BoardId(config.board_id),
            signing_key=signing_key,
            clock=clock,
        )

    def make_desk() -> SumDesk:
        keys = OpeningKeys.read(paths.opening_keys)
        return SumDesk(database, keys, BoardId(config.board_id), signing_key)

    return Collector(
        database=database,
        reader=NoticeReader(
            database,
            authority=pinned_authority(config),
            coordinator=coordinator_key(certificate.coordinator_verify_key),
        ),
        make_inbox=make_inbox,
        retention_days=config.retention_days,
        clock=clock,
        make_desk=make_desk,
    )
