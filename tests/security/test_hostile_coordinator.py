"""Whatever a hostile coordinator asks of a real agent, it gets a number and nothing else.

The agent runs in a network namespace without interfaces where the machine allows it, so that "the
process that can read rows has no network" is a fact of this test and not a promise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.crypto.keys import OpeningKey, SigningKey
from common.ids import parse_digest, parse_site_id
from common.protocol.arrays import encode_parameters, parameters_digest
from common.protocol.messages import RefusedTask, ReleasedTask, TaskRequest
from common.study.columns import initial_parameters
from common.study.plan import StudyPlan
from common.study.plan_file import parse_plan, read_plan
from simulations.deployment import Deployment
from simulations.heart_sites import heart_sites
from tests.lib.asking import Asker
from tests.lib.federation import has_network_namespaces, short_plan

pytestmark = [pytest.mark.e2e]

SITE = "northfield"


@pytest.fixture(scope="module")
def plan_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_plan(tmp_path_factory.mktemp("plan"), rounds=4)


@pytest.fixture(scope="module")
def plan(plan_path: Path) -> StudyPlan:
    return read_plan(plan_path)


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory, plan_path: Path) -> Iterator[Asker]:
    folder = tmp_path_factory.mktemp("hc")
    sites = heart_sites(folder / "data", uci=None)
    deployment = Deployment(folder / "f", sites)
    deployment.found("Test consortium")
    for site in sites[:2]:
        deployment.enrol(site)
        deployment.approve(site.site_id, plan_path)
    home = deployment.site_home(SITE)
    command = [sys.executable, "-m", "site_client.agent_main", str(home)]
    if has_network_namespaces():
        command = ["unshare", "--net", *command]
    with (folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 60
        while not (home / "run" / "agent.sock").exists():
            assert agent.poll() is None, (folder / "agent.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Asker(deployment, SITE)
    finally:
        agent.terminate()
        agent.wait(timeout=20)


def _number(asker: Asker, envelope: bytes) -> str:
    reply = asker.ask(envelope)
    assert isinstance(reply, RefusedTask), reply
    return reply.number


def test_r2_a_request_signed_by_another_key_is_refused(asker: Asker, plan: StudyPlan) -> None:
    envelope = asker.seal(
        asker.request(plan, 1), asker.header(plan, 1), signing=SigningKey.generate()
    )
    assert _number(asker, envelope) == "R2"


def test_r2_a_request_whose_signature_was_cut_out_and_replaced_is_refused(
    asker: Asker, plan: StudyPlan
) -> None:
    envelope = asker.seal(asker.request(plan, 1), asker.header(plan, 1))
    assert _number(asker, envelope[:-64] + bytes(64)) == "R2"


def test_r3_a_request_for_another_site_is_refused(asker: Asker, plan: StudyPlan) -> None:
    header = replace(asker.header(plan, 1), site_id=parse_site_id("eastgate"))
    assert _number(asker, asker.seal(asker.request(plan, 1), header)) == "R3"


def test_r3_a_request_sealed_to_another_key_is_refused(asker: Asker, plan: StudyPlan) -> None:
    envelope = asker.seal(
        asker.request(plan, 1),
        asker.header(plan, 1),
        sealing=OpeningKey.generate().sealing_key,
    )
    assert _number(asker, envelope) == "R3"


def test_r4_an_expired_request_is_refused(asker: Asker, plan: StudyPlan) -> None:
    now_s = int(time.time())
    header = replace(asker.header(plan, 1), issued_at_s=now_s - 7200, expires_at_s=now_s - 3600)
    assert _number(asker, asker.seal(asker.request(plan, 1), header)) == "R4"


def test_r6_a_plan_with_a_raised_epsilon_is_another_plan_and_is_refused(
    asker: Asker, plan: StudyPlan, plan_path: Path
) -> None:
    text = plan_path.read_text()
    assert "\nepsilon = 3" in text
    raised = parse_plan(
        text.replace("\nepsilon = 3", "\nepsilon = 4", 1).encode(), source="raised.toml"
    )
    envelope = asker.seal(asker.request(raised, 1), asker.header(raised, 1))
    assert _number(asker, envelope) == "R6"


def test_r6_a_plan_digest_that_nobody_approved_is_refused(asker: Asker, plan: StudyPlan) -> None:
    request = replace(asker.request(plan, 1), plan_digest=parse_digest("0" * 64))
    assert _number(asker, asker.seal(request, asker.header(plan, 1))) == "R6"


def test_r8_more_rounds_than_approved_are_refused(asker: Asker, plan: StudyPlan) -> None:
    rounds = plan.training.rounds
    for number in (rounds + 2, rounds + 1000):
        request = replace(asker.request(plan, 1), round_number=number)
        assert _number(asker, asker.seal(request, asker.header(plan, number))) == "R8"


def test_r8_an_evaluation_that_the_plan_does_not_have_is_refused(
    asker: Asker, plan: StudyPlan
) -> None:
    request = replace(asker.request(plan, 1), evaluate=True)
    assert _number(asker, asker.seal(request, asker.header(plan, 1))) == "R8"


@pytest.mark.parametrize("poison", ["nan", "huge", "shape", "digest", "junk"])
def test_r10_a_model_that_does_not_fit_the_plan_is_refused(
    asker: Asker, plan: StudyPlan, poison: str
) -> None:
    parameters = initial_parameters(plan)
    name = next(iter(parameters))
    if poison == "nan":
        parameters[name] = np.full_like(parameters[name], np.nan)
    if poison == "huge":
        parameters[name] = np.full_like(parameters[name], 2e6)
    if poison == "shape":
        parameters[name] = np.zeros((3, 3), dtype=np.float32)
    content = b"junk" if poison == "junk" else encode_parameters(parameters)
    digest = parse_digest("1" * 64) if poison == "digest" else parameters_digest(content)
    request = replace(asker.request(plan, 1), parameters=content, base_version=digest)
    assert _number(asker, asker.seal(request, asker.header(plan, 1))) == "R10"


def test_an_honest_request_is_answered_and_its_replay_gets_the_same_bytes(
    asker: Asker, plan: StudyPlan
) -> None:
    envelope = asker.seal(asker.request(plan, 1), asker.header(plan, 1))
    first = asker.ask_raw(envelope)
    assert isinstance(asker.open(first), ReleasedTask)
    assert asker.ask_raw(envelope) == first


def test_the_same_round_asked_anew_gets_the_same_release_and_is_charged_once(
    asker: Asker, plan: StudyPlan
) -> None:
    first = asker.ask(asker.seal(asker.request(plan, 1), asker.header(plan, 1)))
    again = asker.ask(asker.seal(asker.request(plan, 1), asker.header(plan, 1)))
    assert first == again


def test_r9_the_same_round_for_another_model_is_refused(asker: Asker, plan: StudyPlan) -> None:
    asker.ask(asker.seal(asker.request(plan, 1), asker.header(plan, 1)))
    request = _other_model(asker.request(plan, 1), plan)
    assert _number(asker, asker.seal(request, asker.header(plan, 1))) == "R9"


def test_r9_a_round_before_the_last_answered_one_is_stale(asker: Asker, plan: StudyPlan) -> None:
    third = asker.request(plan, 3)
    assert isinstance(asker.ask(asker.seal(third, asker.header(plan, 3))), ReleasedTask)
    second = _other_model(asker.request(plan, 2), plan)
    assert _number(asker, asker.seal(second, asker.header(plan, 2))) == "R9"


def test_bytes_that_are_no_envelope_get_no_answer_at_all(asker: Asker) -> None:
    from common.errors import AgentUnavailable

    with pytest.raises(AgentUnavailable, match="agent"):
        asker.ask_raw(b"CHE1 nonsense")


def test_the_process_that_reads_rows_has_no_network(asker: Asker) -> None:
    if not has_network_namespaces():
        pytest.skip("this user may not make a network namespace")
    from tests.lib.federation import pids_of

    [pid] = [
        found
        for found in pids_of("site_client.agent_main", str(asker.site.home))
        if b"unshare" not in Path(f"/proc/{found}/cmdline").read_bytes()
    ]
    interfaces = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:] == []
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


def _other_model(request: TaskRequest, plan: StudyPlan) -> TaskRequest:
    parameters = {name: array + np.float32(0.5) for name, array in initial_parameters(plan).items()}
    content = encode_parameters(parameters)
    return replace(request, parameters=content, base_version=parameters_digest(content))
