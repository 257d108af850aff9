"""The two accounts of a study in a site's ledger: the study itself, and monitoring after it.

A study's id is a slug and has no dot, so no plan can be named like another study's account.
"""

from __future__ import annotations

from typing import Final

from common.ids import StudyId

_SUFFIX: Final = ".monitoring"
ACCOUNT_PATTERN: Final = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.monitoring)?$"
"""What a ledger entry may name as its study."""


def monitoring_account(study_id: StudyId) -> StudyId:
    """Return the account to which a study's monitoring reports are charged."""
    return StudyId(study_id + _SUFFIX)


def is_monitoring_account(account: str) -> bool:
    """Return whether an account is of monitoring."""
    return account.endswith(_SUFFIX)


def study_of_account(account: str) -> StudyId:
    """Return the study whose account it is."""
    return StudyId(account.removesuffix(_SUFFIX))
