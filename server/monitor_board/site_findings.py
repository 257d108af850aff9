"""One site's signals together: its state, and the reasons that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from common.ids import SiteId
from server.monitor_board.plan_watches import GAPS
from server.monitor_board.signal_rules import (
    is_concept,
    is_covariate,
    is_data,
    is_fairness,
    is_prior,
    signals_of_reason,
    state_of_site,
)
from server.monitor_board.signal_types import (
    Finding,
    Metric,
    MissingReport,
    Reason,
    Signal,
    SiteSignals,
    State,
    Watch,
)
from server.monitor_board.signal_words import finding_of, missing_names

_ORDER = {reason: place for place, reason in enumerate(Reason)}


@dataclass(frozen=True)
class Raised:
    """The signals of all sites, and how many sites raise each."""

    signals: Mapping[SiteId, Sequence[Signal]]

    @cached_property
    def sites_of(self) -> Mapping[Watch, int]:
        """At how many sites each test is in ALERT or WATCH."""
        found: dict[Watch, int] = {}
        for signals in self.signals.values():
            for watch in raised_watches(signals, State.ALERT, State.WATCH):
                found[watch] = found.get(watch, 0) + 1
        return found

    def share_elsewhere(self, own: frozenset[Watch]) -> dict[Watch, float]:
        """Return the share of the other sites that raise what this one raises too."""
        others = len(self.signals) - 1
        return {watch: (self.sites_of[watch] - 1) / others if others > 0 else 0.0 for watch in own}


def raised_watches(signals: Sequence[Signal], *states: State) -> frozenset[Watch]:
    """Return the tests that are in one of the states."""
    return frozenset(signal.watch for signal in signals if signal.state in states)


def site_signals(
    site_id: SiteId | None,
    signals: Sequence[Signal],
    missing: tuple[MissingReport, ...],
    *,
    raised: Raised,
) -> SiteSignals:
    """Return a site's state and findings; `site_id` None for all sites together."""
    certain = _reasons(site_id, signals, raised, State.ALERT)
    given = _reasons(site_id, signals, raised, State.ALERT, State.WATCH) | certain
    findings = [
        _finding(reason, given[reason], signals, is_certain=reason in certain)
        for reason in sorted(given, key=lambda reason: (reason not in certain, _ORDER[reason]))
    ]
    if missing:
        findings.append(finding_of(Reason.SILENT, missing_names(missing), is_certain=True))
    marked = tuple(
        replace(
            signal,
            reasons=tuple(reason for reason, watches in given.items() if signal.watch in watches),
        )
        for signal in signals
    )
    state = state_of_site([signal.state for signal in signals], is_silent=bool(missing))
    return SiteSignals(site_id, state, tuple(findings), marked, missing)


def _reasons(
    site_id: SiteId | None, signals: Sequence[Signal], raised: Raised, *states: State
) -> dict[Reason, frozenset[Watch]]:
    watches = raised_watches(signals, *states)
    sentinels = sum(signal.watch.metric is Metric.SENTINEL for signal in signals)
    elsewhere = raised.share_elsewhere(watches) if site_id is not None else {}
    is_of_data = is_data(watches, sentinels=sentinels, share_elsewhere=elsewhere)
    holds = {
        Reason.DATA: is_of_data,
        Reason.COVARIATE: is_covariate(watches, sentinels=sentinels, is_of_data=is_of_data),
        Reason.PRIOR: is_prior(watches),
        Reason.CONCEPT: is_concept(watches),
        Reason.FAIRNESS: is_fairness(_excluding(signals, watches)),
    }
    return {
        reason: signals_of_reason(reason, watches) for reason, is_held in holds.items() if is_held
    }


def _excluding(signals: Sequence[Signal], watches: frozenset[Watch]) -> frozenset[Watch]:
    """Return the raised gaps whose interval excludes what is tolerated."""
    return frozenset(
        signal.watch
        for signal in signals
        if signal.watch in watches and signal.watch.metric in GAPS and _is_excluding(signal)
    )


def _is_excluding(signal: Signal) -> bool:
    # The change of a gap is how far the estimate lies beyond the tolerance, with its sign.
    if signal.estimate is None or signal.low is None or signal.high is None or not signal.change:
        return False
    tolerated = signal.estimate - signal.change
    return signal.low > tolerated if signal.change > 0 else signal.high < tolerated


def _finding(
    reason: Reason, watches: frozenset[Watch], signals: Sequence[Signal], *, is_certain: bool
) -> Finding:
    names = [signal.name for signal in signals if signal.watch in watches]
    return finding_of(reason, names, is_certain=is_certain)
