"""Open a site's folder: keys, records and the coordinator that it pinned."""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import Clock
from common.crypto.key_files import read_secret
from common.crypto.keys import OpeningKey, SealingKey, SigningKey, VerifyKey
from common.privacy.ledger import Ledger
from common.protocol.enrolment import EnrolmentRecord, read_enrolment
from site_client.approvals import Approvals
from site_client.config import SitePaths
from site_client.enrolment import check_joined
from site_client.feature_use import FeaturePins
from site_client.release.ledger_file import SqliteLedgerStore
from site_client.release.release_log import ReleaseLog
from site_client.scaling_pin import ScalingPin
from site_client.site_database import SiteDatabase
from site_client.source_pin import SourcePin
from site_client.tasks import SiteKeys, SiteRecords


@dataclass(frozen=True)
class OpenSite:
    """One site's keys, records and enrolment."""

    keys: SiteKeys
    records: SiteRecords
    enrolment: EnrolmentRecord
    database: SiteDatabase


def open_site(paths: SitePaths, *, clock: Clock) -> OpenSite:
    """Open a site that has joined; raises `EnrolmentError`, `KeyFileError` or `LedgerError`."""
    check_joined(paths)
    enrolment = read_enrolment(paths.enrolment)
    signing = SigningKey.read(paths.signing_key)
    keys = SiteKeys(
        signing=signing,
        opening=OpeningKey.read(paths.opening_key),
        salt=read_secret(paths.salt),
        coordinator_verify=VerifyKey.from_text(enrolment.coordinator_verify_key),
        coordinator_sealing=SealingKey.from_text(enrolment.coordinator_sealing_key),
    )
    records, database = open_records(paths, clock=clock, key=signing.verify_key)
    return OpenSite(keys=keys, records=records, enrolment=enrolment, database=database)


def open_records(
    paths: SitePaths, *, clock: Clock, key: VerifyKey
) -> tuple[SiteRecords, SiteDatabase]:
    """Open ledger, release log and approvals; raises `LedgerError`."""
    database = SiteDatabase(paths.database)
    records = SiteRecords(
        ledger=Ledger(SqliteLedgerStore(database), clock),
        log=ReleaseLog(database, clock),
        approvals=Approvals(database, clock, key),
        scaling_pin=ScalingPin(database),
        source_pin=SourcePin(database),
        feature_pins=FeaturePins(database),
    )
    return records, database
