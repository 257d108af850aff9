"""The compose files give the agent the data and no network, the courier the network and no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
FILES = {path.name: yaml.safe_load(path.read_text()) for path in sorted(DOCKER.glob("compose*"))}
SERVICES = [
    pytest.param(name, service, id=f"{file} {name}")
    for file, document in FILES.items()
    for name, service in document["services"].items()
]


def test_there_is_a_file_for_a_federation_a_hospital_and_a_board() -> None:
    assert set(FILES) == {"compose.yaml", "compose.site.yaml", "compose.board.yaml"}


def test_a_board_collects_and_shows_in_two_services_with_one_folder_and_no_other() -> None:
    services = FILES["compose.board.yaml"]["services"]
    assert set(services) == {"board", "board-web"}
    for service in services.values():
        [mount] = service["volumes"]
        assert mount.endswith(":/var/lib/cohortium")
    words = services["board-web"]["command"]
    assert words[:2] == ["cohortium-board", "serve"]
    assert any(word.startswith("--certificate=") for word in words)
    assert services["board-web"]["healthcheck"]["test"][-1] == "web"
    [of_federation] = FILES["compose.yaml"]["services"]["board"]["volumes"]
    assert of_federation == "${FEDERATION}/board:/var/lib/cohortium"


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_every_service_is_read_only_without_rights_and_not_root(
    name: str, service: dict[str, Any]
) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith(("0", "root"))
    assert service["image"] == "cohortium-" + name.partition("-")[0]
    assert "ports" not in service


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_data_and_network_never_meet(name: str, service: dict[str, Any]) -> None:
    mounts = [str(volume) for volume in service["volumes"]]
    if name.startswith("agent"):
        assert service["network_mode"] == "none"
        assert "networks" not in service
        assert any(mount.endswith(":/data:ro") for mount in mounts)
    else:
        assert not any("/data" in mount for mount in mounts)
    if name.startswith("courier"):
        targets = {mount.rsplit(":", 1)[1] for mount in mounts}
        assert targets == {"/var/lib/cohortium/courier", "/var/lib/cohortium/run"}


@pytest.mark.parametrize("path", sorted(DOCKER.glob("*.Dockerfile")), ids=lambda path: path.name)
def test_every_image_takes_its_base_as_argument_checks_its_health_and_drops_root(
    path: Path,
) -> None:
    lines = path.read_text().splitlines()
    assert "FROM ${BASE}" in lines
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    users = [line for line in lines if line.startswith("USER ")]
    assert int(users[-1].split()[1]) > 10000
    # A declared volume and a mount of the same folder hide each other in buildah, by chance.
    assert not any(line.startswith("VOLUME") for line in lines)
