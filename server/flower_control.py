"""Our client of Flower's Control API on the operator listener: runs and node registration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

from common.crypto.node_key import node_public_pem
from common.errors import CohortiumError, ServiceError
from server.bundle import bundle_digest, read_bundle
from server.config import CoordinatorPaths, ServerConfig
from server.superlink import OPERATOR_TOKEN_HEADER


class RunStatus(StrEnum):
    """Where one Flower run is."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Node:
    """One registered courier as Flower sees it."""

    node_id: int
    name: str
    public_key_pem: bytes
    status: str


class FlowerControl:
    """Start, look at and stop runs; register couriers."""

    def __init__(self, paths: CoordinatorPaths, config: ServerConfig) -> None:
        # Imported here: Flower loads slowly, and most commands never get this far.
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        os.environ.update(loopback_without_proxy(os.environ))
        token = paths.operator_token.read_text(encoding="ascii").strip()
        self._client = ControlHttpClient.from_server_address(
            server_address=f"127.0.0.1:{config.operator_port}",
            insecure=False,
            root_certificates=paths.ca_certificate.read_bytes(),
            interceptors=[
                _TokenInterceptor(token),
                RuntimeVersionHttpInterceptor(component_name="flwr CLI"),
            ],
        )

    def start_run(self, study_id: str) -> str:
        """Start a run of the thin bundle for one study and return the run's id."""
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        content = read_bundle()
        request = StartRunRequest(
            fab=fab_to_proto(Fab(bundle_digest(content), content, {})),
            override_config=user_config_to_proto({"study": study_id}),
            federation="",
        )
        with _refusals("start a run"):
            return str(self._client.StartRun(request).run_id)

    def stop_run(self, run_id: str) -> None:
        """Stop a run; a run that has ended already is left as it is."""
        from flwr.proto.control_pb2 import StopRunRequest

        if self.run_status(run_id) in (RunStatus.FINISHED, RunStatus.UNKNOWN):
            return
        with _refusals("stop a run"):
            self._client.StopRun(StopRunRequest(run_id=int(run_id)))

    def run_status(self, run_id: str) -> RunStatus:
        """Return where a run is."""
        from flwr.proto.control_pb2 import ListRunsRequest

        try:
            with _refusals("look at a run"):
                found = self._client.ListRuns(ListRunsRequest(run_id=int(run_id))).run_dict
        except _UnknownRunError:
            return RunStatus.UNKNOWN
        run = found.get(int(run_id))
        text = run.status.status if run is not None else RunStatus.UNKNOWN.value
        return RunStatus(text) if text in tuple(RunStatus) else RunStatus.UNKNOWN

    def nodes(self) -> tuple[Node, ...]:
        """Return every registered courier."""
        from flwr.proto.control_pb2 import ListNodesRequest

        with _refusals("list the couriers"):
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return tuple(
            Node(
                node_id=int(item.node_id),
                name=str(item.name),
                public_key_pem=bytes(item.public_key),
                status=str(item.status),
            )
            for item in found
            if item.status != "unregistered"
        )

    def register_node(self, site_id: str, node_public_key: str) -> None:
        """Let the courier with this key log in."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        with _refusals("register a courier"):
            self._client.RegisterNode(
                RegisterNodeRequest(public_key=node_public_pem(node_public_key), name=site_id)
            )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def loopback_without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep calls to our own loopback listeners out of a proxy."""
    own = "127.0.0.1,localhost"
    return {
        name: ",".join(filter(None, [environment.get(name, ""), own]))
        for name in ("NO_PROXY", "no_proxy")
    }


class _TokenInterceptor:
    """Adds the operator token to each call."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: Any, call_next: Any) -> Any:
        """Add the header and go on."""
        context.request.headers[OPERATOR_TOKEN_HEADER.decode()] = self._token
        return call_next(context)


class _UnknownRunError(CohortiumError):
    """Flower does not know this run (its database was replaced)."""


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.NOT_FOUND:
            raise _UnknownRunError(
                "no such run",
                expected="a run that Flower knows",
                arrived="404",
                todo="start a new one",
            ) from None
        raise _refuse(what, f"HTTP {error.response.status_code}") from None
    except (httpx.HTTPError, OSError) as error:
        raise _refuse(what, type(error).__name__) from None


def _refuse(what: str, arrived: str) -> ServiceError:
    return ServiceError(
        f"the SuperLink did not {what}",
        expected="an answer from the operator listener on loopback",
        arrived=arrived,
        todo="start `cohortium-coordinator up`, let it run, and repeat the command",
    )
