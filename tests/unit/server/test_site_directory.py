"""Who is in the consortium: adding or suspending a site touches no other site."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from common.clock import FixedClock
from common.crypto.certificates import check_issued, expires_at_s
from common.crypto.keys import SigningKey, VerifyKey
from common.errors import EnrolmentError
from common.ids import SiteId
from common.protocol.enrolment import EnrolmentRequest, read_enrolment
from server.config import CoordinatorPaths
from server.site_directory import Site, SiteDirectory
from server.storage.tables import roster_versions, sites
from tests.lib.enrolment import enrolment_request
from tests.lib.memory_channel import CONFIG, SITE_IDS, copy_consortium, open_books_at
from tests.lib.messages import NOW_S, Party

PARTY = Party.fresh()


@pytest.fixture
def paths(tmp_path: Path) -> CoordinatorPaths:
    return copy_consortium(tmp_path)


@pytest.fixture
def directory(paths: CoordinatorPaths) -> SiteDirectory:
    return open_books_at(paths, FixedClock(NOW_S))[1].sites


@pytest.fixture
def request_(tmp_path: Path) -> EnrolmentRequest:
    return enrolment_request(PARTY, tmp_path, "lakeside")


def _admit(
    directory: SiteDirectory, paths: CoordinatorPaths, request: EnrolmentRequest
) -> tuple[Site, Path]:
    answer = paths.home / f"{request.site_id}.json"
    site = directory.admit(
        request,
        fingerprint=VerifyKey.from_text(request.verify_key).fingerprint,
        cohort_size_max=500,
        paths=paths,
        config=CONFIG,
        answer=answer,
    )
    return site, answer


def _rows(paths: CoordinatorPaths) -> list[tuple[Any, ...]]:
    database, _ = open_books_at(paths, FixedClock())
    with database.transaction() as connection:
        return [tuple(row) for row in connection.execute(select(sites).order_by(sites.c.site_id))]


def test_an_admitted_site_gets_a_signed_file_with_its_certificate_and_the_roster(
    directory: SiteDirectory, paths: CoordinatorPaths, request_: EnrolmentRequest
) -> None:
    site, answer = _admit(directory, paths, request_)
    record = read_enrolment(answer)
    key = SigningKey.read(paths.signing_key)
    assert record.coordinator_verify_key == key.verify_key.to_text()
    assert record.coordinator_address == "127.0.0.1:18443"
    check_issued(record.ca_certificate, record.site_certificate, "lakeside")
    assert [entry.site_id for entry in record.roster.sites] == sorted([*SITE_IDS, "lakeside"])
    assert site.is_active
    assert site.verify_key.fingerprint == PARTY.signing.fingerprint


def test_admitting_again_changes_nothing_and_writes_the_same_certificate(
    directory: SiteDirectory, paths: CoordinatorPaths, request_: EnrolmentRequest
) -> None:
    _, answer = _admit(directory, paths, request_)
    before, rows, roster = answer.read_bytes(), _rows(paths), directory.roster()
    answer.unlink()
    _admit(directory, paths, request_)
    assert answer.read_bytes() == before
    assert _rows(paths) == rows
    assert directory.roster() == roster


def test_a_certificate_in_its_last_year_is_issued_anew_for_the_same_key(
    directory: SiteDirectory, paths: CoordinatorPaths, request_: EnrolmentRequest
) -> None:
    first = read_enrolment(_admit(directory, paths, request_)[1]).site_certificate
    two_years_s = 2 * 365 * 24 * 3600
    later = open_books_at(paths, FixedClock(NOW_S + two_years_s))[1].sites
    record = read_enrolment(_admit(later, paths, request_)[1])
    check_issued(record.ca_certificate, record.site_certificate, "lakeside")
    assert expires_at_s(record.site_certificate) == expires_at_s(first) + two_years_s
    assert read_enrolment(_admit(later, paths, request_)[1]) == record


def test_admitting_touches_no_other_sites_row(
    directory: SiteDirectory, paths: CoordinatorPaths, request_: EnrolmentRequest
) -> None:
    before = _rows(paths)
    _admit(directory, paths, request_)
    assert [row for row in _rows(paths) if row[0] != "lakeside"] == before


@pytest.mark.parametrize("field", ["verify_key", "sealing_key", "node_public_key"])
def test_the_same_id_with_another_key_is_refused(
    field: str,
    directory: SiteDirectory,
    paths: CoordinatorPaths,
    request_: EnrolmentRequest,
    tmp_path: Path,
) -> None:
    _admit(directory, paths, request_)
    (tmp_path / "other").mkdir()
    other = enrolment_request(Party.fresh(), tmp_path / "other", "lakeside")
    changed = request_.model_copy(update={field: getattr(other, field)})
    rows = _rows(paths)
    with pytest.raises(EnrolmentError):
        _admit(directory, paths, changed)
    assert _rows(paths) == rows


@pytest.mark.parametrize("field", ["verify_key", "node_public_key"])
def test_the_same_key_under_another_id_is_refused(
    field: str,
    directory: SiteDirectory,
    paths: CoordinatorPaths,
    request_: EnrolmentRequest,
    tmp_path: Path,
) -> None:
    _admit(directory, paths, request_)
    other = enrolment_request(Party.fresh(), tmp_path, "seaside")
    changed = other.model_copy(update={field: getattr(request_, field)})
    with pytest.raises(EnrolmentError) as caught:
        _admit(directory, paths, changed)
    assert "lakeside" in caught.value.arrived
    assert not (paths.home / "seaside.json").exists()


def test_the_same_node_key_in_another_spelling_is_refused(
    directory: SiteDirectory,
    paths: CoordinatorPaths,
    request_: EnrolmentRequest,
    tmp_path: Path,
) -> None:
    _admit(directory, paths, request_)
    other = enrolment_request(Party.fresh(), tmp_path, "seaside")
    spelled = " ".join(request_.node_public_key.split()[:2]) + " root@elsewhere"
    with pytest.raises(EnrolmentError):
        _admit(directory, paths, other.model_copy(update={"node_public_key": spelled}))


def test_suspending_and_readmitting_change_the_roster_and_only_that_site(
    directory: SiteDirectory, paths: CoordinatorPaths
) -> None:
    before, rows = directory.roster(), _rows(paths)
    directory.suspend(SiteId("north"))
    suspended = directory.roster()
    assert suspended.version == before.version + 1
    assert {entry.site_id: entry.status for entry in suspended.sites} == {
        "east": "active",
        "north": "suspended",
        "south": "active",
        "west": "active",
    }
    assert [site.site_id for site in directory.active_sites()] == ["east", "south", "west"]
    assert not directory.find(SiteId("north")).is_active
    assert [row for row in _rows(paths) if row[0] != "north"] == [
        row for row in rows if row[0] != "north"
    ]
    directory.readmit(SiteId("north"))
    assert directory.roster().version == before.version + 2
    assert directory.roster().sites == before.sites
    assert _rows(paths) == rows


def test_suspending_twice_is_once(directory: SiteDirectory) -> None:
    directory.suspend(SiteId("north"))
    version = directory.roster().version
    directory.suspend(SiteId("north"))
    assert directory.roster().version == version


def test_admitting_a_suspended_site_again_does_not_let_it_in(
    directory: SiteDirectory, paths: CoordinatorPaths, request_: EnrolmentRequest
) -> None:
    _admit(directory, paths, request_)
    directory.suspend(SiteId("lakeside"))
    site, answer = _admit(directory, paths, request_)
    assert not site.is_active
    [entry] = [item for item in read_enrolment(answer).roster.sites if item.site_id == "lakeside"]
    assert entry.status == "suspended"


@pytest.mark.parametrize("method", ["suspend", "readmit", "find"])
def test_an_unknown_site_is_named(method: str, directory: SiteDirectory) -> None:
    with pytest.raises(EnrolmentError) as caught:
        getattr(directory, method)(SiteId("unheard-of"))
    assert caught.value.arrived == "unheard-of"


def test_a_request_with_every_key_replaced_on_its_way_is_not_admitted(
    directory: SiteDirectory, paths: CoordinatorPaths, tmp_path: Path
) -> None:
    """The attacker's request is whole and signed by his own key; only the telephone tells."""
    forged = enrolment_request(Party.fresh(), tmp_path, "lakeside")
    rows, roster = _rows(paths), directory.roster()
    for told in (PARTY.signing.fingerprint, "", "0" * 32):
        with pytest.raises(EnrolmentError) as caught:
            directory.admit(
                forged,
                fingerprint=told,
                cohort_size_max=500,
                paths=paths,
                config=CONFIG,
                answer=tmp_path / "answer.json",
            )
        assert "telephone" in caught.value.todo or "call the site" in caught.value.todo
    assert (_rows(paths), directory.roster()) == (rows, roster)
    assert not (tmp_path / "answer.json").exists()


@pytest.mark.parametrize("change", [str.upper, lambda text: text.replace(" ", "  ") + "\n"])
def test_a_fingerprint_is_compared_without_spaces_and_case(
    change: Callable[[str], str],
    directory: SiteDirectory,
    paths: CoordinatorPaths,
    request_: EnrolmentRequest,
) -> None:
    site = directory.admit(
        request_,
        fingerprint=change(PARTY.signing.fingerprint),
        cohort_size_max=500,
        paths=paths,
        config=CONFIG,
        answer=paths.home / "answer.json",
    )
    assert site.is_active


def test_the_greatest_number_of_patients_is_fixed_at_admission_and_changed_with_a_record(
    directory: SiteDirectory, paths: CoordinatorPaths, request_: EnrolmentRequest
) -> None:
    site, _ = _admit(directory, paths, request_)
    assert site.cohort_size_max == 500
    directory.set_cohort_size_max(site.site_id, 700)
    directory.set_cohort_size_max(site.site_id, 700)
    assert directory.find(site.site_id).cohort_size_max == 700
    database, _ = open_books_at(paths, FixedClock())
    with database.transaction() as connection:
        said = list(
            connection.execute(
                select(roster_versions.c.reason, roster_versions.c.at_s).order_by(
                    roster_versions.c.version
                )
            )
        )
    assert said[-2:] == [
        ("admitted lakeside with at most 500 patients", NOW_S),
        ("lakeside: at most 700 patients, before 500", NOW_S),
    ]


def test_admitting_again_with_another_number_of_patients_changes_nothing(
    directory: SiteDirectory, paths: CoordinatorPaths, request_: EnrolmentRequest
) -> None:
    site, _ = _admit(directory, paths, request_)
    directory.set_cohort_size_max(site.site_id, 700)
    with pytest.raises(EnrolmentError) as caught:
        _admit(directory, paths, request_)
    assert "cohort lakeside" in caught.value.todo
    assert directory.find(site.site_id).cohort_size_max == 700


@pytest.mark.parametrize("size", [0, -1, 19, 100_000_001])
def test_a_number_of_patients_outside_the_bounds_is_refused(
    size: int, directory: SiteDirectory, paths: CoordinatorPaths
) -> None:
    rows = _rows(paths)
    with pytest.raises(EnrolmentError):
        directory.set_cohort_size_max(SiteId("north"), size)
    assert _rows(paths) == rows
