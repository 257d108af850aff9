"""The import contracts hold: common is the floor, rows cannot reach the network."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_import_contract_is_kept() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_boards_contracts_name_every_other_module_of_server() -> None:
    modules = {
        f"server.{path.stem}"
        for path in (ROOT / "server").iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    } - {"server.monitor_board"}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = [
        contract
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["name"].startswith("the board's key")
    ]
    # Both write files, open databases and listen alike; none of it knows a key or a table.
    shared = {"server.durable_file", "server.public_listener", "server.storage"}
    of_coordinator = {f"server.storage.{name}" for name in ("database", "migrations", "tables")}
    libraries = {"flwr", "opacus", "torch"}
    forbidden = set(contracts[0]["forbidden_modules"])
    assert forbidden == (modules - shared) | of_coordinator | libraries
    assert set(contracts[1]["source_modules"]) == modules
