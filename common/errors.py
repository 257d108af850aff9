"""The one exception tree; every leaf has an exit code and an entry in docs/error-codes.md.

CohortiumError
├── PlanError            10  a study plan breaks one or more numbered rules
├── ConfigError          11  site.toml or server.toml is wrong
├── DataSourceError      12  a data file cannot be read as the mapping says
├── KeyFileError         20  a key file is missing, readable by others, or not a key
├── SignatureError       21  a signature does not verify
├── SealError            22  sealed bytes do not open
├── EnrolmentError       23  an enrolment request or file is refused
├── ProtocolError        30  bytes from the other side are not a message we know
├── RequestRefused       31  the site refuses what the coordinator asks (R numbers)
├── ApprovalError        32  no valid approval of this exact plan
├── BudgetError          40  the release would pass a privacy limit of the site
├── LedgerError          41  the ledger or release log cannot be written or does not verify
├── ReleaseRefused       42  the gate lets nothing out (G numbers)
├── AccountingError      43  a mechanism record cannot be accounted for
├── AuditError           44  the privacy audit found a broken promise
├── UpdateRefused        50  the coordinator refuses a site's update (U numbers)
├── RoundFailed          51  a round ended without its quorum
├── StudyStateError      52  the study is not in a state that allows this
├── RegistryError        53  the model registry refuses
├── TransportError       60  the other side cannot be reached
├── AgentUnavailable     61  the site agent does not answer on its socket
├── ServiceError         62  a service we start does not come up or stay up
├── StoreError           63  the coordinator's or board's store cannot be read or written
└── InternalError        70  our own bug, reported without any text from data
"""

from __future__ import annotations

from typing import ClassVar


class CohortiumError(Exception):
    """Something was refused or failed, said in four parts.

    Args:
        refused: what was refused or failed, one clause.
        expected: what would have been accepted.
        arrived: what arrived instead; never a value from a patient's row.
        todo: what the reader can do now.
        number: the number of the rule or check, such as "P12", "R4", "G3" or "U5".
    """

    exit_code: ClassVar[int] = 70

    def __init__(
        self, refused: str, *, expected: str, arrived: str, todo: str, number: str = ""
    ) -> None:
        self.refused = refused
        self.expected = expected
        self.arrived = arrived
        self.todo = todo
        self.number = number
        super().__init__(refused)

    def __str__(self) -> str:
        label = f"[{self.number}] " if self.number else ""
        return (
            f"{label}{self.refused}\n  expected: {self.expected}\n"
            f"  arrived:  {self.arrived}\n  to do:    {self.todo}"
        )

    def as_record(self) -> dict[str, str | int]:
        """Return the error as a flat record for `--json` output."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "number": self.number,
            "refused": self.refused,
            "expected": self.expected,
            "arrived": self.arrived,
            "to_do": self.todo,
        }


class PlanError(CohortiumError):
    """A study plan breaks one or more numbered rules."""

    exit_code = 10


class ConfigError(CohortiumError):
    """`site.toml` or `server.toml` is wrong."""

    exit_code = 11


class DataSourceError(CohortiumError):
    """A data file cannot be read as the mapping says."""

    exit_code = 12


class KeyFileError(CohortiumError):
    """A key file is missing, readable by others, or not a key."""

    exit_code = 20


class SignatureError(CohortiumError):
    """A signature does not verify."""

    exit_code = 21


class SealError(CohortiumError):
    """Sealed bytes do not open."""

    exit_code = 22


class EnrolmentError(CohortiumError):
    """An enrolment request or enrolment file is refused."""

    exit_code = 23


class ProtocolError(CohortiumError):
    """Bytes from the other side are not a message we know."""

    exit_code = 30


class RequestRefused(CohortiumError):
    """The site refuses what the coordinator asks; `number` is an R number."""

    exit_code = 31


class ApprovalError(CohortiumError):
    """There is no valid approval of this exact plan."""

    exit_code = 32


class BudgetError(CohortiumError):
    """The release would pass a privacy limit of the site."""

    exit_code = 40


class LedgerError(CohortiumError):
    """The ledger or the release log cannot be written or does not verify."""

    exit_code = 41


class ReleaseRefused(CohortiumError):
    """The gate lets nothing out; `number` is a G number."""

    exit_code = 42


class AccountingError(CohortiumError):
    """A mechanism record cannot be accounted for."""

    exit_code = 43


class AuditError(CohortiumError):
    """The privacy audit found a broken promise."""

    exit_code = 44


class ScenarioError(CohortiumError):
    """A scenario broke one of its conditions."""

    exit_code = 45


class UpdateRefused(CohortiumError):
    """The coordinator refuses a site's update; `number` is a U number."""

    exit_code = 50


class RoundFailed(CohortiumError):
    """A round ended without its quorum."""

    exit_code = 51


class StudyStateError(CohortiumError):
    """The study is not in a state that allows this."""

    exit_code = 52


class RegistryError(CohortiumError):
    """The model registry refuses."""

    exit_code = 53


class TransportError(CohortiumError):
    """The other side cannot be reached."""

    exit_code = 60


class AgentUnavailable(CohortiumError):
    """The site agent does not answer on its socket."""

    exit_code = 61


class ServiceError(CohortiumError):
    """A service we start does not come up or does not stay up."""

    exit_code = 62


class StoreError(CohortiumError):
    """The coordinator's or the board's store cannot be read or written."""

    exit_code = 63


class InternalError(CohortiumError):
    """Our own bug, reported without any text from data."""

    exit_code = 70
