"""What the coordinator remembers of each site when a round begins, from the answers it recorded."""

from __future__ import annotations

from collections.abc import Mapping

from common.ids import SiteId, StudyId
from common.protocol.round_states import RoundState
from server.round_book import Outcome, RoundBook
from server.site_directory import Site
from server.update_checks import SiteMemory


def site_memories(
    rounds: RoundBook, study_id: StudyId, sites: Mapping[SiteId, Site]
) -> dict[SiteId, SiteMemory]:
    """Return each site's memory; the time it takes grows with the answers of the study.

    Args:
        rounds: of the coordinator.
        study_id: the study.
        sites: which are asked.
    """
    complete = {
        item.round_number for item in rounds.rounds(study_id) if item.state is RoundState.COMPLETE
    }
    releases: dict[SiteId, set[str]] = {site_id: set() for site_id in sites}
    newest: dict[SiteId, int] = {}
    for answer in rounds.brief_answers(study_id):
        if answer.outcome is not Outcome.ACCEPTED or answer.site_id not in sites:
            continue
        newest[answer.site_id] = answer.answer_id
        # A round that did not complete is asked again and gets the same release again.
        if answer.round_number in complete:
            releases[answer.site_id].add(answer.release_id)
    details = rounds.details(tuple(newest.values()))
    return {
        site_id: SiteMemory(
            releases=releases[site_id],
            cohort_size=details[newest[site_id]]["declared_cohort_size"]
            if site_id in newest
            else None,
            cohort_size_max=site.cohort_size_max,
        )
        for site_id, site in sites.items()
    }
