"""`board.toml` and the board's folder; the one place that knows where its files lie."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ConfigError
from common.protocol.enrolment_records import Address

Role = Literal["board", "aggregator-a", "aggregator-b"]


@dataclass(frozen=True)
class BoardPaths:
    """Where every file of one board lies.

    Args:
        home: the board's folder.
    """

    home: Path

    @property
    def config(self) -> Path:
        """`board.toml`."""
        return self.home / "board.toml"

    @property
    def keys(self) -> Path:
        """Folder of secrets, mode 0700."""
        return self.home / "keys"

    @property
    def signing_key(self) -> Path:
        """Signs receipts."""
        return self.keys / "signing.key"

    @property
    def opening_keys(self) -> Path:
        """Folder of the keys that open reports: the one in use, those before, the next."""
        return self.keys / "opening"

    @property
    def tls_key(self) -> Path:
        """For the board's certificate."""
        return self.keys / "tls.key"

    @property
    def certificate(self) -> Path:
        """What the coordinator answered: the board's certificate and the authority's, public."""
        return self.home / "certificate.json"

    @property
    def card(self) -> Path:
        """The board's public keys, signed by itself: what the roster authority is given."""
        return self.home / "board-card.json"

    @property
    def database(self) -> Path:
        """The board's store, when board.toml names no other."""
        return self.home / "board.db"


class BoardConfig(BaseModel):
    """What its operator decides about one board."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    consortium: Annotated[str, Field(min_length=1, max_length=200)]
    board_id: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
    role: Role = "board"
    relay: Address | None = None
    """Where the relay is reached, when not as the board's certificate says."""
    authority: Annotated[str, Field(min_length=40, max_length=100)] | None = None
    """The roster authority's public key; the board believes no other roster."""
    database_url: str | None = None
    web_host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    web_port: Annotated[int, Field(ge=1, le=65535)] = 8460
    retention_days: Annotated[int, Field(ge=1, le=3660)] = 90
    """How long an opening key is kept after a roster no longer names it."""
    poll_s: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Between two looks at the relay, of `collect --watch`."""


def make_config(document: object, *, source: str) -> BoardConfig:
    """Return the configuration in a document; raises `ConfigError` with every problem at once."""
    try:
        return BoardConfig.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise _refuse(source, problems) from None


def read_config(paths: BoardPaths) -> BoardConfig:
    """Read `board.toml`; raises `ConfigError` with every problem at once."""
    try:
        document = tomllib.loads(paths.config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "there is no board here",
            expected=f"a file {paths.config}",
            arrived="none",
            todo="run `cohortium-board init`, or name the folder with --home",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _refuse(paths.config.name, str(error)) from None
    return make_config(document, source=paths.config.name)


def config_text(config: BoardConfig) -> str:
    """Return the text of `board.toml`; a key that is not set stands there as a comment."""
    lines = ["# What this board is. Restart its commands after a change."]
    for name, value in config.model_dump().items():
        if value is None:
            lines.append(f"# {name} = ")
        elif isinstance(value, int):
            lines.append(f"{name} = {value}")
        else:
            # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
            quoted = json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{name} = {quoted}")
    return "\n".join(lines) + "\n"


def _refuse(source: str, arrived: str) -> ConfigError:
    return ConfigError(
        f"{source} is refused",
        expected="the keys in docs/operating-a-board.md",
        arrived=arrived,
        todo="correct it",
    )
