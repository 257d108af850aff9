"""Decisions on their way: proposed by one decider, signed by another, perhaps on another machine.

A file is a decision with the signatures so far. Nothing counts before the roster's number of
different active deciders has signed the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import utc_text
from common.crypto.keys import SigningKey
from common.errors import CohortiumError, ConfigError, ProtocolError, SignatureError
from common.ids import Digest, SiteId, StudyId
from common.protocol.monitoring.notice_codec import read_notice, sign_notice
from common.protocol.monitoring.notices import Action, Decision, decision_genesis
from common.protocol.monitoring.roster import MonitoringRoster
from common.protocol.monitoring.signed_notice import add_signature, verify_signed
from server.monitor_board.decision_book import KeptDecision


@dataclass(frozen=True)
class Proposal:
    """A decision with the signatures it has so far.

    Args:
        signers: active deciders of the roster whose signature verifies.
        others: signers who are none, or whose signature does not verify.
    """

    decision: Decision
    digest: Digest
    signers: tuple[str, ...]
    others: tuple[str, ...]


def propose(
    *,
    consortium: str,
    study_id: StudyId,
    action: Action,
    reason: str,
    period: str,
    site_id: SiteId | None,
    model_version: Digest | None,
    held: tuple[KeptDecision, ...],
    now_s: int,
    name: str,
    key: SigningKey,
) -> bytes:
    """Return the next decision of a study, signed by the one who proposes it.

    Args:
        consortium: as the roster names it.
        held: the study's decisions so far.
        name: of the decider, as in the roster.

    Raises:
        ProtocolError: T2 for a decision that no reader would take.
    """
    decision = Decision(
        study_id=study_id,
        number=len(held) + 1,
        previous=held[-1].digest if held else decision_genesis(consortium, study_id),
        action=action,
        site_id=site_id,
        model_version=model_version,
        reason=reason,
        period=period,
        opened_at_s=now_s,
    )
    return sign_notice(decision, {name: key})


def sign(data: bytes, *, name: str, key: SigningKey) -> bytes:
    """Return a proposal with one more signature; raises `ProtocolError` when it is no decision."""
    _decision_in(data)
    return add_signature(data, by=name, key=key)


def read_proposal(data: bytes, roster: MonitoringRoster) -> Proposal:
    """Return what a file says and who has signed it; raises `ProtocolError`."""
    notice = read_notice(data)
    decision = _decision_in(data)
    keys = {person.name: person.verify_key for person in roster.active_deciders()}
    good, bad = [], []
    for name in sorted(notice.signed.signatures):
        try:
            if name not in keys:
                raise _unknown(name)
            verify_signed(notice.signed, by=name, key=keys[name])
        except CohortiumError:
            bad.append(name)
        else:
            good.append(name)
    return Proposal(decision, notice.digest, tuple(good), tuple(bad))


def parse_action(text: str) -> Action:
    """Return the action of a word; raises `ConfigError`."""
    try:
        return Action(text)
    except ValueError:
        raise ConfigError(
            "no such action",
            expected=", ".join(action.value for action in Action),
            arrived=repr(text[:40]),
            todo="choose one of them",
        ) from None


def words(
    decision: Decision, *, signers: tuple[str, ...], others: tuple[str, ...] = ()
) -> dict[str, str | int]:
    """Return a decision as plain names and values, for people and for `--json`."""
    return {
        "study": decision.study_id,
        "number": decision.number,
        "action": decision.action.value,
        "site": decision.site_id or "",
        "model": decision.model_version or "",
        "period": decision.period,
        "reason": decision.reason,
        "proposed": utc_text(decision.opened_at_s),
        "signed by": ", ".join(signers),
        "does not count": ", ".join(others),
    }


def name_of(key: SigningKey, roster: MonitoringRoster) -> str:
    """Return the name under which a decider's key is in the roster; raises `SignatureError`."""
    for person in roster.active_deciders():
        if person.verify_key == key.verify_key:
            return person.name
    raise _unknown(key.fingerprint)


def _decision_in(data: bytes) -> Decision:
    content = read_notice(data).content
    if not isinstance(content, Decision):
        raise ProtocolError(
            "a file holds no decision",
            expected="what `cohortium-board decide propose` wrote",
            arrived="another notice",
            todo="give the right file",
            number="T2",
        )
    return content


def _unknown(who: str) -> SignatureError:
    return SignatureError(
        "a signature does not count",
        expected="an active decider of the roster",
        arrived=who,
        todo="let the roster's authority add the person first",
        number="T4",
    )
