"""`up`: what its services get, which ports it needs, and one site whose trouble stays its own."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.crypto.node_key import node_public_pem
from common.errors import ServiceError
from server.books import open_books
from server.config import CoordinatorPaths, RelayConfig
from server.supervisor import Supervisor, check_free_port, find_program, service_environment
from tests.lib.memory_channel import CONFIG, SITE_IDS, copy_consortium


@pytest.fixture
def paths(tmp_path: Path) -> CoordinatorPaths:
    return copy_consortium(tmp_path)


def test_services_never_call_home(paths: CoordinatorPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "1")
    environment = service_environment(paths)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert Path(environment["FLWR_HOME"]).is_relative_to(paths.home)


def test_a_proxy_of_the_machine_is_not_asked_for_our_own_loopback(
    paths: CoordinatorPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    environment = service_environment(paths)
    assert environment["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"
    monkeypatch.setenv("NO_PROXY", environment["NO_PROXY"])
    assert urllib.request.proxy_bypass("127.0.0.1:18444")
    assert not urllib.request.proxy_bypass("coordinator.example")


def test_flower_reads_the_switches_that_we_set() -> None:
    """The names are Flower's: a renamed one would silently call home."""
    import flwr

    source = "".join(
        path.read_text(encoding="utf-8") for path in Path(flwr.__file__).parent.rglob("*.py")
    )
    for name in (
        "FLWR_TELEMETRY_ENABLED",
        "FLWR_DISABLE_UPDATE_CHECK",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL",
        "FLWR_HOME",
    ):
        assert f'"{name}"' in source, name


def test_a_port_in_use_is_one_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port} cannot be used") as caught:
            check_free_port("127.0.0.1", port)
    assert "another `up`" in caught.value.todo
    check_free_port("127.0.0.1", port)


def test_a_program_that_is_not_installed_is_one_clear_error() -> None:
    assert Path(find_program("flower-superexec")).is_file()
    with pytest.raises(ServiceError, match="is not installed"):
        find_program("no-such-program")


class _Control:
    """Flower's Control API, where one site cannot be registered."""

    def __init__(self, present: tuple[bytes, ...] = (), refused: str = "") -> None:
        self.present = list(present)
        self.refused = refused
        self.registered: list[str] = []

    def nodes(self) -> list[Any]:
        return [SimpleNamespace(public_key_pem=key) for key in self.present]

    def register_node(self, site_id: str, node_public_key: str) -> None:
        if site_id == self.refused:
            raise ServiceError("no", expected="yes", arrived="HTTP 409", todo="look")
        self.registered.append(site_id)
        self.present.append(node_public_pem(node_public_key))


def _supervisor(paths: CoordinatorPaths) -> tuple[Supervisor, list[str]]:
    said: list[str] = []
    return Supervisor(paths, CONFIG, open_books(paths, CONFIG), say=said.append), said


def test_every_site_is_registered_once_suspended_or_not(paths: CoordinatorPaths) -> None:
    supervisor, said = _supervisor(paths)
    supervisor._books.sites.suspend(supervisor._books.sites.all_sites()[0].site_id)
    control: Any = _Control()
    supervisor._sync_nodes(control)
    supervisor._sync_nodes(control)
    assert control.registered == list(SITE_IDS)
    assert said == [f"site {name} may connect." for name in SITE_IDS]


def test_one_sites_trouble_keeps_no_other_out_and_is_told_once(paths: CoordinatorPaths) -> None:
    supervisor, said = _supervisor(paths)
    control: Any = _Control(refused=SITE_IDS[1])
    for _ in range(3):
        supervisor._sync_nodes(control)
    assert control.registered == [name for name in SITE_IDS if name != SITE_IDS[1]]
    assert sum("cannot be registered: HTTP 409" in line for line in said) == 1


def test_the_relay_is_a_child_exactly_when_it_is_configured(paths: CoordinatorPaths) -> None:
    books, relay = open_books(paths, CONFIG), RelayConfig(port=18445)
    for config, expected in (
        (CONFIG, ["superlink", "superexec"]),
        (CONFIG.model_copy(update={"relay": relay}), ["superlink", "superexec", "relay"]),
    ):
        supervisor = Supervisor(paths, config, books, say=print)
        assert [service.name for service in supervisor._services] == expected
