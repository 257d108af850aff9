"""Enrolment as the site does it, with the coordinator's real half: keys stay, only text leaves."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from common.crypto.certificates import Authority, TlsKey, certifies
from common.crypto.keys import SigningKey
from common.errors import CohortiumError, EnrolmentError, KeyFileError
from common.protocol.enrolment import read_enrolment, read_request
from site_client.config import SitePaths, read_site_config
from site_client.courier.main import read_courier_config
from site_client.enrolment import SiteIdentity, check_joined, join, make_request
from site_client.supervisor import run_site
from tests.lib.enrolling import CLOCK, Enrolling


@pytest.fixture
def enrolling(tmp_path: Path) -> Enrolling:
    return Enrolling(tmp_path)


def test_keys_are_made_at_the_site_readable_by_nobody_else(enrolling: Enrolling) -> None:
    paths, request = enrolling.request("north")
    for key in (paths.signing_key, paths.opening_key, paths.tls_key, paths.salt, paths.node_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, key.name
    for folder in (paths.keys, paths.courier, paths.state, paths.run):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder.name
    leaving = request.read_bytes()
    for key in (paths.signing_key, paths.opening_key, paths.salt):
        secret = key.read_bytes()
        assert secret not in leaving
        assert secret.hex().encode() not in leaving
    for key in (paths.tls_key, paths.node_key):
        lines = [line for line in key.read_bytes().splitlines() if not line.startswith(b"-----")]
        assert lines
        assert not any(line in leaving for line in lines if len(line) > 20)
    assert b"PRIVATE" not in leaving


def test_asking_again_makes_no_new_key(enrolling: Enrolling) -> None:
    paths, request = enrolling.request("north")
    before = {key: key.read_bytes() for key in paths.keys.iterdir()}
    first = read_request(request)
    (paths.config).write_text("# hospital IT's own\n")
    _, request = enrolling.request("north")
    assert {key: key.read_bytes() for key in paths.keys.iterdir()} == before
    assert read_request(request).verify_key == first.verify_key
    assert read_request(request).node_public_key == first.node_public_key
    assert paths.config.read_text() == "# hospital IT's own\n"


def test_enrolling_goes_on_after_a_kill_between_any_two_keys(enrolling: Enrolling) -> None:
    paths, request = enrolling.request("north")
    made = read_request(request)
    for lost in (paths.tls_key, paths.salt, paths.config):
        lost.unlink()
    paths, request = enrolling.request("north")
    assert read_request(request).verify_key == made.verify_key
    assert join(paths, enrolling.admit(request), fingerprint=enrolling.fingerprint)


def test_the_site_toml_that_enrol_writes_can_be_read(enrolling: Enrolling) -> None:
    paths, _ = enrolling.request("north")
    assert read_site_config(paths).site.id == "north"


def test_join_pins_the_coordinator_and_configures_the_courier(enrolling: Enrolling) -> None:
    paths, request = enrolling.request("north")
    record = join(
        paths,
        enrolling.admit(request),
        fingerprint=enrolling.fingerprint.upper().replace(" ", ""),
        proxy="http://proxy.example:3128",
        relay="127.0.0.1:18445",
    )
    assert record.site_id == "north"
    assert read_enrolment(paths.enrolment) == record
    courier = read_courier_config(paths.courier)
    assert (courier.address, courier.proxy) == ("127.0.0.1:18443", "http://proxy.example:3128")
    assert courier.socket == paths.socket
    assert courier.relay == "127.0.0.1:18445"
    # The courier's folder holds nothing that opens or signs an envelope.
    names = {item.name for item in paths.courier.iterdir()}
    assert names == {
        *("ca.pem", "courier.json", "node.key"),
        *("relay-ca.pem", "site.crt", "tls.key"),
    }
    assert certifies(paths.certificate.read_text(), TlsKey.read(paths.tls_key))


@pytest.mark.parametrize("relay", ["nowhere", "fed.example.org", "a b:1", "http://x:1"])
def test_a_relay_that_is_no_address_is_refused(enrolling: Enrolling, relay: str) -> None:
    paths, request = enrolling.request("north")
    with pytest.raises(EnrolmentError, match="relay's address"):
        join(paths, enrolling.admit(request), fingerprint=enrolling.fingerprint, relay=relay)


def test_the_tls_key_of_an_older_site_becomes_the_couriers(enrolling: Enrolling) -> None:
    paths, request = enrolling.request("north")
    answer, content = enrolling.admit(request), paths.tls_key.read_bytes()
    paths.tls_key.rename(paths.keys / "tls.key")
    join(paths, answer, fingerprint=enrolling.fingerprint)
    assert paths.tls_key.read_bytes() == content
    assert not (paths.keys / "tls.key").exists()


def test_a_fingerprint_that_was_not_the_one_on_the_telephone_is_refused(
    enrolling: Enrolling,
) -> None:
    paths, request = enrolling.request("north")
    answer = enrolling.admit(request)
    other = SigningKey.generate().fingerprint
    with pytest.raises(EnrolmentError, match="signed by another key") as caught:
        join(paths, answer, fingerprint=other)
    assert enrolling.fingerprint in caught.value.arrived
    assert not paths.enrolment.exists()
    assert not (paths.courier / "courier.json").exists()


def test_an_answer_meant_for_another_site_is_refused_even_when_its_roster_names_us(
    enrolling: Enrolling,
) -> None:
    north, north_request = enrolling.request("north")
    _, south_request = enrolling.request("south")
    enrolling.admit(north_request)
    answer = enrolling.admit(south_request)
    assert {site.site_id for site in read_enrolment(answer).roster.sites} == {"north", "south"}
    with pytest.raises(EnrolmentError, match="for another site"):
        join(north, answer, fingerprint=enrolling.fingerprint)


def test_a_changed_answer_is_refused(enrolling: Enrolling) -> None:
    paths, request = enrolling.request("north")
    answer = enrolling.admit(request)
    document = json.loads(answer.read_text())
    document["record"]["coordinator_address"] = "evil.example:443"
    answer.write_text(json.dumps(document))
    with pytest.raises(EnrolmentError) as caught:
        join(paths, answer, fingerprint=enrolling.fingerprint)
    assert caught.value.number == "N5"


def test_a_site_joins_no_second_coordinator_in_one_folder(
    enrolling: Enrolling, tmp_path: Path
) -> None:
    paths, request = enrolling.request("north")
    join(paths, enrolling.admit(request), fingerprint=enrolling.fingerprint)
    kept = paths.enrolment.read_bytes()
    second = Enrolling(tmp_path / "second")
    with pytest.raises(EnrolmentError, match="another coordinator"):
        join(paths, second.admit(request), fingerprint=second.fingerprint)
    assert paths.enrolment.read_bytes() == kept


def test_a_new_answer_of_the_same_coordinator_is_taken(enrolling: Enrolling) -> None:
    paths, request = enrolling.request("north")
    join(paths, enrolling.admit(request), fingerprint=enrolling.fingerprint)
    _, south = enrolling.request("south")
    enrolling.admit(south)
    join(paths, enrolling.admit(request), fingerprint=enrolling.fingerprint)
    assert len(read_enrolment(paths.enrolment).roster.sites) == 2


def test_the_hospitals_own_authority_is_trusted_beside_the_consortiums(
    enrolling: Enrolling, tmp_path: Path
) -> None:
    paths, request = enrolling.request("north")
    own = tmp_path / "hospital-ca.pem"
    own.write_text(Authority.make("Hospital", TlsKey.generate(), now_s=1).certificate_pem)
    join(paths, enrolling.admit(request), fingerprint=enrolling.fingerprint, extra_ca=own)
    authorities = (paths.courier / "ca.pem").read_text()
    assert authorities.count("BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_a_wrong_own_authority_is_one_clear_error(
    enrolling: Enrolling, tmp_path: Path, content: bytes | None
) -> None:
    paths, request = enrolling.request("north")
    own = tmp_path / "hospital-ca.pem"
    if content is not None:
        own.write_bytes(content)
    with pytest.raises(EnrolmentError):
        join(paths, enrolling.admit(request), fingerprint=enrolling.fingerprint, extra_ca=own)
    assert not paths.enrolment.exists()


@pytest.mark.parametrize("proxy", ["proxy.example:3128", "ftp://proxy.example", "http://"])
def test_a_proxy_that_is_no_url_is_refused(enrolling: Enrolling, proxy: str) -> None:
    paths, request = enrolling.request("north")
    with pytest.raises(EnrolmentError, match="proxy"):
        join(paths, enrolling.admit(request), fingerprint=enrolling.fingerprint, proxy=proxy)


def test_a_key_that_others_may_read_is_refused_with_what_to_do(enrolling: Enrolling) -> None:
    paths, _ = enrolling.request("north")
    paths.signing_key.chmod(0o644)
    with pytest.raises(KeyFileError) as caught:
        enrolling.request("north")
    assert re.search(r"chmod|0600|600", f"{caught.value.expected} {caught.value.todo}")


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    paths = SitePaths(tmp_path / "file" / "site")
    identity = SiteIdentity("north", "A hospital", "it@example")
    with pytest.raises(CohortiumError, match="folder"):
        make_request(paths, identity, out=tmp_path / "out.json", clock=CLOCK)


def test_an_organisation_with_a_line_break_is_one_clear_error(tmp_path: Path) -> None:
    identity = replace(SiteIdentity("north", "A hospital", "it@example"), organisation="A\nB")
    with pytest.raises(EnrolmentError, match="--organisation is refused"):
        make_request(SitePaths(tmp_path / "s"), identity, out=tmp_path / "out.json", clock=CLOCK)


def test_enrolling_again_under_another_id_is_refused(enrolling: Enrolling) -> None:
    paths, _ = enrolling.request("north")
    identity = SiteIdentity("nroth", "A hospital", "it@example")
    with pytest.raises(EnrolmentError, match="different sites") as caught:
        make_request(paths, identity, out=enrolling.folder / "again.json", clock=CLOCK)
    assert "'north'" in caught.value.arrived
    assert not (enrolling.folder / "again.json").exists()


def test_a_site_toml_of_another_id_is_refused_at_join_and_at_start(enrolling: Enrolling) -> None:
    paths, request = enrolling.request("north")
    answer = enrolling.admit(request)
    text = paths.config.read_text()
    paths.config.write_text(text.replace('id = "north"', 'id = "nroth"'))
    with pytest.raises(EnrolmentError, match="different sites"):
        join(paths, answer, fingerprint=enrolling.fingerprint)
    paths.config.write_text(text)
    join(paths, answer, fingerprint=enrolling.fingerprint)
    paths.config.write_text(text.replace('id = "north"', 'id = "nroth"'))
    with pytest.raises(EnrolmentError, match="different sites"):
        check_joined(paths)


def test_run_tells_at_once_that_the_site_has_not_joined(enrolling: Enrolling) -> None:
    paths, _ = enrolling.request("north")
    with pytest.raises(EnrolmentError, match="has not joined"):
        run_site(paths, say=lambda _: None)
