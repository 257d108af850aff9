"""A hostile site and an outsider against the real SuperLink, and what honest sites leave behind.

One federation of three honest sites and one whose agent is an attacker with the site's real keys.
Each round he tells another lie; each lie is refused with its number and the round goes on.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from common.crypto.keys import SigningKey
from common.crypto.node_key import read_node_key
from common.study.plan_file import read_plan
from server.config import CoordinatorPaths, read_config
from simulations.deployment import Deployment
from site_client.config import SitePaths
from tests.lib.federation import found_federation, short_plan, wait_finished
from tests.lib.hostile_site import HOSTILE_COURIER, MALFORMED_LIE, HostileSite

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HOSTILE = "southmoor"
MARK = "MARKEDPATIENT"
LIES = {
    1: "",
    2: "NaN",
    3: "wrong shape",
    4: "huge norm",
    5: "replay",
    6: "another site's signature",
    7: "a stale round",
    8: "less noise",
    9: "a billion patients",
    10: MALFORMED_LIE,
}
NUMBERS = {2: "U9", 3: "U8", 4: "U10", 5: "U3", 6: "U1", 7: "U5", 8: "U11", 9: "U14"}


@dataclass(frozen=True)
class Finished:
    """The federation while its processes still run, and its study's report."""

    deployment: Deployment
    report: dict[str, Any]
    temporary: Path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("hf")
    path = short_plan(folder, rounds=10, quorum=3, deadline_s=120)
    deployment = found_federation(folder, [path])
    _mark_patients(folder / "data")
    temporary = folder / "tmp"
    temporary.mkdir()
    hostile = HostileSite(
        SitePaths(deployment.site_home(HOSTILE)),
        read_plan(path),
        LIES,
        SigningKey.read(SitePaths(deployment.site_home("northfield")).signing_key),
    )
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(temporary)
    try:
        with deployment.processes:
            yield Finished(deployment, _run(deployment, hostile, path), temporary)
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def _run(deployment: Deployment, hostile: HostileSite, plan: Path) -> dict[str, Any]:
    server = hostile.serve()
    deployment.start_coordinator()
    for site in deployment.sites:
        if site.site_id != HOSTILE:
            deployment.start_site(site.site_id)
    courier = deployment.site_home(HOSTILE) / "courier"
    deployment.processes.start(
        "hostile-courier",
        [sys.executable, "-c", HOSTILE_COURIER, str(courier)],
        environment=dict(os.environ),
    )
    for site in deployment.sites:
        login = deployment.site_home(site.site_id) / "courier" / "node-id"
        deployment.wait_for(login.exists, seconds=90, what=f"the login of {site.site_id}")
    deployment.coordinator("launch", str(plan))
    report = wait_finished(deployment, "heart")
    server.stop()
    return report


def _mark_patients(folder: Path) -> None:
    """Give every patient of the generated files a marked identifier."""
    for path in folder.glob("*.csv"):
        path.write_text(re.sub(r"(?m)^P(\d+),", rf"{MARK}\1,", path.read_text()))
        assert MARK in path.read_text()


@pytest.mark.parametrize("round_number", sorted(NUMBERS), ids=lambda number: LIES[number])
def test_each_lie_of_a_site_is_refused_with_its_number(
    finished: Finished, round_number: int
) -> None:
    [event] = [
        event
        for event in finished.report["events"]
        if event.startswith(f"round {round_number}: {HOSTILE} ")
    ]
    assert event == (
        f"round {round_number}: {HOSTILE} refused-by-coordinator ({NUMBERS[round_number]})"
    )


def test_every_round_went_on_with_the_three_honest_sites(finished: Finished) -> None:
    assert finished.report["rounds_complete"] == 10
    for site in finished.report["sites"]:
        if site["site_id"] != HOSTILE:
            assert site["rounds"] == 11  # ten rounds and the final evaluation


def test_a_reply_that_ends_flowers_own_reader_ends_no_study_and_is_put_down_to_its_site(
    finished: Finished,
) -> None:
    log = CoordinatorPaths(finished.deployment.coordinator_home).logs / "study-heart.log"
    text = log.read_text()
    assert f"{HOSTILE}: the courier's answer was not an envelope" in text
    assert f"round 10: {HOSTILE} missing (the courier's answer was not an envelope)" in text
    assert finished.report["state"] == "finished"


def test_marked_patients_are_in_no_byte_outside_their_own_site(finished: Finished) -> None:
    deployment = finished.deployment
    looked_at = 0
    for path in sorted(deployment.folder.rglob("*")) + sorted(finished.temporary.rglob("*")):
        if not path.is_file():
            continue
        looked_at += 1
        assert MARK.encode() not in path.read_bytes(), path
    assert looked_at > 50  # logs, databases, ledgers, couriers, checkpoints


def test_the_flower_database_holds_no_update_that_can_be_read(finished: Finished) -> None:
    names = b"linear.weight"
    paths = CoordinatorPaths(finished.deployment.coordinator_home)
    for path in paths.flower_home.rglob("*"):
        if path.is_file():
            assert names not in path.read_bytes(), path
    # The coordinator's own models do hold them: the search would find them.
    assert any(names in path.read_bytes() for path in paths.models.iterdir())


@pytest.mark.parametrize(
    ("path", "port"),
    [
        ("/v1/control/start-run", "public"),
        ("/v1/control/list-runs", "public"),
        ("/v1/control/stream-logs", "public"),
        ("/v1/control/register-node", "public"),
        ("/v1/runtime/acquire-task", "public"),
        ("/v1/runtime/pull-messages", "public"),
        ("/v1/fleet/register-node", "public"),
        ("/v1/fleet/../control/start-run", "public"),
        ("/v1/fleet/%2e%2e/control/start-run", "public"),
        ("//v1/control/start-run", "public"),
        ("/docs", "public"),
        ("/openapi.json", "public"),
        ("/v1/control/start-run", "operator"),
        ("/v1/control/register-node", "operator"),
        ("/docs", "operator"),
    ],
)
def test_an_outsider_with_only_the_ca_certificate_reaches_nothing(
    finished: Finished, path: str, port: str
) -> None:
    paths = CoordinatorPaths(finished.deployment.coordinator_home)
    config = read_config(paths)
    chosen = config.port if port == "public" else config.operator_port
    context = ssl.create_default_context(cafile=str(paths.ca_certificate))
    with httpx.Client(verify=context) as client:
        url = httpx.URL(f"https://127.0.0.1:{chosen}").copy_with(raw_path=path.encode())
        answer = client.post(
            url,
            content=b"",
            headers={
                "content-type": "application/protobuf",
                "flwr-package-name": "flwr",
                "flwr-package-version": "1.41.0",
                "flwr-component-name": "flower-superexec",
            },
        )
    assert answer.status_code in (401, 403, 404), (answer.status_code, answer.text[:200])


@pytest.mark.parametrize("secret", [None, "guessed"])
def test_nobody_takes_a_task_without_the_superexec_secret(
    finished: Finished, secret: str | None
) -> None:
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.interceptors import (
        RuntimeVersionHttpInterceptor,
        SuperExecAuthHttpInterceptor,
    )
    from flwr.supercore.runtime import RuntimeHttpClient

    paths = CoordinatorPaths(finished.deployment.coordinator_home)
    interceptors: list[Any] = [RuntimeVersionHttpInterceptor(component_name="flower-superexec")]
    if secret is not None:
        interceptors.append(
            SuperExecAuthHttpInterceptor(
                master_secret=secret.encode() * 8,
                protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"}),
            )
        )
    client = RuntimeHttpClient.from_server_address(
        f"127.0.0.1:{read_config(paths).operator_port}",
        insecure=False,
        root_certificates=paths.ca_certificate.read_bytes(),
        interceptors=interceptors,
    )
    with pytest.raises(httpx.HTTPStatusError) as refused:
        client.AcquireTask(AcquireTaskRequest())
    client.close()
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("call", ["ActivateNode", "PullMessages", "PushMessages", "PullObject"])
def test_a_key_that_was_never_enrolled_cannot_use_the_fleet_api(
    finished: Finished, call: str
) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    assert _fleet_status(finished, key, call, node_id=_node_id(finished, "northfield")) in (
        400,
        401,
        403,
        404,
        412,  # Flower's answer to a login with an unknown key
    )


@pytest.mark.parametrize("port", ["public", "operator"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/list-runs",
        "/v1/control/stream-logs",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/pull-messages",
        "/v1/fleet/register-node",
    ],
)
def test_an_enrolled_sites_own_key_opens_nothing_but_its_own_mailbox(
    finished: Finished, path: str, port: str
) -> None:
    paths = CoordinatorPaths(finished.deployment.coordinator_home)
    config = read_config(paths)
    key = read_node_key(SitePaths(finished.deployment.site_home(HOSTILE)).node_key)
    chosen = config.port if port == "public" else config.operator_port
    context = ssl.create_default_context(cafile=str(paths.ca_certificate))
    with httpx.Client(verify=context) as client:
        request = client.build_request(
            "POST",
            f"https://127.0.0.1:{chosen}{path}",
            content=b"",
            headers={
                "content-type": "application/protobuf",
                "flwr-package-name": "flwr",
                "flwr-package-version": "1.41.0",
                "flwr-component-name": "flower-supernode",
            },
        )
        signed: Any = SimpleNamespace(request=request)
        NodeAuthHttpInterceptor(key, key.public_key()).intercept(signed, lambda _: None)
        answer = client.send(request)
    assert answer.status_code in (401, 403, 404), (answer.status_code, answer.text[:200])


@pytest.mark.parametrize("call", ["PullMessages", "PushMessages", "PullObject", "DeactivateNode"])
def test_an_enrolled_site_cannot_act_as_another(finished: Finished, call: str) -> None:
    key = read_node_key(SitePaths(finished.deployment.site_home(HOSTILE)).node_key)
    status = _fleet_status(finished, key, call, node_id=_node_id(finished, "northfield"))
    assert status == 401


def test_the_courier_process_imports_none_of_the_agents_libraries() -> None:
    code = (
        "import sys, site_client.courier.run, site_client.courier.loop, "
        "site_client.courier.client_app;"
        "names = {'torch', 'opacus', 'pandas', 'duckdb', 'dp_accounting', 'scipy'};"
        "bad = names & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _node_id(finished: Finished, site_id: str) -> int:
    folder = finished.deployment.site_home(site_id) / "courier"
    return int((folder / "node-id").read_text())


def _fleet_status(finished: Finished, key: Any, call: str, *, node_id: int) -> int:
    from flwr.proto import fleet_pb2, message_pb2
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes
    from flwr.supernode.fleet_http_client import FleetHttpClient

    paths = CoordinatorPaths(finished.deployment.coordinator_home)
    node = Node(node_id=node_id)
    requests: dict[str, Any] = {
        "ActivateNode": fleet_pb2.ActivateNodeRequest(
            public_key=public_key_to_bytes(key.public_key()), heartbeat_interval=30
        ),
        "DeactivateNode": fleet_pb2.DeactivateNodeRequest(node_id=node_id),
        "PullMessages": fleet_pb2.PullMessagesRequest(node=node),
        "PushMessages": fleet_pb2.PushMessagesRequest(node=node),
        "PullObject": message_pb2.PullObjectRequest(node=node, run_id=1, object_id="0" * 64),
    }
    with FleetHttpClient.from_server_address(
        read_config(paths).address,
        False,
        paths.ca_certificate.read_bytes(),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    ) as client:
        try:
            getattr(client, call)(requests[call])
        except httpx.HTTPStatusError as error:
            return error.response.status_code
    return 200
