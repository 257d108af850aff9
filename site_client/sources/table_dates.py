"""The index date of a table's row: an ISO 8601 date, or a moment of one."""

from __future__ import annotations

import datetime

import numpy as np

NO_DATE = np.datetime64("NaT", "us")


def index_date_of(text: str) -> np.datetime64 | None:
    """Return the moment that a cell names, in UTC where it has an offset; None for another text."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(moment, "us")
