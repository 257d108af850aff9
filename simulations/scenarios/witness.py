"""What a scenario's witness saw: it stands at every site's door and reads all that leaves.

The witness has the coordinator's opening key, which in a simulation is no secret. It keeps its own
account, made of nothing but envelopes, against which ledgers, books and models are compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from common.crypto.keys import OpeningKey, VerifyKey
from common.errors import CohortiumError
from common.ids import ReleaseId, SiteId
from common.protocol.codec import decode_reply
from common.protocol.envelope import envelope_digest, open_envelope
from common.protocol.messages import Direction, ReleasedTask, TaskReply


class Label(StrEnum):
    """What a delivery truly is: the scenario knows, the coordinator has to find out."""

    TRUE = "true"  # the site's reply to this request, as it was sent
    MISSING = "missing"  # nothing came
    REPEATED = "repeated"  # a reply that was delivered already
    LATE = "late"  # a reply to an earlier request
    REPLAYED = "replayed"  # an old reply, sent again
    CHANGED = "changed"  # a reply, or one to a request, in which a bit was changed
    FOREIGN = "foreign"  # another site's reply


@dataclass(frozen=True)
class Delivery:
    """One thing that the coordinator was given.

    Args:
        round_number: that was asked.
        site_id: under which it came.
        label: what it is.
        reply: what is inside; None when it does not open.
        is_skewed: whether the clocks of site and coordinator were too far apart to be believed.
    """

    round_number: int
    site_id: SiteId
    label: Label
    reply: TaskReply | None
    is_skewed: bool


@dataclass
class Asking:
    """One asking of all sites.

    Args:
        round_number: asked for.
        deliveries: in their order.
        is_over: whether the coordinator took all of them; false when it died.
    """

    round_number: int
    deliveries: list[Delivery] = field(default_factory=list)
    is_over: bool = False


@dataclass
class SiteAccount:
    """What one site let out.

    Args:
        releases: every release that left, by id, as it left first.
        replies: SHA-256 of a request's bytes to the reply's bytes.
        faults: what the witness found wrong at the door, in words.
    """

    releases: dict[ReleaseId, ReleasedTask] = field(default_factory=dict)
    replies: dict[str, bytes] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)


class Witness:
    """Keeps the account.

    Args:
        opening_key: the coordinator's.
        verify_keys: of the sites.
    """

    def __init__(self, opening_key: OpeningKey, verify_keys: dict[SiteId, VerifyKey]) -> None:
        self._opening_key = opening_key
        self._verify_keys = verify_keys
        self.accounts = {site_id: SiteAccount() for site_id in verify_keys}
        self.askings: list[Asking] = []

    def read(self, site_id: SiteId, envelope: bytes) -> TaskReply | None:
        """Return what a reply's envelope holds; None when it is not that site's or was changed."""
        try:
            _, plaintext = open_envelope(
                envelope,
                verify_key=self._verify_keys[site_id],
                opening_key=self._opening_key,
                direction=Direction.REPLY,
            )
            return decode_reply(plaintext)
        except CohortiumError:
            return None

    def saw_leave(
        self, site_id: SiteId, request: bytes, envelope: bytes, *, epsilon_in_ledger: float
    ) -> None:
        """Enter a reply as it leaves its site.

        Args:
            site_id: whose.
            request: the envelope that it answers.
            envelope: the reply.
            epsilon_in_ledger: that the site's ledger states at this moment.
        """
        account = self.accounts[site_id]
        digest = envelope_digest(request)
        reply = self.read(site_id, envelope)
        if not isinstance(reply, ReleasedTask):
            return
        if account.replies.setdefault(digest, envelope) != envelope:
            account.faults.append(("same bytes", f"{site_id} sent two replies to one request"))
        known = account.releases.get(reply.release_id)
        if known is None:
            account.releases[reply.release_id] = reply
            if abs(reply.statement.epsilon_spent - epsilon_in_ledger) > 1e-9:
                account.faults.append(
                    (
                        "epsilon shown",
                        f"{site_id} stated {reply.statement.epsilon_spent:.6f}, "
                        f"its ledger {epsilon_in_ledger:.6f}",
                    )
                )
        elif known != reply:
            account.faults.append(
                (
                    "same bytes",
                    f"{site_id} sent two payloads for one release in round {reply.round_number}",
                )
            )
