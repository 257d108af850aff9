"""Reading a source and making a plan's rows opens no connection, whatever the format."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import duckdb
import pytest

from site_client.sources.local_database import open_local
from tests.lib.federation import has_network_namespaces
from tests.lib.six_sources import SOURCES

ROOT = Path(__file__).parents[2]
BUILD = [sys.executable, "-m", "tests.lib.build_without_network"]
ASKS = (
    "INSTALL httpfs FROM '{url}'",
    "FORCE INSTALL httpfs FROM '{url}'",
    "INSTALL '{url}/httpfs.duckdb_extension'",
    "LOAD '{url}/httpfs.duckdb_extension'",
    "UPDATE EXTENSIONS",
    "INSTALL httpfs",
    "INSTALL httpfs FROM core",
    "INSTALL postgres FROM core_nightly",
    "INSTALL h3 FROM community",
    "ATTACH '{url}/x.duckdb' AS x",
    "SELECT * FROM read_csv('{url}/x.csv')",
    "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
    "COPY (SELECT 1) TO '{url}/x.csv'",
)


def test_a_build_from_any_format_opens_no_socket(tmp_path: Path) -> None:
    """By Python's audit hook, and where the system lets us, in a namespace without interfaces."""
    command = [*BUILD, str(tmp_path)]
    if has_network_namespaces():
        command = ["unshare", "--net", *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "".join(f"{name}: 101 102 103\n" for name in SOURCES)


def test_the_audit_hook_refuses_a_connection() -> None:
    script = (
        "import sys; from tests.lib import build_without_network as b; "
        "sys.addaudithook(b._refuse); import socket; "
        "socket.create_connection(('127.0.0.1', 9))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "RuntimeError: socket." in done.stderr


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """Return the address of a server and what it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_statement_makes_duckdb_ask_the_network(
    asked: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, paths = asked
    with open_local(scratch=tmp_path) as connection:
        for statement in ASKS:
            with pytest.raises(duckdb.Error) as caught:
                connection.execute(statement.format(url=url))
            assert "download" not in str(caught.value).lower(), statement
        for setting in ("custom_extension_repository", "extension_directory"):
            with pytest.raises(duckdb.InvalidInputException):
                connection.execute(f"SET {setting} = '{tmp_path}'")
    assert paths == []


def test_only_the_reader_of_postgresql_imports_a_library_that_connects() -> None:
    """A second look beside import-linter's contract: also imports inside functions, by any name."""
    connecting = {"psycopg", "socket", "ssl", "http", "urllib", "asyncio", "httpx", "grpc", "flwr"}
    calls = {"__import__", "import_module", "eval", "exec"}
    for part in ("sources", "features"):
        for path in (ROOT / "site_client" / part).rglob("*.py"):
            found: set[str] = set()
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {item.name.partition(".")[0] for item in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add((node.module or "").partition(".")[0])
                elif isinstance(node, ast.Call):
                    called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    assert called not in calls, path
            allowed = {"psycopg"} if path.name == "omop_postgresql.py" else set()
            assert found & connecting <= allowed, path
