"""The relay holds no key that opens, and nothing of what the reports say is in it after a run."""

from __future__ import annotations

import ast
import base64
import contextlib
import os
import re
from pathlib import Path

import pytest

from common.crypto.keys import OpeningKey
from common.protocol.monitoring.report_envelope import open_report
from tests.lib.relaying import Relaying, collected, submit

ROOT = Path(__file__).parents[2]
PROCESS = sorted([*(ROOT / "server").glob("relay*.py"), ROOT / "server" / "group_commit.py"])
OPENING = {"OpeningKey", "X25519OpeningKey", "AnyOpeningKey", "open_report", "open_sealed"}
MARKER_BYTES = 64


def test_no_module_of_the_relay_names_anything_that_opens() -> None:
    assert len(PROCESS) >= 8
    for path in PROCESS:
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names |= {alias.name.rpartition(".")[2] for alias in node.names}
        assert not names & OPENING, path.name
        assert "opening_key" not in names, path.name


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="reads a process's memory")
def test_no_plaintext_and_no_opening_key_is_in_store_log_or_memory_after_a_run(
    tmp_path: Path,
) -> None:
    relaying = Relaying(tmp_path, sites=("north",))
    site, board = relaying.sites["north"], relaying.boards["board-a"]
    marker = os.urandom(MARKER_BYTES)
    secrets = [marker, *_key_bytes(relaying, board.opening_key)]
    with relaying.running() as process, relaying.as_site("north") as stub:
        envelopes = [site.seal(relaying.roster, body=marker * 64) for _ in range(20)]
        for envelope in envelopes:
            submit(stub, envelope)
        with relaying.as_board() as collecting:
            found = [envelope for _, envelope in collected(collecting)]
        memory = _memory(process.pid)
    # The board opens them, and there the marker is.
    _, plaintext = open_report(
        found[-1],
        verify_key=site.signing_key.verify_key,
        opening_key=board.opening_key,
    )
    assert marker in plaintext
    # The search finds what is there: the sealed bytes.
    sealed = envelopes[-1][-2000:-1900]
    assert any(sealed in region for region in memory)
    places = {path.name: path.read_bytes() for path in relaying.paths.home.glob("coordinator.db*")}
    assert any(sealed in content for content in places.values())
    places["log"] = relaying.log().encode()
    for number, secret in enumerate(secrets):
        assert not any(secret in region for region in memory), number
        assert not any(secret in content for content in places.values()), number


def _key_bytes(relaying: Relaying, board_key: OpeningKey) -> list[bytes]:
    """Return the private bytes of the board's and the coordinator's opening keys."""
    path = relaying.paths.home / "board-opening.key"
    board_key.write(path)
    texts = [file.read_text().split()[1] for file in (path, relaying.paths.opening_key)]
    path.unlink()
    raws = [base64.b64decode(text) for text in texts]
    return [part for raw in raws for part in (raw[:64], raw[64:])]


def _memory(pid: int) -> list[bytes]:
    """Return every readable and writable region of a process."""
    regions = []
    with (
        (Path("/proc") / str(pid) / "maps").open() as maps,
        (Path("/proc") / str(pid) / "mem").open("rb", 0) as memory,
    ):
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line)
            assert match
            start, stop = int(match[1], 16), int(match[2], 16)
            if not match[3].startswith("rw") or stop - start > 1 << 30:
                continue
            with contextlib.suppress(OSError, ValueError, OverflowError):
                memory.seek(start)
                regions.append(memory.read(stop - start))
    assert sum(map(len, regions)) > 10 << 20
    return regions
