"""`cohortium-site features`: build, show and drop, in words and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.command_line import run_command
from common.study.plan import StudyPlan
from common.study.plan_file import plan_digest
from site_client.cli import app
from site_client.config import SitePaths
from site_client.feature_use import FeaturePins
from site_client.site_database import SiteDatabase
from tests.lib.enrolling import Enrolling
from tests.lib.event_hospital import SOURCE, admissions_plan, write_meds_hospital
from tests.lib.plans import write_plan

Command = Callable[..., tuple[int, str, str]]
CONFIG = """
[site]
id = "northfield"
declared_cohort_size = 120
[limits]
epsilon_per_study = 4.0
epsilon_total = 8.0
delta_total = 1e-3
cohort_size_min = 50
"""
PLAN = admissions_plan()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    paths = Enrolling(tmp_path).joined("northfield")
    paths.config.write_text(CONFIG + SOURCE)
    write_meds_hospital(paths.home, patients=120)
    write_plan(paths.home / "plan.toml", PLAN)
    return paths.home


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        arguments = ["--home", str(home), "features", *words]
        code = run_command(app, name="cohortium-site", arguments=arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def record(answer: tuple[int, str, str]) -> Any:
    code, out, _ = answer
    assert code == 0, answer
    return json.loads(out)


def plan_file(home: Path) -> str:
    return str(home / "plan.toml")


def pins(home: Path) -> FeaturePins:
    return FeaturePins(SiteDatabase(SitePaths(home).database))


def approve(home: Path) -> None:
    words = ["approve", plan_file(home), "--as", "Dr A. Steward", "--until", "2099-12-31"]
    assert run_command(app, name="cohortium-site", arguments=["--home", str(home), *words]) == 0


def test_build_says_what_it_did_and_the_second_time_that_nothing_changed(
    command: Command, home: Path
) -> None:
    code, out, _ = command("build", plan_file(home))
    assert code == 0
    assert "120 rows of 120 patients: made from the whole source" in out
    assert "nothing changed since" in command("build", plan_file(home))[1]
    assert record(command("build", plan_file(home), "--json"))["how"] == "cached"
    assert record(command("build", plan_file(home), "--fresh", "--json"))["how"] == "full"


def test_show_lists_entries_and_a_named_one_with_lineage_and_data_sheet(
    command: Command, home: Path
) -> None:
    assert record(command("show", "--json")) == []
    built = record(command("build", plan_file(home), "--json"))
    [listed] = record(command("--json"))
    assert listed == {key: built[key] for key in listed}
    assert listed["plan_digest"] == plan_digest(PLAN)
    assert record(command("show", plan_file(home), "--json")) == [listed]
    assert "small-s" in command("show")[1]
    sheet = command("show", built["entry"][:12])[1]
    for heading in ("Lineage", "Motivation", "Composition", "Collection", "Preprocessing", "Uses"):
        assert f"## {heading}" in sheet
    assert "umol/L: 0.011312, 0.0" in sheet
    assert "| entry events | 120 | 120 |" in sheet
    assert record(command("show", built["entry"], "--json"))["attrition"][0]["rows"] == 120


def test_an_entry_that_is_not_there_is_exit_code_12(command: Command) -> None:
    code, out, err = command("show", "abcdef")
    assert (code, out) == (12, "")
    assert "no such entry of the feature store" in err


def test_drop_needs_to_be_told_what_and_keeps_what_a_running_study_uses(
    command: Command, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("drop")[0] == 2
    entry = record(command("build", plan_file(home), "--json"))["entry"]
    approve(home)
    assert record(command("show", "--json"))[0]["in_use"] is True
    for words in (("--plan", plan_file(home)), (entry[:8],)):
        code, _, err = command("drop", *words)
        assert code == 52
        assert "in use by a running study" in err
    assert record(command("drop", "--unused", "--older-than", "0", "--json")) == {"dropped": []}
    pins(home).pin(plan_digest(PLAN), entry)
    assert record(command("drop", entry[:8], "--in-use", "--json")) == {"dropped": [entry]}
    assert pins(home).all_pins() == {}
    assert record(command("show", "--json")) == []
    assert not (SitePaths(home).features / entry).exists()


def test_a_study_whose_entry_is_gone_can_be_let_go_on(command: Command, home: Path) -> None:
    pins(home).pin(plan_digest(PLAN), "f" * 32)
    assert record(command("drop", "ffff", "--in-use", "--json")) == {"dropped": ["f" * 32]}
    assert pins(home).all_pins() == {}


def test_a_damaged_entry_is_told_and_can_be_dropped(command: Command, home: Path) -> None:
    entry = record(command("build", plan_file(home), "--json"))["entry"]
    (SitePaths(home).features / entry / "entry.json").write_text("{}")
    assert f"Entry {entry} is damaged" in command("show")[1]
    assert record(command("drop", entry[:8], "--json")) == {"dropped": [entry]}


def test_a_build_applies_retention(command: Command, home: Path) -> None:
    config = SitePaths(home).config
    config.write_text(config.read_text() + "[features]\nkeep_days = 1\n")
    old = record(command("build", plan_file(home), "--json"))
    folder = SitePaths(home).features / old["entry"]
    _make_older(folder / "entry.json", days=2)
    write_plan(home / "plan.toml", admissions_plan(cohort__age_years_min=40))
    built = record(command("build", plan_file(home), "--json"))
    assert len(built["dropped"]) == 1
    assert not folder.exists()


def _make_older(path: Path, *, days: int) -> None:
    from site_client.features.store_entry import entry_bytes, parse_entry

    entry = parse_entry(path.read_bytes())
    older = entry.model_copy(update={"built_at_s": entry.built_at_s - days * 86_400})
    path.write_bytes(entry_bytes(older))


def test_a_table_needs_no_store(command: Command, home: Path) -> None:
    config = SitePaths(home).config
    source = (
        '[source]\nkind = "table"\npath = "x.csv"\nsubject_id = "id"\n'
        '[source.label]\ncolumn = "y"\npositive = ["1"]\nnegative = ["0"]\n[source.features]\n'
    )
    config.write_text(CONFIG + source)
    code, _, err = command("build", plan_file(home))
    assert code == 12
    assert "a table needs no feature store" in err


def test_a_build_that_finds_nothing_new_loads_no_library_of_training_or_accounting(
    command: Command, home: Path
) -> None:
    assert command("build", plan_file(home))[0] == 0
    program = (
        "import sys; from site_client.cli import app; from common.command_line import run_command; "
        f"code = run_command(app, name='x', arguments=['--home', {str(home)!r}, 'features', "
        f"'build', {plan_file(home)!r}]); "
        "print([name for name in ('torch', 'opacus', 'scipy', 'dp_accounting', 'grpc') "
        "if name in sys.modules], code)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert answer.stdout.splitlines()[-1] == "[] 0"


def test_the_plan_file_of_these_tests_is_the_plan(home: Path) -> None:
    from common.study.plan_file import read_plan

    found: StudyPlan = read_plan(home / "plan.toml")
    assert found == PLAN
