"""What the agent says of a notice that the courier brought: one word, and a number if refused."""

from __future__ import annotations

from typing import Final

from common.errors import CohortiumError

TAKEN: Final = "taken"
KNOWN: Final = "known"
LATER: Final = "later"
"""It cannot be judged yet, for want of a trusted authority, a roster or an approved plan."""


def refused(error: CohortiumError) -> str:
    """Return the outcome of a refusal: its number and no text."""
    return f"refused {error.number}".rstrip()
