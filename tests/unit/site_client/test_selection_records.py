"""After a real selection the site's own records say what was counted, charged and let out."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from common.command_line import run_command
from common.protocol.counts import count_question_digest, decode_counts, encode_candidates
from common.protocol.messages import ReleasedTask, TaskKind
from common.study.contingency import cell_count, count_tables
from common.study.plan_file import read_plan
from simulations.heart_sites import heart_sites
from site_client.cli import app
from tests.lib.selecting import selecting_heart_plan
from tests.lib.sites_in_process import InProcessSite, make_site

PAIRS = (0, 2, 7, 8, 9)
Command = Callable[..., str]


def count(site: InProcessSite, number: int, candidates: tuple[int, ...]) -> ReleasedTask:
    question = encode_candidates(candidates)
    reply = site.ask(
        site.envelope(
            number,
            kind=TaskKind.COUNT,
            evaluate=False,
            base_version=count_question_digest(question),
            parameters=question,
        )
    )
    assert isinstance(reply, ReleasedTask), reply
    return reply


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> tuple[InProcessSite, list[ReleasedTask]]:
    folder = tmp_path_factory.mktemp("selection")
    site = make_site(folder, plan=read_plan(selecting_heart_plan(folder)))
    replies = [count(site, 1, ()), count(site, 2, PAIRS)]
    site.paths.keys.mkdir(mode=0o700)
    site.keys.signing.write(site.paths.signing_key)
    files = heart_sites(folder / "data", uci=None)[0]
    site.paths.config.write_text(
        f'[site]\nid = "northfield"\ndeclared_cohort_size = 310\n{files.limits}\n{files.source}'
    )
    return site, replies


@pytest.fixture
def command(
    counted: tuple[InProcessSite, list[ReleasedTask]], capsys: pytest.CaptureFixture[str]
) -> Command:
    def run(*words: str) -> str:
        capsys.readouterr()
        home = str(counted[0].paths.home)
        assert run_command(app, name="cohortium-site", arguments=["--home", home, *words]) == 0
        return capsys.readouterr().out

    return run


def test_both_counts_of_a_real_table_have_their_cells_and_cost_the_plan_s_epsilon(
    counted: tuple[InProcessSite, list[ReleasedTask]],
) -> None:
    site, (single, joint) = counted
    for reply, candidates in ((single, ()), (joint, PAIRS)):
        cells = cell_count(count_tables(site.plan, candidates))
        assert len(decode_counts(reply.update, cells=cells)) == cells
        assert reply.evaluation is None
        assert len(reply.mechanisms) == 1
    epsilon = site.plan.privacy.epsilon
    assert 0.4 * epsilon < single.statement.epsilon_spent < 0.8 * epsilon
    assert 0.99 * epsilon < joint.statement.epsilon_spent <= epsilon


def test_the_ledger_explains_the_counts_in_words(command: Command) -> None:
    words = " ".join(command("ledger", "explain", "heart-choice").split())
    assert "It counts patients twice in 10 tables by outcome, every count off by about" in words
    assert "trains" not in words
    record = json.loads(command("ledger", "explain", "--json"))
    assert record["studies"][0]["does"][0].startswith("counts patients twice in 10 tables")


def test_only_the_training_patients_are_charged(command: Command) -> None:
    show = json.loads(command("ledger", "show", "--by", "population", "--json"))
    assert [item["share"] for item in show["populations"]] == [0.75]


def test_the_release_list_says_which_counts_left(command: Command) -> None:
    words = " ".join(command("releases", "list").replace("│", " ").split())
    assert "release:" in words
    assert "pairs" in words
    assert json.loads(command("releases", "list", "--json"))[0]["what"] == "release"
    assert "unbroken" in command("releases", "verify")
