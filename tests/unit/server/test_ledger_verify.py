"""`cohortium-coordinator ledger verify` compares an export with what the site enrolled and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.clock import FixedClock
from common.command_line import run_command
from common.crypto.keys import SigningKey
from common.ids import SiteId
from common.privacy.ledger import Ledger, MemoryLedgerStore
from common.privacy.spending_limits import Composition
from common.protocol.ledger_export import LedgerExport, write_export
from server.cli import app
from tests.lib.memory_channel import Consortium, make_consortium


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return make_consortium(tmp_path)


def _export(path: Path, site_id: str, key: SigningKey) -> Path:
    ledger = Ledger(MemoryLedgerStore(), FixedClock())
    export = LedgerExport(
        site_id=SiteId(site_id),
        verify_key=key.verify_key,
        exported_at_s=0,
        epsilon_per_study=4.0,
        epsilon_total=8.0,
        delta_total=1e-3,
        composition=Composition.PLANNED,
        entries=ledger.entries(),
    )
    write_export(path, export, ledger.entries_bytes(), key)
    return path


def _verify(consortium: Consortium, file: Path) -> int:
    arguments = ["--home", str(consortium.paths.home), "ledger", "verify", str(file)]
    return run_command(app, name="cohortium-coordinator", arguments=arguments)


def test_an_enrolled_sites_export_is_compared_with_its_enrolled_key(
    consortium: Consortium, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = consortium.site("north").party.signing
    assert _verify(consortium, _export(tmp_path / "own.json", "north", own)) == 0
    assert "It is the key you expect" in capsys.readouterr().out
    other = _export(tmp_path / "other.json", "north", SigningKey.generate())
    assert _verify(consortium, other) == 41
    assert "[L3]" in capsys.readouterr().err


def test_a_site_that_is_not_enrolled_is_verified_but_its_key_is_not_called_known(
    consortium: Consortium, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = _export(tmp_path / "stranger.json", "stranger", SigningKey.generate())
    assert _verify(consortium, stranger) == 0
    assert "Compare it with the site by telephone" in capsys.readouterr().out


def test_an_export_without_the_heads_that_the_site_stated_is_refused(
    consortium: Consortium, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    consortium.run()  # the site stated a head with each release; this export ends before them
    own = consortium.site("north").party.signing
    assert _verify(consortium, _export(tmp_path / "cut.json", "north", own)) == 41
    assert "[L6]" in capsys.readouterr().err
