"""`server.toml` and the coordinator's folder; the one place that knows where its files lie."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import ConfigError

HOME_VARIABLE = "COHORTIUM_COORDINATOR_HOME"
DEFAULT_HOME = Path("coordinator")


@dataclass(frozen=True)
class CoordinatorPaths:
    """Where every file of one coordinator lies.

    Args:
        home: the coordinator's folder.
    """

    home: Path

    @property
    def config(self) -> Path:
        """`server.toml`."""
        return self.home / "server.toml"

    @property
    def keys(self) -> Path:
        """Folder of secrets, mode 0700."""
        return self.home / "keys"

    @property
    def signing_key(self) -> Path:
        """The key that signs plans, requests, enrolments and model actions."""
        return self.keys / "signing.key"

    @property
    def opening_key(self) -> Path:
        """The key that opens the sites' replies."""
        return self.keys / "opening.key"

    @property
    def ca_key(self) -> Path:
        """The certificate authority's key."""
        return self.keys / "ca.key"

    @property
    def server_key(self) -> Path:
        """The SuperLink's TLS key."""
        return self.keys / "server.key"

    @property
    def operator_token(self) -> Path:
        """What opens the Control API on loopback."""
        return self.keys / "operator.token"

    @property
    def superexec_secret(self) -> Path:
        """What the SuperExec shows to the Runtime API."""
        return self.keys / "superexec.secret"

    @property
    def ca_certificate(self) -> Path:
        """The certificate authority's certificate, public."""
        return self.home / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        """The SuperLink's certificate, public."""
        return self.home / "server.crt"

    @property
    def database(self) -> Path:
        """Our own store, when server.toml names no other."""
        return self.home / "coordinator.db"

    @property
    def relay_lock(self) -> Path:
        """Held by the one running relay."""
        return self.home / "relay.lock"

    @property
    def flower_home(self) -> Path:
        """Flower's own folder."""
        return self.home / "flower"

    @property
    def flower_database(self) -> Path:
        """Flower's state; it holds sealed envelopes only."""
        return self.flower_home / "superlink.db"

    @property
    def models(self) -> Path:
        """Model parameters, one file a version, named by digest."""
        return self.home / "models"

    @property
    def logs(self) -> Path:
        """Log files of the services."""
        return self.home / "logs"


class RelayConfig(BaseModel):
    """What an operator decides about the relay of monitoring reports; `[relay]` in `server.toml`.

    A member is a site, a board or an aggregator: whoever a certificate names.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    port: Annotated[int, Field(ge=1, le=65535)]
    """TCP, for sites and boards, on the coordinator's `listen_host`."""
    calls_per_minute_max: Annotated[int, Field(ge=1, le=1_000_000)] = 120
    """Of one site; as many may come at once after a pause."""
    board_calls_per_minute_max: Annotated[int, Field(ge=1, le=1_000_000)] = 6000
    """Of one board: a receipt for every report."""
    calls_at_once_max: Annotated[int, Field(ge=1, le=1000)] = 4
    """Of one member."""
    connections_max: Annotated[int, Field(ge=1, le=100_000)] = 4096
    """Of all members together."""
    receive_s_max: Annotated[int, Field(ge=1, le=3600)] = 60
    """For one message to arrive, of at most 8 MiB; a report has about 25 kB."""
    reports_per_day_max: Annotated[int, Field(ge=1, le=10_000_000)] = 256
    """Of one site and study; a year of weeks, made up for in one day, is about 200 shares."""
    report_bytes_per_day_max: Annotated[int, Field(ge=1 << 20, le=1 << 50)] = 64 << 20
    """Of one site and study."""
    board_notices_per_day_max: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    """Of one board or aggregator: receipts of 10,000 sites, and room."""
    board_notice_bytes_per_day_max: Annotated[int, Field(ge=1 << 20, le=1 << 50)] = 256 << 20
    """Of one board or aggregator."""
    health_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """TCP on 127.0.0.1 alone, without TLS: gRPC's health check and nothing else, for probes."""
    receipt_days: Annotated[int, Field(ge=1, le=3660)] = 90
    """How long a receipt is kept that a newer one has replaced."""


class ServerConfig(BaseModel):
    """What an operator decides about one coordinator.

    Ports are TCP; `host` and `port` are what sites connect to, `listen_host` where we listen.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    consortium: Annotated[str, Field(min_length=1, max_length=200)]
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)]
    operator_port: Annotated[int, Field(ge=1, le=65535)]
    listen_host: Annotated[str, Field(min_length=1, max_length=253)] = "0.0.0.0"  # noqa: S104
    database_url: str | None = None
    connections_per_address_max: Annotated[int, Field(ge=1, le=100_000)] = 1024
    """At once, on the port for sites; about ten a site, for sites that share one address."""
    relay: RelayConfig | None = None
    """None: this coordinator relays no monitoring reports."""

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.port == self.operator_port:
            raise ValueError("port and operator_port must differ")
        if self.relay is not None:
            taken = [self.port, self.operator_port, self.relay.port]
            if self.relay.health_port is not None:
                taken.append(self.relay.health_port)
            if len(set(taken)) < len(taken):
                raise ValueError("the relay's ports must differ from port and operator_port")
        return self

    @property
    def relay_address(self) -> str:
        """`host:port` of the relay as members use it; empty when there is none."""
        return f"{self.host}:{self.relay.port}" if self.relay is not None else ""

    @property
    def address(self) -> str:
        """`host:port` as sites use it."""
        return f"{self.host}:{self.port}"


def make_config(document: object, *, source: str) -> ServerConfig:
    """Return the configuration in a document; raises `ConfigError` with every problem at once."""
    try:
        return ServerConfig.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise _refuse(source, problems) from None


def read_config(paths: CoordinatorPaths) -> ServerConfig:
    """Read `server.toml`; raises `ConfigError` with every problem at once."""
    try:
        document = tomllib.loads(paths.config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "there is no coordinator here",
            expected=f"a file {paths.config}",
            arrived="none",
            todo="run `cohortium-coordinator init`, or name the folder with --home",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _refuse(paths.config.name, str(error)) from None
    return make_config(document, source=paths.config.name)


def _refuse(source: str, arrived: str) -> ConfigError:
    return ConfigError(
        f"{source} is refused",
        expected="the keys in docs/operating-a-coordinator.md",
        arrived=arrived,
        todo="correct it",
    )
