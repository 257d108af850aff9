"""Site ids from whatever texts a data set names its hospitals by."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any


def site_ids(texts: Sequence[str]) -> list[str]:
    """Return a site id for each text, different ones for different texts."""
    slugs = [
        re.sub(r"[^a-z0-9]+", "-", _without_accents(text.lower())).strip("-")[:50].strip("-")
        or "site"
        for text in texts
    ]
    taken: Counter[str] = Counter()
    ids: list[str] = []
    for slug in slugs:
        taken[slug] += 1
        name = slug if slugs.count(slug) == 1 else f"{slug}-{taken[slug]}"
        while name in ids or (name != slug and name in slugs):
            name += "x"
        ids.append(name)
    return ids


def _without_accents(text: str) -> str:
    return "".join(
        letter
        for letter in unicodedata.normalize("NFKD", text)
        if not unicodedata.combining(letter)
    )


def natural_order(text: str) -> tuple[Any, ...]:
    """Return a key by which site 2 comes before site 10."""
    return tuple(
        (0, int(piece), "") if piece.isdecimal() else (1, 0, piece)
        for piece in re.split(r"(\d+)", text)
        if piece
    )
