"""An exported ledger: read back whole, and each way to change it refused with its number."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.canonical import canonical_bytes, digest_record
from common.clock import FixedClock
from common.crypto.keys import SigningKey
from common.crypto.signing import sign
from common.errors import LedgerError
from common.ids import Digest, ReleaseId, SiteId, StudyId
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.privacy.ledger_entry import Commitment
from common.privacy.mechanism import DiscreteGaussianCounts, DpSgdSteps
from common.privacy.spending_limits import Composition, SpendingLimits
from common.protocol.ledger_export import LedgerExport, read_export, write_export

KEY, OTHER_KEY = SigningKey.generate(), SigningKey.generate()
TRAIN, COUNTS = DpSgdSteps(4.4493, 0.5, 5), DiscreteGaussianCounts(6.0, 1)
PLAN = Commitment(StudyId("stroke"), Digest("a1" * 32), 3.0, 1e-4, ((TRAIN, 5), (COUNTS, 1)))
LIMITS = SpendingLimits(4.0, 1e-4, 8.0, 1e-3)


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    made = Ledger(MemoryLedgerStore(), FixedClock(1_795_000_000))
    made.commit(PLAN, LIMITS)
    for number in (1, 2):
        release_id = ReleaseId(f"{number:064x}")
        made.reserve(
            release_id,
            study_id=PLAN.study_id,
            round_number=number,
            mechanisms=(TRAIN,),
            limits=LIMITS,
            plan_digest=PLAN.plan_digest,
        )
        made.record_released(release_id, Digest(f"{number:064x}"))
    return made


@pytest.fixture
def file(ledger: Ledger, tmp_path: Path) -> Path:
    path = tmp_path / "ledger.json"
    exported = LedgerExport(
        site_id=SiteId("northfield"),
        verify_key=KEY.verify_key,
        exported_at_s=1_795_000_100,
        epsilon_per_study=4.0,
        epsilon_total=8.0,
        delta_total=1e-3,
        composition=Composition.ADAPTIVE,
        entries=ledger.entries(),
    )
    write_export(path, exported, ledger.entries_bytes(), KEY)
    return path


def _refused(number: str, call: Callable[[], object]) -> None:
    with pytest.raises(LedgerError) as caught:
        call()
    assert caught.value.number == number, caught.value
    assert caught.value.exit_code == 41


def _change(file: Path, change: Callable[[dict[str, Any]], object], key: SigningKey | None) -> None:
    """Change the record; sign it anew with a key, or leave the old signature."""
    outer = json.loads(file.read_text())
    change(outer["record"])
    if key is not None:
        outer["record"]["verify_key"] = key.verify_key.to_text()
        signature = sign(key, "ledger-export", canonical_bytes(outer["record"]))
        outer["signature"] = base64.b64encode(signature).decode()
    file.write_text(json.dumps(outer))


def test_an_export_reads_back_as_the_ledger_it_was(file: Path, ledger: Ledger) -> None:
    export = read_export(file)
    assert export.entries == ledger.entries()
    assert export.head == ledger.head()
    assert (export.site_id, export.composition) == ("northfield", Composition.ADAPTIVE)
    assert (export.epsilon_per_study, export.epsilon_total, export.delta_total) == (4.0, 8.0, 1e-3)
    heads = [entry.digest for entry in ledger.entries()]
    again = read_export(
        file,
        verify_key=KEY.verify_key,
        fingerprint=KEY.fingerprint.upper(),
        must_contain=heads,
    )
    assert again == export


def test_an_empty_ledger_is_exported_and_verifies(tmp_path: Path) -> None:
    path = tmp_path / "empty.json"
    empty = LedgerExport(
        SiteId("a"), KEY.verify_key, 0, 1.0, 1.0, 1e-3, Composition.PLANNED, entries=()
    )
    write_export(path, empty, (), KEY)
    assert read_export(path) == empty


def test_every_changed_byte_is_refused_with_one_error(file: Path) -> None:
    content = file.read_bytes()
    original = read_export(file)
    for index in range(0, len(content), 11):
        changed = bytearray(content)
        changed[index] ^= 1
        file.write_bytes(bytes(changed))
        try:
            again = read_export(file)
        except LedgerError as error:
            assert error.number in ("L1", "L2")
        else:  # a space between two fields says nothing
            assert json.loads(bytes(changed)) == json.loads(content)
            assert again == original


def test_l1_what_is_no_export_is_refused(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.json"
    _refused("L1", lambda: read_export(other))
    text = file.read_text()
    for content in (
        "",
        "[]",
        "{}",
        "null",
        '{"record": 1}',
        text[:-3],
        text.replace("1", "1.0", 1),
    ):
        other.write_text(content)
        _refused("L1", lambda: read_export(other))
    for change in (
        lambda record: record.update(more=1),
        lambda record: record.pop("head"),
        lambda record: record.update(version=True),
        lambda record: record.update(delta_total="0.0010"),
        lambda record: record.update(site_id="North Field"),
        lambda record: record.update(entries=["\ud800"]),
        lambda record: record.update(verify_key="AAAA"),
        lambda record: record.update(exported_at_s=2**40),
    ):
        other.write_text(text)
        _change(other, change, None)
        _refused("L1", lambda: read_export(other))


def test_l2_a_record_that_was_changed_after_signing_is_refused(file: Path) -> None:
    _change(file, lambda record: record.update(epsilon_total="9.0"), None)
    _refused("L2", lambda: read_export(file))


def test_l2_a_signature_made_for_another_use_is_refused(file: Path) -> None:
    outer = json.loads(file.read_text())
    signature = sign(KEY, "enrolment-request", canonical_bytes(outer["record"]))
    outer["signature"] = base64.b64encode(signature).decode()
    file.write_text(json.dumps(outer))
    _refused("L2", lambda: read_export(file))


def test_l3_a_ledger_signed_by_another_key_is_refused_where_the_key_is_known(file: Path) -> None:
    _change(file, lambda record: None, OTHER_KEY)
    read_export(file)  # it is whole; whose it is, only the key can tell
    _refused("L3", lambda: read_export(file, verify_key=KEY.verify_key))
    _refused("L3", lambda: read_export(file, fingerprint=KEY.fingerprint))


@pytest.mark.parametrize("place", range(5))
def test_l4_a_removed_repeated_or_swapped_entry_is_refused_though_signed_anew(
    file: Path, place: int
) -> None:
    text = file.read_text()
    changes: list[Callable[[list[str]], object]] = [
        lambda entries: entries.insert(place, entries[place]),
        lambda entries: entries.__setitem__(place, entries[place].replace("4.4493", "9.4493")),
        lambda entries: entries.append("{}"),
    ]
    if place < 4:
        changes.append(lambda entries: entries.pop(place))
        changes.append(lambda entries: entries.insert(place, entries.pop(place + 1)))
    for change in changes:
        file.write_text(text)
        before = json.loads(text)["record"]["entries"]
        _change(file, lambda record, change=change: change(record["entries"]), KEY)
        if json.loads(file.read_text())["record"]["entries"] != before:
            _refused("L4", lambda: read_export(file))


def test_l4_a_name_that_would_move_the_cursor_of_a_terminal_is_refused(file: Path) -> None:
    def rename(record: dict[str, Any]) -> None:
        body = json.loads(record["entries"][0])
        del body["digest"]
        body["study_id"] = "stroke\x1b[2J"
        entry = {**body, "digest": digest_record("privacy-ledger-entry", body)}
        record["entries"] = [canonical_bytes(entry).decode()]
        record["head"] = entry["digest"]

    _change(file, rename, KEY)
    _refused("L4", lambda: read_export(file))


def test_l5_a_chain_that_ends_before_the_named_head_is_refused(file: Path) -> None:
    _change(file, lambda record: record["entries"].pop(), KEY)
    _refused("L5", lambda: read_export(file))


def test_l6_newest_entries_left_out_are_noticed_by_a_head_stated_earlier(
    file: Path, ledger: Ledger
) -> None:
    def cut(record: dict[str, Any]) -> None:
        record["entries"].pop()
        record["head"] = ledger.entries()[-2].digest

    _change(file, cut, KEY)
    read_export(file)
    _refused("L6", lambda: read_export(file, must_contain=[ledger.head()]))


def test_a_file_that_cannot_be_written_is_one_clear_error(ledger: Ledger, tmp_path: Path) -> None:
    empty = LedgerExport(
        SiteId("a"), KEY.verify_key, 0, 1.0, 1.0, 1e-3, Composition.PLANNED, entries=()
    )
    with pytest.raises(LedgerError, match="exported"):
        write_export(tmp_path / "no" / "folder", empty, (), KEY)
