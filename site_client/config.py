"""`site.toml` and the site's folder: what hospital IT decides, and where its files lie."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from common import limits
from common.errors import ConfigError
from site_client.sources.source_mapping import SourceMapping

HOME_VARIABLE: Final = "COHORTIUM_SITE_HOME"

Epsilon = Annotated[float, Field(gt=0, le=limits.EPSILON_MAX)]


@dataclass(frozen=True)
class SitePaths:
    """Where every file of one site lies.

    Args:
        home: the site's folder.
    """

    home: Path

    @property
    def config(self) -> Path:
        """`site.toml`, hospital IT's."""
        return self.home / "site.toml"

    @property
    def keys(self) -> Path:
        """Folder of secrets, mode 0700; the agent's alone."""
        return self.home / "keys"

    @property
    def signing_key(self) -> Path:
        """Signs everything that leaves."""
        return self.keys / "signing.key"

    @property
    def next_signing_key(self) -> Path:
        """Signs nothing until the coordinator knows it; there during a key change."""
        return self.keys / "next-signing.key"

    @property
    def opening_key(self) -> Path:
        """Opens the coordinator's requests."""
        return self.keys / "opening.key"

    @property
    def tls_key(self) -> Path:
        """For the site's certificate, with which the courier reaches the relay; the courier's."""
        return self.courier / "tls.key"

    @property
    def certificate(self) -> Path:
        """The site's certificate, public; the courier's."""
        return self.courier / "site.crt"

    @property
    def salt(self) -> Path:
        """Splits patients into parts; never leaves."""
        return self.keys / "salt"

    @property
    def courier(self) -> Path:
        """Folder of all that the courier may read: its keys and certificate, addresses, CA."""
        return self.home / "courier"

    @property
    def node_key(self) -> Path:
        """The courier's login at Flower."""
        return self.courier / "node.key"

    @property
    def enrolment(self) -> Path:
        """The coordinator's signed answer."""
        return self.home / "enrolment.json"

    @property
    def state(self) -> Path:
        """Folder of the agent's records."""
        return self.home / "state"

    @property
    def database(self) -> Path:
        """Ledger, release log, approvals and cached replies."""
        return self.state / "site.db"

    @property
    def agent_lock(self) -> Path:
        """Held by the one running agent."""
        return self.state / "agent.lock"

    @property
    def report_lock(self) -> Path:
        """Held by the one process that makes a monitoring report."""
        return self.state / "report.lock"

    @property
    def scratch(self) -> Path:
        """What a build of features puts on disk, deleted with it."""
        return self.state / "scratch"

    @property
    def features(self) -> Path:
        """The feature store, mode 0700."""
        return self.state / "features"

    @property
    def run(self) -> Path:
        """Folder of the socket, shared with the courier."""
        return self.home / "run"

    @property
    def socket(self) -> Path:
        """The agent's socket."""
        return self.run / "agent.sock"

    @property
    def logs(self) -> Path:
        """Log files."""
        return self.home / "logs"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class SiteSection(_Part):
    """Who the site is; `declared_cohort_size` is public and used as its weight."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
    declared_cohort_size: Annotated[int, Field(ge=limits.COHORT_SIZE_MIN, le=10**8)]


class LimitsSection(_Part):
    """What no plan may pass.

    Args:
        epsilon_per_study: the most that one study may spend on a patient, at the plan's delta.
        epsilon_monitoring_per_study: the most that all reports about one study's model may spend on
            a patient, besides; as much as the study when not given.
        epsilon_total: the most that all studies together may spend, at `delta_total`.
        cohort_size_min: the fewest patients with which the site takes part.
        composition: how the total is kept: tight, for plans that were not chosen in reply to
            releases, or by a filter that holds for any choice.
        threads: for training.
    """

    epsilon_per_study: Epsilon
    epsilon_monitoring_per_study: Epsilon | None = None
    epsilon_total: Epsilon
    delta_total: Annotated[float, Field(gt=0, le=limits.DELTA_MAX)]
    cohort_size_min: Annotated[int, Field(ge=limits.COHORT_SIZE_MIN)]
    composition: Literal["planned", "adaptive"] = "planned"
    threads: Annotated[int, Field(ge=1, le=256)] = 1

    @property
    def epsilon_monitoring(self) -> float:
        """The limit for one study's reports."""
        return self.epsilon_monitoring_per_study or self.epsilon_per_study


class FeaturesSection(_Part):
    """How long features made from the source are kept; those of a running study stay."""

    keep_days: Annotated[int, Field(ge=1, le=3650)] = 90


class MonitoringSection(_Part):
    """What the site does about the board's decisions.

    Args:
        follow_decisions: pause a study here when the board decides to stop it, and its training
            when the board pauses this site; otherwise the decision is only shown.
    """

    follow_decisions: bool = True


class SiteConfig(_Part):
    """All of `site.toml`."""

    site: SiteSection
    limits: LimitsSection
    source: SourceMapping
    features: FeaturesSection = FeaturesSection()
    monitoring: MonitoringSection = MonitoringSection()


def read_site_config(paths: SitePaths) -> SiteConfig:
    """Read `site.toml`; raises `ConfigError` with every problem at once."""
    try:
        document = tomllib.loads(paths.config.read_text(encoding="utf-8"))
        return SiteConfig.model_validate(document)
    except FileNotFoundError:
        raise ConfigError(
            "there is no site here",
            expected=f"a file {paths.config}",
            arrived="none",
            todo="run `cohortium-site enroll`, or name the folder with --home",
        ) from None
    except ValidationError as error:
        problems = "; ".join(f"{_key(item)}: {item['msg']}" for item in error.errors())
        raise _refuse(paths.config, problems) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _refuse(paths.config, str(error)) from None


def _key(problem: ErrorDetails) -> str:
    """Return where a problem is, as a reader of the file would say it."""
    place = list(problem["loc"])
    if problem["type"].startswith("union_tag"):
        place.append("kind")
    elif len(place) > 1 and place[0] == "source":
        del place[1]  # pydantic's name of the kind, which is no key
    return ".".join(map(str, place))


def _refuse(path: Path, arrived: str) -> ConfigError:
    return ConfigError(
        f"{path.name} is refused",
        expected="the keys in docs/operating-a-site.md",
        arrived=arrived,
        todo="correct the file and run `cohortium-site check`",
    )
