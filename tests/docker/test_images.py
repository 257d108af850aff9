"""The built images run a study: coordinator, agents without network, couriers without data.

Built by `docker/build_images.sh` with Debian's buildah (chroot isolation), which needs no engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.deployment import Deployment
from simulations.heart_sites import heart_sites
from tests.lib.federation import has_network_namespaces, short_plan, wait_finished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
BUILDAH = ["buildah", "--storage-driver", "vfs"]
USER = 10002


@pytest.fixture(scope="module")
def images() -> list[str]:
    if os.environ.get("COHORTIUM_IMAGES") == "0":
        pytest.skip("COHORTIUM_IMAGES=0 leaves the images out")
    if os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("debootstrap")):
        pytest.skip("needs root and Debian's buildah and debootstrap (apt-get install both)")
    if not _can_build():
        pytest.skip("this machine lets buildah make no container, not even from scratch")
    built = subprocess.run(
        [str(ROOT / "docker" / "build_images.sh")], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr[-3000:]
    return ["cohortium-coordinator", "cohortium-agent", "cohortium-courier"]


@pytest.fixture(scope="module")
def containers(images: list[str]) -> Iterator[dict[str, str]]:
    names: dict[str, str] = {image: _container(image) for image in images}
    # One container for each process: mounts of two runs of one container would mix.
    for site in ("northfield", "eastgate"):
        names[f"agent-{site}"] = _container("cohortium-agent")
        names[f"courier-{site}"] = _container("cohortium-courier")
    yield names
    for name in names.values():
        subprocess.run([*BUILDAH, "rm", name], capture_output=True, check=False)


def _can_build() -> bool:
    made = subprocess.run(
        [*BUILDAH, "from", "scratch"], capture_output=True, text=True, check=False
    )
    if made.returncode == 0:
        subprocess.run([*BUILDAH, "rm", made.stdout.strip()], capture_output=True, check=False)
    return made.returncode == 0


def _container(image: str) -> str:
    done = subprocess.run(
        [*BUILDAH, "from", f"localhost/{image}"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _inside(container: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BUILDAH, "run", "--isolation", "chroot", container, "--", *command],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("image", "present", "absent"),
    [
        ("cohortium-coordinator", "server", "site_client.tasks"),
        ("cohortium-agent", "site_client.tasks", "server.coordinator"),
        ("cohortium-agent", "opacus", "site_client.courier"),
        ("cohortium-agent", "torch", "flwr"),
        ("cohortium-courier", "site_client.courier.loop", "site_client.tasks"),
        ("cohortium-courier", "flwr", "torch"),
    ],
)
def test_each_image_holds_its_own_parts_only(
    containers: dict[str, str], image: str, present: str, absent: str
) -> None:
    assert _inside(containers[image], "python3", "-c", f"import {present}").returncode == 0
    assert _inside(containers[image], "python3", "-c", f"import {absent}").returncode != 0


def test_each_image_runs_as_an_ordinary_user(containers: dict[str, str]) -> None:
    for container in containers.values():
        assert int(_inside(container, "id", "-u").stdout) > 10000


def test_a_study_runs_from_the_images(containers: dict[str, str], tmp_path: Path) -> None:
    plan = short_plan(tmp_path, rounds=2, quorum=2)
    sites = heart_sites(tmp_path / "data", uci=None)[:2]
    deployment = Deployment(tmp_path / "f", sites)
    deployment.found("Test consortium")
    for site in sites:
        deployment.enrol(site)
        deployment.approve(site.site_id, plan)
    tmp_path.chmod(0o755)
    for folder in (tmp_path / "f", tmp_path / "data"):
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(folder)], check=True)
    started = tmp_path / "started"
    started.touch()
    with deployment.processes:
        _start(deployment, containers, tmp_path)
        for site in sites:
            login = deployment.site_home(site.site_id) / "courier" / "node-id"
            deployment.wait_for(login.exists, seconds=120, what=f"the login of {site.site_id}")
        deployment.coordinator("launch", str(plan))
        report = wait_finished(deployment, "heart", seconds=300)
    assert report["rounds_complete"] == 2
    assert {site["rounds"] for site in report["sites"]} == {3}
    for name, container in containers.items():
        # So `read_only: true` in the compose files takes nothing away.
        assert _written_outside_volumes(container, started) == [], name


def _written_outside_volumes(container: str, since: Path) -> list[str]:
    root = subprocess.run(
        [*BUILDAH, "mount", container], capture_output=True, text=True, check=True
    ).stdout.strip()
    # buildah itself writes the two excepted files for each run.
    tests = (
        f"-newer {since} -type f -not -path {root}/tmp/* -not -name resolv.conf -not -name hosts"
    )
    found = subprocess.run(
        ["find", root, "-xdev", *tests.split()],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    subprocess.run([*BUILDAH, "umount", container], capture_output=True, check=True)
    return found


def _start(deployment: Deployment, containers: dict[str, str], folder: Path) -> None:
    home = "/var/lib/cohortium"
    runs = {
        "coordinator": (
            containers["cohortium-coordinator"],
            [(deployment.coordinator_home, home)],
            ["cohortium-coordinator", "--home", home, "up"],
            [],
        )
    }
    for site in deployment.sites:
        own = deployment.site_home(site.site_id)
        runs[f"agent-{site.site_id}"] = (
            containers[f"agent-{site.site_id}"],
            [(own, home), (folder / "data", str(folder / "data"))],
            ["python3", "-m", "site_client.agent_main", home],
            ["unshare", "--net"] if has_network_namespaces() else [],
        )
        runs[f"courier-{site.site_id}"] = (
            containers[f"courier-{site.site_id}"],
            [(own / "courier", f"{home}/courier"), (own / "run", f"{home}/run")],
            ["python3", "-m", "site_client.courier.run", f"{home}/courier"],
            [],
        )
    for name, (container, mounts, command, before) in runs.items():
        volumes = [word for host, inside in mounts for word in ("-v", f"{host}:{inside}")]
        deployment.processes.start(
            name,
            [
                *before,
                *BUILDAH,
                "run",
                "--isolation",
                "chroot",
                "--user",
                f"{USER}:{USER}",
                *volumes,
                container,
                "--",
                *command,
            ],
            environment=dict(os.environ),
        )
