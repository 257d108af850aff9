"""Tell sites which model to use and report about: a signed notice, the parameters beside it."""

from __future__ import annotations

from common.clock import SystemClock
from common.crypto.keys import SigningKey
from common.ids import StudyId
from common.protocol.monitoring.notice_checks import COORDINATOR
from common.protocol.monitoring.notice_codec import read_notice, sign_notice
from common.protocol.monitoring.notices import Promotion
from common.protocol.monitoring.signed_notice import NoticeKind
from server.books import open_books
from server.config import CoordinatorPaths, ServerConfig
from server.registry.store import ModelVersion
from server.relay_notices import admit_promotion
from server.relay_store import RelayStore
from server.storage.database import Database


def announce(
    store: RelayStore, model: ModelVersion, parameters: bytes, *, key: SigningKey, now_s: int
) -> Promotion:
    """Give every member a promotion of this model; the newest one again changes nothing.

    Args:
        store: the relay's; it is written directly, from the coordinator's own machine.
        model: a registered version.
        parameters: its bytes.
        key: the coordinator's.
        now_s: seconds since 1970.

    Raises:
        ProtocolError: T5, when the parameters are not the version's.
        StoreError: when the store cannot be written.
    """
    newest = _newest(store, model.study_id)
    if newest is not None and newest.model_version == model.version:
        return newest
    promotion = Promotion(
        study_id=model.study_id,
        plan_digest=model.plan_digest,
        model_version=model.version,
        sequence=1 if newest is None else newest.sequence + 1,
        at_s=now_s,
    )
    notice = admit_promotion(
        sign_notice(promotion, {COORDINATOR: key}), parameters, coordinator=key.verify_key
    )
    store.append_notices([notice])
    return promotion


def announce_version(
    paths: CoordinatorPaths, config: ServerConfig, version: str
) -> Promotion | None:
    """Let the coordinator's relay carry a registered version; None where there is no relay.

    Raises:
        RegistryError: no such version.
        StoreError, KeyFileError: the store cannot be written, or the coordinator's key not read.
    """
    if config.relay is None:
        return None
    books, clock = open_books(paths, config), SystemClock()
    model = books.registry.find(version)
    return announce(
        RelayStore(Database.of(paths, config), clock),
        model,
        books.rounds.read_parameters(model.version),
        key=SigningKey.read(paths.signing_key),
        now_s=clock.now_s(),
    )


def _newest(store: RelayStore, study_id: StudyId) -> Promotion | None:
    found = [
        content
        for content in (
            read_notice(data).content for data in store.notices_of(NoticeKind.PROMOTION)
        )
        if isinstance(content, Promotion) and content.study_id == study_id
    ]
    return found[-1] if found else None
