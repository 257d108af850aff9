"""A site's whole ledger in one signed file that anybody can verify without the site.

(L1) the file has the one form of an export, within its bound
(L2) it is signed by the key in it
(L3) that key is the site's, where the reader knows the site's key or fingerprint
(L4) its entries are an unbroken chain
(L5) the chain ends with the head that the export names
(L6) it contains every head that the site stated to the reader earlier

Every failure is one `LedgerError` with its number. A signature shows who says so and that nothing
was changed since; only L6 shows that the newest entries were not left out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common import limits
from common.canonical import (
    Canonical,
    canonical_bytes,
    canonical_float,
    without_duplicates,
)
from common.crypto.keys import SigningKey, VerifyKey, is_same_fingerprint
from common.crypto.signing import sign, verify
from common.errors import AccountingError, CohortiumError, LedgerError, SignatureError
from common.ids import Digest, SiteId, parse_site_id
from common.privacy.ledger_chain import check_contains, head_of, parse_chain
from common.privacy.ledger_entry import LedgerEntry
from common.privacy.mechanism_record import positive_real
from common.privacy.spending_limits import Composition
from common.whole_file import write_whole

_LABEL: Final = "ledger-export"
_YEAR_9999_S: Final = 253_402_300_799  # later times have no calendar date
_Real = Annotated[str, Field(min_length=1, max_length=30)]


@dataclass(frozen=True)
class LedgerExport:
    """What a site says its ledger is.

    Args:
        site_id: the site.
        verify_key: checks its signature; whose key it is, L3 says.
        exported_at_s: seconds since 1970, the site's clock.
        epsilon_per_study, epsilon_total, delta_total, composition: its limits at that time.
        entries: the verified chain.
    """

    site_id: SiteId
    verify_key: VerifyKey
    exported_at_s: int
    epsilon_per_study: float
    epsilon_total: float
    delta_total: float
    composition: Composition
    entries: tuple[LedgerEntry, ...]

    @property
    def head(self) -> Digest:
        """Digest of the newest entry."""
        return head_of(self.entries)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    version: Literal[1]
    site_id: str
    verify_key: Annotated[str, Field(max_length=100)]
    exported_at_s: Annotated[int, Field(ge=0, le=_YEAR_9999_S)]
    epsilon_per_study: _Real
    epsilon_total: _Real
    delta_total: _Real
    composition: Literal["planned", "adaptive"]
    head: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    entries: list[str]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    record: _Record
    signature: Annotated[str, Field(min_length=88, max_length=88)]


def write_export(path: Path, export: LedgerExport, raw: Iterable[bytes], key: SigningKey) -> None:
    """Write an export signed by the site's key, whole or not at all.

    Args:
        path: of the file.
        export: what it says; `entries` are those of `raw`.
        raw: the bytes of the entries as the ledger keeps them.
        key: the site's.

    Raises:
        LedgerError: when the file cannot be written or would be too large.
    """
    record: dict[str, Canonical] = {
        "version": 1,
        "site_id": export.site_id,
        "verify_key": export.verify_key.to_text(),
        "exported_at_s": export.exported_at_s,
        "epsilon_per_study": canonical_float(export.epsilon_per_study),
        "epsilon_total": canonical_float(export.epsilon_total),
        "delta_total": canonical_float(export.delta_total),
        "composition": export.composition.value,
        "head": export.head,
        "entries": [item.decode("utf-8") for item in raw],
    }
    signature = sign(key, _LABEL, canonical_bytes(record))
    outer = {"record": record, "signature": base64.b64encode(signature).decode()}
    content = (json.dumps(outer, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
    if len(content) > limits.LEDGER_EXPORT_BYTES_MAX:
        raise _not_written(path, f"{len(content)} bytes; {limits.LEDGER_EXPORT_BYTES_MAX} may be")
    try:
        write_whole(path, content)
    except OSError as error:
        raise _not_written(path, error.strerror or type(error).__name__) from None


def read_export(
    path: Path,
    *,
    verify_key: VerifyKey | None = None,
    fingerprint: str = "",
    must_contain: Iterable[Digest] = (),
) -> LedgerExport:
    """Read an export and run L1 to L6.

    Args:
        path: of the file.
        verify_key: the site's, where the reader has enrolled the site.
        fingerprint: of the site's key, as read on the telephone; spaces do not matter.
        must_contain: heads that the site stated earlier.

    Raises:
        LedgerError: with the number of the check that failed.
    """
    record, signature = _read(path)
    try:
        site_id, key = parse_site_id(record.site_id), VerifyKey.from_text(record.verify_key)
        numbers = (record.epsilon_per_study, record.epsilon_total, record.delta_total)
        epsilon_per_study, epsilon_total, delta_total = (positive_real(text) for text in numbers)
    except CohortiumError:
        raise _refuse("L1", "the one form of an export", "another form") from None
    _check_signature(record, signature, key)
    _check_key(key, verify_key, fingerprint)
    try:
        entries = parse_chain([item.encode("utf-8") for item in record.entries])
    except (LedgerError, AccountingError) as error:
        raise _refuse("L4", "an unbroken chain of entries", f"{error}".splitlines()[0]) from None
    if head_of(entries) != record.head:
        raise _refuse("L5", f"entries up to {record.head[:12]}", "a chain that ends otherwise")
    try:
        check_contains(entries, must_contain)
    except LedgerError as error:
        raise _refuse("L6", "every head that the site stated earlier", error.arrived) from None
    return LedgerExport(
        site_id=site_id,
        verify_key=key,
        exported_at_s=record.exported_at_s,
        epsilon_per_study=epsilon_per_study,
        epsilon_total=epsilon_total,
        delta_total=delta_total,
        composition=Composition(record.composition),
        entries=entries,
    )


def _read(path: Path) -> tuple[_Record, bytes]:
    try:
        with path.open("rb") as stream:
            content = stream.read(limits.LEDGER_EXPORT_BYTES_MAX + 1)
    except OSError as error:
        reason = error.strerror or "an error"
        raise _refuse("L1", f"a readable file {path}", reason) from None
    if len(content) > limits.LEDGER_EXPORT_BYTES_MAX:
        raise _refuse("L1", f"at most {limits.LEDGER_EXPORT_BYTES_MAX} bytes", "more")
    try:
        outer = json.loads(content, object_pairs_hook=without_duplicates)
        file = _File.model_validate(outer)
        signature = base64.b64decode(file.signature.encode("ascii"), validate=True)
        # The signature covers the record, so the record must be all that the file says.
        is_same = canonical_bytes(file.record.model_dump()) == canonical_bytes(outer["record"])
    except (ValueError, ValidationError, RecursionError, CohortiumError):
        is_same = False
    if not is_same or base64.b64encode(signature).decode() != file.signature:
        raise _refuse("L1", "the one form of an export", "another form")
    return file.record, signature


def _check_signature(record: _Record, signature: bytes, key: VerifyKey) -> None:
    try:
        verify(key, _LABEL, signature, canonical_bytes(record.model_dump()))
    except SignatureError:
        raise _refuse("L2", f"a signature by key {key.fingerprint}", "another") from None


def _check_key(key: VerifyKey, verify_key: VerifyKey | None, fingerprint: str) -> None:
    if verify_key is not None and verify_key != key:
        raise _refuse("L3", f"the enrolled key {verify_key.fingerprint}", key.fingerprint)
    if fingerprint and not is_same_fingerprint(key.fingerprint, fingerprint):
        raise _refuse("L3", f"the key with fingerprint {fingerprint[:60]}", key.fingerprint)


def _refuse(number: str, expected: str, arrived: str) -> LedgerError:
    return LedgerError(
        "the exported ledger does not verify",
        expected=expected,
        arrived=arrived,
        todo="do not rely on this file; ask the site to export its ledger again",
        number=number,
    )


def _not_written(path: Path, arrived: str) -> LedgerError:
    return LedgerError(
        "the ledger cannot be exported",
        expected=f"a writable file {path} within its bound",
        arrived=arrived,
        todo="choose another folder, or free disk space",
    )
