"""FHIR's date, dateTime and instant as the wall clock of one time zone."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from site_client.sources.events import YEAR_MIN, Exclusion

_FORM: Final = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})"
    r"(T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,12})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - wall clock
_MICROSECOND: Final = timedelta(microseconds=1)
_TEXT_LENGTH_MAX: Final = 48
_CACHED_TEXTS: Final = 1 << 16  # the events of one encounter share their time
_FIRST_YEAR: Final = (datetime(YEAR_MIN, 1, 1) - _EPOCH) // _MICROSECOND  # noqa: DTZ001


class WallClock:
    """Reads times; what has an offset is converted, what has none is wall clock already.

    An hour that occurs twice in autumn keeps its face value both times.

    Args:
        zone: the site's.
        end: the first moment that is impossible.
    """

    def __init__(self, zone: tzinfo, end: datetime) -> None:
        self._zone = zone
        self._end = (end - _EPOCH) // _MICROSECOND
        self._cached = lru_cache(maxsize=_CACHED_TEXTS)(self._microseconds)

    def read(self, text: object) -> int | Exclusion:
        """Return microseconds since 1970 on the wall clock, or why there are none."""
        if type(text) is not str or len(text) > _TEXT_LENGTH_MAX:
            return Exclusion.TIME_UNREADABLE
        moment = self._cached(text)
        if moment is None:
            return Exclusion.TIME_UNREADABLE
        if _FIRST_YEAR <= moment < self._end:
            return moment
        return Exclusion.TIME_IMPOSSIBLE

    def _microseconds(self, text: str) -> int | None:
        form = _FORM.fullmatch(text)
        if form is None:
            return None
        year, month, day, time = form.groups()
        # A leap second has no place on datetime's clock; it is the second before, one later.
        leap = time is not None and time[6:9] == ":60"
        time = (time.replace(":60", ":59", 1) if leap else time) or ""
        try:
            moment = datetime.fromisoformat(f"{year}-{month or '01'}-{day or '01'}{time}")
            if moment.tzinfo is not None:
                moment = moment.astimezone(self._zone).replace(tzinfo=None)
        except ValueError:
            return None
        except OverflowError:
            return _FIRST_YEAR - 1
        return (moment - _EPOCH) // _MICROSECOND + (1_000_000 if leap else 0)
