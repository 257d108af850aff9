"""What the documents say exists, exists: claims' evidence, error codes, commands, plans, links."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

import common.errors
from common.protocol.monitoring.refusals import BOARD_REFUSALS
from common.protocol.refusals import REFUSALS
from common.study.plan import NumericFeature
from common.study.plan_file import read_plan
from server import cli as coordinator_cli
from server.monitor_board import cli as board_cli
from simulations import cli as simulation_cli
from site_client import cli as site_cli
from site_client.config import SitePaths, read_site_config
from site_client.sources.table import read_table

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = {
    "cohortium-board": board_cli.app,
    "cohortium-coordinator": coordinator_cli.app,
    "cohortium-site": site_cli.app,
    "cohortium-sim": simulation_cli.app,
}


def test_every_claim_names_a_test_or_benchmark_that_exists() -> None:
    rows = re.findall(r"^\| .+ \| `([^`]+)` \|$", (ROOT / "docs/claims.md").read_text(), re.M)
    lines = [line for line in (ROOT / "docs/claims.md").read_text().splitlines() if "|" in line]
    assert len(rows) == len(lines) - 2  # every row but the table's head names one
    for row in rows:
        file, _, function = row.partition("::")
        path = ROOT / file
        assert path.is_file(), row
        if function:
            tree = ast.parse(path.read_text())
            names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert function in names, row


def test_every_exit_code_and_refusal_is_documented() -> None:
    text = (ROOT / "docs/error-codes.md").read_text()
    for name, error in vars(common.errors).items():
        is_leaf = inspect.isclass(error) and issubclass(error, common.errors.CohortiumError)
        if is_leaf and error is not common.errors.CohortiumError:
            assert f"| {error.exit_code} | `{name}` |" in text, name
    for number, sentence in {**REFUSALS, **BOARD_REFUSALS}.items():
        assert f"| {number} | {sentence} |" in text, number


def test_exit_codes_are_used_once() -> None:
    codes = [
        error.exit_code
        for name, error in vars(common.errors).items()
        if inspect.isclass(error)
        and issubclass(error, common.errors.CohortiumError)
        and name != "CohortiumError"
    ]
    assert len(codes) == len(set(codes))


def _commands(
    command: click.Command, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from _commands(sub, (*words, name))


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_explains_every_argument_and_option(program: str) -> None:
    # Read as printed: a pairing of Typer and Click once printed arguments without their help.
    for words, command in _commands(typer.main.get_command(PROGRAMS[program]), ()):
        answer = CliRunner(env={"COLUMNS": "300"}).invoke(PROGRAMS[program], [*words, "--help"])
        assert answer.exit_code == 0, words
        printed = re.sub(r"[│\s]+", " ", answer.output)
        for parameter in command.params:
            explanation = getattr(parameter, "help", None)
            assert explanation, (words, parameter.name)
            assert re.sub(r"\s+", " ", explanation) in printed, (words, parameter.name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_exists(document: Path) -> None:
    for program, words in re.findall(
        r"^(cohortium-(?:board|coordinator|site|sim)) ([^#\n]*)", document.read_text(), re.M
    ):
        command = typer.main.get_command(PROGRAMS[program])
        for word in re.sub(r"--home \S+", "", words).split():
            if not re.fullmatch(r"[a-z-]+", word) or not hasattr(command, "commands"):
                break
            assert word in command.commands, f"{document.name}: {program} {words}"
            command = command.commands[word]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_in_a_document_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_shipped_plan_is_the_documented_example() -> None:
    shipped = ROOT / "simulations/plans/heart-disease.toml"
    assert shipped.read_bytes() == (ROOT / "docs/examples/heart-disease.toml").read_bytes()


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 70


def test_no_document_names_a_path_of_somebodys_machine() -> None:
    for document in DOCUMENTS:
        assert "/home/" not in document.read_text()
        assert "/tmp/" not in document.read_text()


def test_the_example_site_toml_maps_every_feature_of_the_example_plan(tmp_path: Path) -> None:
    plan = read_plan(ROOT / "docs/examples/heart-disease.toml")
    shutil.copy(ROOT / "docs/examples/heart-disease.site.toml", tmp_path / "site.toml")
    source = read_site_config(SitePaths(tmp_path)).source
    assert set(source.features) == {feature.name for feature in plan.features}
    cells: dict[str, list[str]] = {}
    for feature in plan.features:
        mapping = source.features[feature.name]
        likely = [str(feature.clip[1])] if isinstance(feature, NumericFeature) else []
        cells[mapping.column] = likely or list(mapping.values or {})
    rows = [
        {"patient_id": str(row), "heart_disease": str(row % 2)}
        | {column: texts[row % len(texts)] for column, texts in cells.items()}
        for row in range(12)
    ]
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (tmp_path / "patients.csv").write_text("\n".join(lines) + "\n")
    table = read_table(plan, source, folder=tmp_path)
    assert len(table.label) == 12
    assert all(counts.unmapped == 0 for counts in table.counts.values())
