"""`check` answers in plain words: keys, clock, reach, data and limits, with what to do."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.crypto.certificates import Authority, TlsKey
from common.crypto.keys import SigningKey
from common.ids import parse_study_id
from common.protocol.monitoring.roster import Standing
from common.study.plan_file import read_plan
from server.relay_rosters import pin_given_roster
from simulations.deployment import free_port
from simulations.heart_sites import heart_sites
from site_client.config import SitePaths
from site_client.courier.main import read_courier_config, relay_access
from site_client.courier.relay_check import ask_relay
from site_client.open_site import open_records
from site_client.preflight import Finding, Preflight, check_site
from site_client.release.report_release import monitoring_commitment
from tests.lib.enrolling import Enrolling
from tests.lib.https_server import https_server, running_proxy
from tests.lib.relaying import Relaying
from tests.lib.sites_in_process import PLAN

STUDY = read_plan(PLAN)
REACH = "the coordinator answers"


class Hospital:
    """A joined site with its table, and a server in the coordinator's place."""

    def __init__(self, folder: Path) -> None:
        self.enrolling = Enrolling(folder)
        self.paths = self.enrolling.joined("northfield")
        site = heart_sites(folder / "data", uci=None)[0]
        self.table = folder / "data" / "northfield.csv"
        self.text = (
            f'[site]\nid = "northfield"\ndeclared_cohort_size = {site.declared_cohort_size}\n\n'
            f"{site.limits}\n{site.source}"
        )
        self.write(self.text)

    def write(self, text: str) -> None:
        """Write site.toml."""
        self.paths.config.write_text(text, encoding="utf-8")

    def point_at(self, port: int, *, proxy: str = "") -> None:
        """Let the courier's configuration name this port."""
        path = self.paths.courier / "courier.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "address": f"127.0.0.1:{port}", "proxy": proxy}))

    def check(self, *, now_s: int | None = None, proxy: str = "", refuses: bool = False) -> object:
        """Check against a server with the coordinator's certificate."""
        paths = self.enrolling.paths
        then = int(time.time()) if now_s is None else now_s
        with https_server(paths.server_certificate, paths.server_key, now_s=then) as port:
            self.point_at(port, proxy=proxy)
            return check_site(self.paths, STUDY, clock=SystemClock())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("hospital"))


@pytest.fixture
def hospital(template: Hospital) -> Hospital:
    template.write(template.text)
    return template


def _problem(result: object, question: str) -> Finding:
    assert isinstance(result, Preflight)
    found = [item for item in result.findings if question in item.question and not item.is_ok]
    assert found, [(item.question, item.is_ok, item.answer) for item in result.findings]
    assert found[0].todo
    assert not result.is_ok
    return found[0]


def test_a_site_in_order_has_no_problem_and_sees_its_data_quality(hospital: Hospital) -> None:
    result = hospital.check()
    assert isinstance(result, Preflight)
    assert result.is_ok, [item for item in result.findings if not item.is_ok]
    assert result.quality is not None
    assert len(result.quality.figures.features) == len(STUDY.features)
    assert all(
        set(item.as_record()) == {"question", "ok", "answer", "to_do"} for item in (result.findings)
    )


def test_without_a_plan_only_the_site_is_checked(hospital: Hospital) -> None:
    paths = hospital.enrolling.paths
    with https_server(paths.server_certificate, paths.server_key, now_s=None) as port:
        hospital.point_at(port)
        result = check_site(hospital.paths, None, clock=SystemClock())
    assert result.is_ok
    assert result.quality is None
    assert not [item for item in result.findings if "clock" in item.question]  # no date, no claim


def test_clocks_that_differ_are_told_in_seconds(hospital: Hospital) -> None:
    found = _problem(hospital.check(now_s=int(time.time()) - 4000), "clocks")
    assert "40" in found.answer
    assert "NTP" in found.todo


def _point_at_relay(hospital: Hospital, relay: str) -> None:
    path = hospital.paths.courier / "courier.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "relay": relay}))


RELAY = "the relay of monitoring reports answers"


def test_a_relay_that_is_not_there_is_told(hospital: Hospital) -> None:
    _point_at_relay(hospital, f"127.0.0.1:{free_port()}")
    try:
        assert _problem(hospital.check(), RELAY).answer == "UNAVAILABLE"
    finally:
        _point_at_relay(hospital, "")


@pytest.mark.slow
def test_the_relay_is_reached_through_the_hospitals_proxy_and_a_revoked_site_is_told(
    tmp_path: Path,
) -> None:
    relaying = Relaying(tmp_path, sites=("north", "south"))
    courier = read_courier_config(relaying.sites["north"].paths.courier)
    first, second = relaying.roster.sites
    revoked = relaying.next_roster(sites=(first, replace(second, status=Standing.REVOKED)))
    with relaying.running(), running_proxy() as proxy:
        reached = replace(
            courier, relay=relaying.address, proxy=f"http://127.0.0.1:{proxy.server_address[1]}"
        )
        assert ask_relay(relay_access(reached), wait_s=20) == (True, "yes")
        assert proxy.tunnels == [relaying.address]
        pin_given_roster(
            relaying.store, relaying.signed(revoked), fingerprint="", now_s=int(time.time())
        )
        time.sleep(1.2)
        south = read_courier_config(relaying.sites["south"].paths.courier)
        is_ok, words = ask_relay(relay_access(replace(south, relay=relaying.address)), wait_s=20)
        assert not is_ok
        assert "revoked" in words


def test_monitoring_limits_that_do_not_suffice_for_the_plan_are_told_before_a_report_is_due(
    hospital: Hospital,
) -> None:
    question = "all reports that the plan may ever make"
    spent = monitoring_commitment(STUDY).epsilon
    for limit, is_ok in ((spent + 0.01, True), (spent - 0.01, False)):
        own = f"[limits]\nepsilon_monitoring_per_study = {limit}"
        hospital.write(
            hospital.text.replace("[limits]", own, 1).replace(
                "epsilon_total = ", "epsilon_total = 9", 1
            )
        )
        result = hospital.check()
        assert isinstance(result, Preflight)
        [found] = [item for item in result.findings if item.question.startswith(question)]
        assert found.is_ok == is_ok
        assert f"{spent:.3f}" in found.answer
        assert bool(found.todo) != is_ok


def test_nobody_listening_is_told(hospital: Hospital) -> None:
    hospital.point_at(free_port())
    found = _problem(check_site(hospital.paths, None, clock=SystemClock()), REACH)
    assert "nothing listens" in found.answer


def test_a_server_of_another_authority_is_not_the_coordinator(
    hospital: Hospital, tmp_path: Path
) -> None:
    authority = Authority.make("Inspecting proxy", TlsKey.generate(), now_s=int(time.time()))
    key, key_file, certificate = TlsKey.generate(), tmp_path / "s.key", tmp_path / "s.crt"
    key.write(key_file)
    issued = authority.issue_server_certificate(["127.0.0.1"], key, now_s=int(time.time()))
    certificate.write_text(issued)
    with https_server(certificate, key_file, now_s=None) as port:
        hospital.point_at(port)
        found = _problem(check_site(hospital.paths, None, clock=SystemClock()), REACH)
        assert "not from the consortium's authority" in found.answer
        assert "--extra-ca" in found.todo
        # With the hospital's own authority beside the consortium's, the same server is reached.
        ca_file = hospital.paths.courier / "ca.pem"
        before = ca_file.read_text()
        ca_file.write_text(before + "\n" + authority.certificate_pem)
        try:
            assert check_site(hospital.paths, None, clock=SystemClock()).is_ok
        finally:
            ca_file.write_text(before)


def test_the_coordinator_is_reached_through_the_hospitals_proxy(hospital: Hospital) -> None:
    with running_proxy() as proxy:
        result = hospital.check(proxy=f"http://127.0.0.1:{proxy.server_address[1]}")
    assert isinstance(result, Preflight)
    assert result.is_ok
    assert len(proxy.tunnels) == 1
    assert any("through http://127.0.0.1" in item.answer for item in result.findings)


def test_a_proxy_that_refuses_is_told(hospital: Hospital) -> None:
    with running_proxy(refuses=True) as proxy:
        result = hospital.check(proxy=f"http://127.0.0.1:{proxy.server_address[1]}")
    assert "proxy" in _problem(result, REACH).answer


@pytest.mark.parametrize(
    ("find", "put", "question", "answer"),
    [
        ("epsilon_per_study = 4.0", "epsilon_per_study = 1.0", "within your limit", "your limit"),
        ("cohort_size_min = 50", "cohort_size_min = 5000", "enough patients", "your minimum"),
        ("declared_cohort_size = ", "declared_cohort_size = 9", "as many as declared", "declared"),
        ('column = "age"', 'column = "alter"', "data fit the plan", "'alter'"),
        ("[limits]", "[limit]", "site.toml is complete", "limits"),
    ],
)
def test_a_problem_of_site_toml_is_told_in_plain_words(
    hospital: Hospital, find: str, put: str, question: str, answer: str
) -> None:
    assert find in hospital.text
    hospital.write(hospital.text.replace(find, put, 1))
    assert answer in _problem(hospital.check(), question).answer


@pytest.mark.parametrize(
    ("column", "value", "question"),
    [
        ("chest_pain_type", "x", "chest_pain_type are mapped"),
        ("cholesterol", "", "every feature has values"),
        ("heart_disease", "1", "both outcomes occur"),
    ],
)
def test_data_that_no_rule_refuses_and_no_steward_should_miss_are_told(
    hospital: Hospital, column: str, value: str, question: str
) -> None:
    text = hospital.table.read_text()
    names, *rows = [line.split(",") for line in text.splitlines()]
    for row in rows:
        row[names.index(column)] = value
    hospital.table.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    try:
        _problem(hospital.check(), question)
    finally:
        hospital.table.write_text(text)


def test_check_says_whether_the_plan_is_approved_paused_or_withdrawn(hospital: Hospital) -> None:
    def answer(*, ok: bool) -> str:
        result = hospital.check()
        assert isinstance(result, Preflight)
        [found] = [item for item in result.findings if "approval" in item.question]
        assert found.is_ok == ok
        return found.answer

    assert "not given yet" in answer(ok=True)
    key = SigningKey.read(hospital.paths.signing_key)
    records, _ = open_records(hospital.paths, clock=SystemClock(), key=key.verify_key)
    study = parse_study_id(STUDY.study.id)
    records.approvals.approve(
        STUDY, person="Dr A. Steward", until_s=int(time.time()) + 99, signing_key=key
    )
    assert "by Dr A. Steward until" in answer(ok=True)
    records.approvals.pause(study)
    assert "paused" in answer(ok=False)
    records.approvals.unpause(study)
    records.approvals.withdraw(study)
    assert "withdrawn" in answer(ok=False)


def test_a_damaged_ledger_is_told_before_a_study_needs_it(
    hospital: Hospital, tmp_path: Path
) -> None:
    copy = damaged_copy(hospital.paths, tmp_path)
    found = _problem(check_site(copy, None, clock=SystemClock()), "keys, enrolment, ledger")
    assert "records cannot be" in found.answer


def damaged_copy(paths: SitePaths, folder: Path) -> SitePaths:
    """Return a copy of the site whose database is damaged."""
    shutil.copytree(paths.home, folder / "copy")
    copy = replace(paths, home=folder / "copy")
    for extra in copy.state.glob("site.db*"):
        extra.unlink()
    copy.database.write_bytes(b"not a database" * 100)
    return copy


def test_a_folder_that_never_joined_is_told_and_nothing_breaks(tmp_path: Path) -> None:
    result = check_site(SitePaths(tmp_path), STUDY, clock=SystemClock())
    assert "enroll" in _problem(result, "site.toml").todo
    assert "join" in _problem(result, "keys").todo
    assert "join" in _problem(result, "courier").todo
