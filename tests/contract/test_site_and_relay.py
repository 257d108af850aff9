"""A site's real reports by the real socket, courier and relay to a board, and its receipts back."""

from __future__ import annotations

import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc

from common.clock import SystemClock
from common.crypto.keys import SigningKey
from common.ids import StudyId
from common.protocol import agent_pb2_grpc
from common.protocol import monitoring_pb2 as wire
from common.protocol.arrays import parameters_digest
from common.protocol.monitoring.chain import ChainState, check_chain
from common.protocol.monitoring.notice_codec import sign_notice
from common.protocol.monitoring.notices import Promotion, Receipt
from common.protocol.monitoring.report_checks import check_report
from common.protocol.monitoring.report_content import check_content, decode_content
from common.protocol.monitoring.report_envelope import open_report, report_digest
from common.study.plan_file import plan_digest
from common.study.report_tensors import ReportKind, report_tensors
from server.relay_notices import admit_promotion
from site_client.agent_server import AgentService
from site_client.config import read_site_config
from site_client.courier.agent_client import AgentClient
from site_client.courier.report_exchange import RelayAccess, ReportExchange
from site_client.open_monitoring import open_mailbox, open_monitor
from site_client.open_site import open_site
from tests.lib.monitored_site import LIMITS, TABLE, monitored_plan, some_model
from tests.lib.relaying import Relaying, collected

PLAN = monitored_plan(monitoring__late_days=60)
STUDY = StudyId(PLAN.study.id)


def _exchange(relaying: Relaying, agent: AgentClient, folder: Path) -> ReportExchange:
    courier = relaying.sites["north"].paths.courier
    access = RelayAccess(
        relaying.address, courier / "relay-ca.pem", courier / "site.crt", courier / "tls.key", ""
    )
    return ReportExchange(access, agent, folder=folder, clock_s=time.monotonic)


def _promoted(relaying: Relaying) -> None:
    key, model = SigningKey.read(relaying.paths.signing_key), some_model(PLAN)
    # As if promoted 40 days ago: the month before has ended, and its case mix is due.
    at_s = int(time.time()) - 40 * 86_400
    promotion = Promotion(STUDY, plan_digest(PLAN), parameters_digest(model), 1, at_s)
    notice = sign_notice(promotion, {"coordinator": key})
    relaying.store.append_notices([admit_promotion(notice, model, coordinator=key.verify_key)])


def _visits(path: Path, day: str) -> None:
    lines = ["patient,seen,age,sbp,sex,stroke"]
    lines += [f"p{place},{day},{20 + place % 70},120,f,{place % 2}" for place in range(1600)]
    path.write_text("\n".join(lines) + "\n")


def test_reports_travel_to_the_board_one_by_one_and_the_agent_learns_what_it_needs(
    tmp_path: Path,
) -> None:
    relaying = Relaying(tmp_path / "r", sites=("north",), calls_per_minute_max=100_000)
    paths = relaying.sites["north"].paths
    paths.config.write_text(
        f'[site]\nid = "north"\ndeclared_cohort_size = 900\n{LIMITS}\n{TABLE}', "utf-8"
    )
    before = time.gmtime(time.time() - 60 * 86_400)
    _visits(paths.home / "patients.csv", f"{before.tm_year}-{before.tm_mon:02d}-01")
    clock = SystemClock()
    config, site = read_site_config(paths), open_site(paths, clock=clock)
    site.records.approvals.approve(
        PLAN, person="A", until_s=clock.now_s() + 86_400, signing_key=site.keys.signing
    )
    mailbox, monitor = open_mailbox(config, site, clock), open_monitor(config, site, paths, clock)
    service = AgentService(None, "north", mailbox)  # type: ignore[arg-type]  # no training here
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    register: Any = agent_pb2_grpc.add_AgentServicer_to_server
    register(service, server)
    server.add_insecure_port(f"unix:{tmp_path / 'agent.sock'}")
    server.start()
    agent = AgentClient(tmp_path / "agent.sock")
    try:
        with relaying.running():
            _promoted(relaying)
            exchange = _exchange(relaying, agent, tmp_path)
            # Roster and promotion come before anybody trusted the authority: the roster waits.
            assert sorted(exchange.once().delivered) == ["later", "taken"]
            mailbox.pin.trust(relaying.authority_key.verify_key)
            study = monitor.study(STUDY)
            monitor.make(monitor.asked(study, "reference", ReportKind.REFERENCE))
            due = next(item for item in monitor.due(study) if item.period)
            _visits(paths.home / "patients.csv", f"{due.label}-03")
            monitor.make(due)
            made = ["reference", due.kind.value]
            state = ChainState.start(STUDY, relaying.roster.sites[0].site_id)
            after = 0
            assert exchange.once().acknowledged == 1
            for place, kind in enumerate(made, start=1):
                assert exchange.once().acknowledged == 0  # nothing more before the receipt
                with relaying.as_board("board-a") as board:
                    ((after, envelope),) = collected(board, after=after)
                state = _board_takes(relaying, envelope, state, kind)
                _both_receipts(relaying, envelope)
                moved = exchange.once()
                assert "taken" in moved.delivered
                assert moved.acknowledged == (place < len(made))
            assert mailbox.outbox() == ()
            assert exchange.once().acknowledged == 0
    finally:
        agent.close()
        server.stop(0).wait()


def _board_takes(relaying: Relaying, envelope: bytes, state: ChainState, kind: str) -> ChainState:
    header = check_report(envelope, roster=relaying.roster, arrived_at_s=int(time.time()))
    member = relaying.boards["board-a"]
    _, plaintext = open_report(
        envelope,
        verify_key=relaying.roster.sites[0].verify_key,
        opening_key=member.opening_key,
    )
    cells = sum(tensor.cells for tensor in report_tensors(PLAN, ReportKind(kind)))
    check_content(header, decode_content(plaintext, cells=cells))
    assert header.kind == kind
    return check_chain(header, report_digest(envelope), state)


def _both_receipts(relaying: Relaying, envelope: bytes) -> None:
    header = check_report(envelope, roster=relaying.roster, arrived_at_s=int(time.time()))
    for name, member in relaying.boards.items():
        receipt = Receipt(
            STUDY,
            header.site_id,
            header.sequence,
            report_digest(envelope),
            member.board_id,
            int(time.time()),
        )
        with relaying.as_board(name) as stub:
            signed = sign_notice(receipt, {member.board_id: member.signing_key})
            stub.Publish(wire.NoticeRequest(notice=signed), timeout=30)
