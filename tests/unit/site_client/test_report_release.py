"""A report through the gate: charged once, noised once, kept, and checked."""

from __future__ import annotations

import fcntl
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import (
    ApprovalError,
    BudgetError,
    DataSourceError,
    LedgerError,
    ProtocolError,
    ReleaseRefused,
    StudyStateError,
)
from common.ids import StudyId
from common.privacy.accountant import epsilon_of_counted
from common.privacy.accounts import is_monitoring_account, monitoring_account, study_of_account
from common.privacy.ledger_entry import CommittedEntry, ReservedEntry
from common.protocol.monitoring.report_content import decode_content
from common.study.plan_file import plan_digest
from common.study.report_tensors import (
    ReportKind,
    noisy_patients,
    report_mechanisms,
    report_tensors,
)
from site_client.monitoring.report import SiteMonitor
from site_client.monitoring.tensors import exact_counts, score_rows
from site_client.release.checks import check_report
from site_client.release.release_log import LoggedReport
from site_client.release.report_noise import ExactCounts, NoisedCounts, noised
from site_client.release.report_release import ReportRequest, monitoring_commitment
from site_client.training.randomness import Randomness
from tests.lib.monitored_site import (
    LIMITS,
    MonitoredSite,
    make_monitored_site,
    monitored_plan,
    seconds,
    some_model,
)


@pytest.fixture
def site(tmp_path: Path) -> MonitoredSite:
    made = make_monitored_site(tmp_path)
    made.begin()
    made.clock.seconds = seconds("2026-03-05")
    return made


def _asked(
    site: MonitoredSite, label: str = "2026-02", kind: ReportKind = ReportKind.CASE_MIX
) -> ReportRequest:
    return site.monitor.asked(site.monitor.study(site.study_id), label, kind, is_late_allowed=True)


def _noised(plan: Any, kind: ReportKind, patients: int, *, seed: int | None = None) -> NoisedCounts:
    cells = []
    for tensor in report_tensors(plan, kind):
        cells += [patients] + [0] * (tensor.cells - 1)
    randomness = Randomness.from_system() if seed is None else Randomness.reproducible(seed)
    return noised(
        ExactCounts(np.array(cells)),
        plan,
        kind,
        words=randomness.noise_words,
        is_reproducible=randomness.is_reproducible,
    )


def test_a_report_is_charged_to_its_own_account_for_all_that_the_plan_may_ever_report(
    site: MonitoredSite,
) -> None:
    site.monitor.make(_asked(site))
    committed, reserved, released = site.site.records.ledger.entries()
    assert isinstance(committed, CommittedEntry)
    assert isinstance(reserved, ReservedEntry)
    assert released.kind == "released"
    assert committed.commitment.study_id == reserved.study_id == "small-study.monitoring"
    plan = site.plan
    expected: Counter[Any] = Counter()
    for kind, times in (("case-mix", 6), ("outcome", 6)):
        for record in report_mechanisms(plan, ReportKind(kind)):
            expected[record] += times
    planned = Counter(dict(committed.commitment.planned))
    rest = planned - expected
    assert planned - rest == expected
    assert all(record.part.stop == 250_000 for record in rest)  # the reference: held-out patients
    assert sum(rest.values()) == 3
    assert reserved.mechanisms == report_mechanisms(plan, ReportKind.CASE_MIX)
    epsilon = epsilon_of_counted(planned, delta=plan.privacy.delta)
    assert committed.commitment.epsilon == epsilon
    # A period's two reports together spend what the plan says.
    period = Counter(
        record
        for kind in (ReportKind.CASE_MIX, ReportKind.OUTCOME)
        for record in report_mechanisms(plan, kind)
    )
    assert 0.95 < epsilon_of_counted(period, delta=plan.privacy.delta) <= 1.0


def test_a_report_is_noised_once_whatever_happens_to_source_and_model(site: MonitoredSite) -> None:
    first = site.monitor.make(_asked(site))
    (site.paths.home / "patients.csv").unlink()
    other = some_model(site.plan, seed=9)
    notice = site.promotion(other, sequence=2)
    assert site.mailbox.deliver(notice, other) == "taken"
    again = site.reopened().monitor.make(_asked(site))
    assert again == first
    assert len(site.site.records.ledger.entries()) == 3


def test_two_processes_that_make_one_report_at_a_time_draw_its_noise_once(
    site: MonitoredSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = site.reopened(), site.reopened()
    made: list[LoggedReport] = []
    other = threading.Thread(target=lambda: made.append(second.monitor.make(_asked(second))))
    draws: list[str] = []

    def randomness(who: str) -> Randomness:
        draws.append(who)
        if not other.is_alive():
            other.start()
        with site.paths.report_lock.open("a") as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Randomness.from_system()

    monkeypatch.setattr(first.monitor, "_randomness", lambda: randomness("first"))
    monkeypatch.setattr(second.monitor, "_randomness", lambda: randomness("second"))
    made.append(first.monitor.make(_asked(first)))
    other.join()
    assert draws == ["first"]
    assert made[0] == made[1]
    assert len(site.site.records.ledger.entries()) == 3


def test_the_content_holds_noised_counts_and_what_the_account_spent(site: MonitoredSite) -> None:
    request = _asked(site)
    logged = site.monitor.make(request)
    tensors = report_tensors(site.plan, ReportKind.CASE_MIX)
    content = decode_content(logged.content, cells=sum(item.cells for item in tensors))
    assert (content.kind, content.period) == (ReportKind.CASE_MIX, "2026-02")
    ledger = site.site.records.ledger
    spent = ledger.spent(monitoring_account(site.study_id), site.plan.privacy.delta).epsilon
    assert content.epsilon_spent == spent > 0
    assert content.epsilon_remaining == 8.0 - spent
    assert content.mechanisms == request.mechanisms
    table = site.monitor.patients(request, site.monitor.new_rows())
    scores = np.zeros(table.rows)
    exact = exact_counts(table, scores, site.plan, request.kind).for_the_site_alone()
    sentinels = sum(item.cells for item in tensors if item.family.value == "sentinels")
    difference = content.counts[:sentinels] - exact[:sentinels]
    assert difference.any()
    assert np.abs(difference).max() < 8 * tensors[0].noise_multiplier
    assert content.ledger_head == ledger.entries()[1].digest


def test_noise_has_the_deviation_of_its_tensor() -> None:
    plan = monitored_plan()
    draws = np.stack([_noised(plan, ReportKind.OUTCOME, 0).cells for _ in range(300)])
    place = 0
    for tensor in report_tensors(plan, ReportKind.OUTCOME):
        mine = draws[:, place : place + tensor.cells].ravel()
        room = 6 / np.sqrt(2 * len(mine))
        assert mine.std() / tensor.noise_multiplier == pytest.approx(1, abs=room)
        assert abs(mine.mean()) < 6 * tensor.noise_multiplier / np.sqrt(len(mine))
        place += tensor.cells


def test_exact_counts_can_not_pass_for_noised_ones_and_show_nothing() -> None:
    exact = ExactCounts(np.array([7_123_456, 2]))
    assert "7123456" not in repr(exact)
    assert not hasattr(exact, "cells")
    with pytest.raises(TypeError):
        NoisedCounts(np.zeros(2), "", is_reproducible=False, maker=object())  # type: ignore[arg-type]
    with pytest.raises(ReleaseRefused) as caught:
        check_report(exact, monitored_plan(), ReportKind.OUTCOME, is_real_ledger=True)  # type: ignore[arg-type]
    assert caught.value.number == "G9"


def test_G1_G2_G9_and_G10_refuse_what_they_name() -> None:
    plan, kind = monitored_plan(), ReportKind.OUTCOME
    check_report(_noised(plan, kind, 500), plan, kind, is_real_ledger=True)

    def number(counts: Any, of: Any = plan, what: ReportKind = kind) -> str:
        with pytest.raises(ReleaseRefused) as caught:
            check_report(counts, of, what, is_real_ledger=True)
        return caught.value.number

    assert number(_noised(plan, kind, 500, seed=1)) == "G1"
    check_report(_noised(plan, kind, 500, seed=1), plan, kind, is_real_ledger=False)
    assert number(_noised(plan, ReportKind.CASE_MIX, 500)) == "G2"
    less_noise = monitored_plan(monitoring__epsilon_per_report=2.0)
    assert number(_noised(less_noise, kind, 500)) == "G2"
    huge = _noised(plan, kind, 500)
    huge.cells[0] = 2**40
    assert number(huge) == "G9"
    short = _noised(plan, kind, 500)
    short.cells = short.cells[1:]
    assert number(short) == "G9"
    assert number(_noised(plan, kind, -400)) == "G10"


def test_the_noisy_number_of_patients_is_unbiased_and_uses_every_tensor() -> None:
    plan = monitored_plan()
    for kind in ReportKind:
        found = [noisy_patients(plan, kind, _noised(plan, kind, 900).cells) for _ in range(60)]
        # No better than all tensors' totals together, no worse than the best of them.
        best = min(
            item.noise_multiplier * np.sqrt(item.cells) for item in report_tensors(plan, kind)
        )
        assert np.mean(found) == pytest.approx(900, abs=6 * best / np.sqrt(60))
        assert np.std(found) < best * 1.5
    assert noisy_patients(plan, kind, np.zeros(72, np.int64)) == 0


def test_a_month_of_few_patients_is_charged_withheld_and_never_asked_again(tmp_path: Path) -> None:
    plan = monitored_plan(monitoring__patients_min=100_000)
    site = make_monitored_site(tmp_path, plan=plan)
    site.begin()
    site.clock.seconds = seconds("2026-03-05")
    with pytest.raises(ReleaseRefused) as caught:
        site.monitor.make(_asked(site))
    assert caught.value.number == "G10"
    entries = site.site.records.ledger.entries()
    assert [entry.kind for entry in entries] == ["committed", "reserved"]
    assert [entry.number for entry in site.site.records.log.entries()] == ["G10"]
    assert site.monitor.is_withheld(_asked(site))
    with pytest.raises(ReleaseRefused):
        site.reopened().monitor.make(_asked(site))
    assert site.site.records.ledger.entries() == entries
    assert site.mailbox.outbox() == ()


def test_r11_a_plan_whose_reports_pass_the_sites_limit_for_monitoring_is_refused_unread(
    tmp_path: Path,
) -> None:
    limits = LIMITS + "epsilon_monitoring_per_study = 0.9\n"
    site = make_monitored_site(tmp_path, limits=limits)
    site.begin()
    site.clock.seconds = seconds("2026-03-05")
    (tmp_path / "patients.csv").unlink()  # it is not even read
    with pytest.raises(BudgetError) as caught:
        site.monitor.make(_asked(site))
    assert caught.value.number == "R11"
    assert "epsilon_monitoring_per_study" in str(caught.value)
    assert site.site.records.ledger.entries() == ()


def test_r12_reports_count_against_the_limit_of_all_studies(tmp_path: Path) -> None:
    site = make_monitored_site(tmp_path, limits=LIMITS.replace("= 20.0", "= 0.5"))
    site.begin()
    site.clock.seconds = seconds("2026-03-05")
    with pytest.raises(BudgetError) as caught:
        site.monitor.make(_asked(site))
    assert caught.value.number == "R12"


def test_r8_more_periods_than_the_plan_has_are_refused(tmp_path: Path) -> None:
    plan = monitored_plan(monitoring__periods_max=1)
    site = make_monitored_site(tmp_path, plan=plan)
    site.begin()
    site.clock.seconds = seconds("2026-05-05")
    site.monitor.make(_asked(site, "2026-02"))
    with pytest.raises(BudgetError) as caught:
        site.monitor.make(_asked(site, "2026-03"))
    assert caught.value.number == "R8"


def test_data_that_cannot_be_read_cost_nothing(site: MonitoredSite) -> None:
    (site.paths.home / "patients.csv").write_text("patient,seen\n1,2026-02-01\n")
    with pytest.raises(DataSourceError):
        site.monitor.make(_asked(site))
    assert site.site.records.ledger.entries() == ()
    assert not site.monitor.is_settled(_asked(site))


def test_a_table_without_index_dates_is_told_what_is_missing(tmp_path: Path) -> None:
    from tests.lib.monitored_site import TABLE

    source = TABLE.replace('index_date_column = "seen"\n', "")
    site = make_monitored_site(tmp_path, source=source)
    site.begin()
    site.clock.seconds = seconds("2026-03-05")
    with pytest.raises(DataSourceError, match="index_date_column"):
        site.monitor.make(_asked(site))


def test_a_date_that_is_none_is_named_by_line_and_column_and_never_shown(
    site: MonitoredSite,
) -> None:
    path = site.paths.home / "patients.csv"
    lines = path.read_text().splitlines()
    lines[7] = lines[7].replace("2026-01", "31.12.26x")
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataSourceError) as caught:
        site.monitor.make(_asked(site))
    assert "line 8, column 'seen': no date" in str(caught.value)
    assert "31.12.26x" not in str(caught.value)


def test_what_is_not_due_or_late_or_of_no_period_is_refused_before_it_costs(
    site: MonitoredSite,
) -> None:
    study, monitor = site.monitor.study(site.study_id), site.monitor
    with pytest.raises(StudyStateError, match="cannot be made yet"):
        monitor.asked(study, "2026-03", ReportKind.CASE_MIX)
    with pytest.raises(StudyStateError, match="cannot be made yet"):
        monitor.asked(study, "2026-02", ReportKind.OUTCOME)
    with pytest.raises(ProtocolError):
        monitor.asked(study, "2026-W07", ReportKind.CASE_MIX)
    site.clock.seconds = seconds("2026-03-16")
    with pytest.raises(StudyStateError, match="no longer waits"):
        monitor.asked(study, "2026-02", ReportKind.CASE_MIX)
    monitor.asked(study, "2026-02", ReportKind.CASE_MIX, is_late_allowed=True)


def test_due_reports_begin_with_the_reference_and_the_promotions_month(
    site: MonitoredSite,
) -> None:
    def due() -> list[tuple[str, str]]:
        study = site.monitor.study(site.study_id)
        return [(item.kind.value, item.label) for item in site.monitor.due(study)]

    site.clock.seconds = seconds("2026-01-20")
    assert due() == [("reference", "reference")]
    site.clock.seconds = seconds("2026-03-05")  # January's labels are complete on 3 March
    assert due() == [
        ("reference", "reference"),
        ("outcome", "2026-01"),
        ("case-mix", "2026-02"),
    ]
    site.monitor.make(_asked(site, "2026-01", ReportKind.OUTCOME))
    assert ("outcome", "2026-01") not in due()


@pytest.mark.parametrize("how", ["withdrawn", "ended", "paused", "no model"])
def test_a_study_that_may_not_be_reported_about_says_why(site: MonitoredSite, how: str) -> None:
    approvals = site.site.records.approvals
    if how == "withdrawn":
        approvals.withdraw(site.study_id)
    elif how == "ended":
        site.clock.seconds += 4000 * 86_400
    elif how == "paused":
        approvals.pause(site.study_id)
    study = StudyId("other") if how == "no model" else site.study_id
    expected = ApprovalError if how in ("withdrawn", "ended") else StudyStateError
    with pytest.raises(expected):
        site.monitor.study(study)


def test_the_account_of_monitoring_cannot_be_a_plans_name() -> None:
    account = monitoring_account(StudyId("heart"))
    assert account == "heart.monitoring"
    assert is_monitoring_account(account)
    assert not is_monitoring_account("heart-monitoring")
    assert study_of_account(account) == "heart"
    with pytest.raises(Exception, match="P4"):
        monitored_plan(study__id="heart.monitoring")


def test_the_commitment_of_a_sum_plan_charges_the_sites_own_noise_alone() -> None:
    plan = monitored_plan(monitoring__mode="sum")
    own = Counter(dict(monitoring_commitment(plan).planned))
    for kind in (ReportKind.CASE_MIX, ReportKind.OUTCOME):
        for record in report_mechanisms(plan, kind):
            assert own[record] >= 6


def test_what_is_not_logged_is_not_sealed(site: MonitoredSite) -> None:
    logged = site.monitor.make(_asked(site))
    gate = site.mailbox._gate
    (envelope,) = site.mailbox.outbox()
    header, _ = site.opened(envelope)
    draft = replace(header).__class__.__bases__[0](
        **{
            name: getattr(header, name)
            for name in header.__class__.__bases__[0].__dataclass_fields__
        }
    )
    keys = [site.members.board_opening.sealing_key]
    for changed in (
        replace(logged, content=logged.content[:-1] + b"\1"),
        replace(logged, period="2026-01"),
        replace(logged, release_id="0" * 64),  # type: ignore[arg-type]
    ):
        with pytest.raises(LedgerError):
            gate.seal_report(changed, draft, recipients=keys)
    for other in ({"period": "2026-01"}, {"study_id": StudyId("another")}, {"kind": "share-a"}):
        with pytest.raises(LedgerError):
            gate.seal_report(logged, replace(draft, **other), recipients=keys)
    assert gate.seal_report(logged, draft, recipients=keys).envelope


def test_the_reference_stands_in_slots_whose_number_is_the_declared_one(
    site: MonitoredSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots: list[float] = []

    def scored(*args: Any, **options: Any) -> Any:
        slots.append(options["expected"])
        return score_rows(*args, **options)

    monkeypatch.setattr("site_client.monitoring.report.score_rows", scored)
    study = site.monitor.study(site.study_id)
    site.monitor.make(site.monitor.asked(study, "reference", ReportKind.REFERENCE))
    site.monitor.make(_asked(site))
    assert slots == [site.monitor._declared] * 2


def test_reproducible_randomness_is_refused_by_a_real_ledger(site: MonitoredSite) -> None:
    monitor: SiteMonitor = site.monitor
    monitor._randomness = lambda: Randomness.reproducible(1)
    with pytest.raises(ReleaseRefused):
        monitor.make(_asked(site))
    assert [entry.number for entry in site.site.records.log.entries()] == ["G1"]


def test_the_release_log_names_the_report_and_verifies(site: MonitoredSite) -> None:
    site.monitor.make(_asked(site))
    (entry,) = site.site.records.log.verify()
    assert (entry.what, entry.kind, entry.period) == ("report", "case-mix", "2026-02")
    assert entry.plan_digest == plan_digest(site.plan)
    assert entry.study_id == "small-study.monitoring"
    with site.site.database.transaction() as connection:
        connection.execute("UPDATE payloads SET payload = x'00'")
    with pytest.raises(LedgerError):
        site.site.records.log.verify()


def test_another_salt_or_identifier_than_at_the_first_report_is_refused(tmp_path: Path) -> None:
    site = make_monitored_site(tmp_path)
    site.begin()
    site.clock.seconds = seconds("2026-03-05")
    site.monitor.patients(_asked(site), site.monitor.new_rows())  # looking pins nothing
    site.monitor.make(_asked(site))
    site.site = replace(site.site, keys=replace(site.site.keys, salt=b"t" * 32))
    entries = site.site.records.ledger.entries()
    with pytest.raises(DataSourceError, match="salt"):
        site.reopened().monitor.make(_asked(site, "2026-01"))
    assert site.site.records.ledger.entries() == entries
