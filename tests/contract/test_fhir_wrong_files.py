"""Wrong FHIR files: one error with file and line, never a word of the content."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from common import limits
from common.errors import DataSourceError
from site_client.sources.fhir import FhirFolder
from site_client.sources.local_database import open_local
from tests.lib.fhir_reading import ANNA, condition, observation, read
from tests.lib.fhir_writer import bundle, resources
from tests.lib.fuzz_cases import FUZZ_CASES

MARKER = "Anna-Marker-4711"
NAMED = {**ANNA, "name": [{"text": MARKER}]}
LINE = json.dumps(NAMED).encode()
GOOD = json.dumps(ANNA).encode() + b"\n"
ONLY = "file 1 of 1 by name"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def chain_of(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        item = pending.pop()
        if item is not None and item not in found:
            found.append(item)
            pending += [item.__cause__, item.__context__]
    return found


def refusal(folder: Path) -> str:
    """Return the message; asserts that nothing chained to it knows the content."""
    with pytest.raises(DataSourceError) as caught:
        read(folder)
    for error in chain_of(caught.value):
        for said in (str(error), repr(error), repr(error.args), repr(vars(error))):
            assert MARKER not in said
            assert "Anna" not in said
    return str(caught.value)


def nested(depth: int) -> bytes:
    return b'{"resourceType":"Claim","x":' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    "line",
    [
        LINE[:-1],
        LINE[: len(LINE) // 2],
        LINE + LINE,
        LINE.replace(b"Marker", b"\xff\xfe"),
        LINE.replace(b"Marker", b"\\ud800"),
        LINE.replace(b'"id"', b'"x": NaN, "id"'),
        LINE.replace(b'"id"', b'"x": 1e999, "y": NaN, "id"'),
        LINE.replace(b'"id"', b'"x": 1e999, "y": "\\ud800", "id"'),
        LINE.decode().encode("utf-16"),
        nested(2_000),
        nested(200_000),
        b'{"x": 1e999, "y":' + nested(200_000) + b"}",
        f'"{MARKER}"'.encode(),
        f'["{MARKER}"]'.encode(),
        b"null",
        b"1e999",
        json.dumps({"name": MARKER}).encode(),
        json.dumps({"resourceType": {"text": MARKER}}).encode(),
        json.dumps({**ANNA, "id": [MARKER]}).encode(),
        json.dumps(condition(code=MARKER)).encode(),
        json.dumps(condition(code=[MARKER])).encode(),
        json.dumps(condition(code={"coding": MARKER})).encode(),
        json.dumps(condition(code={"coding": [MARKER]})).encode(),
        json.dumps(condition(code={"coding": [{"system": [MARKER]}]})).encode(),
        json.dumps(condition(subject=MARKER)).encode(),
        json.dumps(condition(subject={"reference": {"x": MARKER}})).encode(),
        json.dumps(observation(component={"x": MARKER})).encode(),
        json.dumps(observation(valueString={"x": MARKER})).encode(),
        json.dumps(observation(valueQuantity=MARKER)).encode(),
        json.dumps(bundle([], MARKER)).encode(),
        json.dumps(bundle([NAMED])).encode(),
        json.dumps(bundle([{"resource": MARKER}])).encode(),
        json.dumps(bundle([{"resource": bundle([{"resource": NAMED}])}])).encode(),
        json.dumps({**bundle([]), "entry": {"x": MARKER}}).encode(),
    ],
)
def test_a_wrong_line_is_named_by_file_and_number_and_not_shown(folder: Path, line: bytes) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "a.ndjson").write_bytes(GOOD + b"\n" + line)
    message = refusal(folder)
    assert f"{ONLY}, line 3" in message
    if line.startswith(b"{") and b"Bundle" not in line[:30]:
        (folder / "deep" / "a.ndjson").unlink()
        (folder / "a.json").write_bytes(line)
        assert f"{ONLY}, line 1" in refusal(folder)


def test_a_broken_bundle_is_named_by_the_line_where_it_breaks(folder: Path) -> None:
    text = json.dumps(bundle([{"resource": NAMED}]), indent=1)
    (folder / "a.json").write_text(text[:-3])
    last = text[:-3].rstrip("\n").count("\n") + 1
    assert f"{ONLY}, line {last}" in refusal(folder)


def test_a_wrong_entry_of_a_bundle_is_named_by_its_number(folder: Path) -> None:
    (folder / "a.json").write_text(
        json.dumps(bundle([{"resource": ANNA}, {"resource": {"name": MARKER}}]))
    )
    assert f"{ONLY}, line 1: entry 2 of the bundle" in refusal(folder)


@pytest.mark.parametrize("name", ["a.ndjson.gz", "a.json.gz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-9],
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:10] + bytes(200) + packed[210:],
        lambda packed: packed[:-8] + bytes(8),
        lambda _: LINE,
        lambda _: MARKER.encode(),
    ],
)
def test_a_broken_gzip_is_refused(
    folder: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    noise = [{**NAMED, "x": random.Random(4).randbytes(4_000).hex()}] * 3
    content = b"\n".join(json.dumps(item).encode() for item in noise)
    if "ndjson" not in name:
        content = json.dumps(bundle([{"resource": item} for item in noise])).encode()
    (folder / name).write_bytes(damage(gzip.compress(content)))
    assert f"{ONLY}, line " in refusal(folder)


def test_an_unpacked_line_beyond_the_bound_is_refused_before_it_is_parsed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FHIR_LINE_BYTES_MAX", 1_000)
    (folder / "a.ndjson.gz").write_bytes(gzip.compress(GOOD + b"[" * 1_000_000))
    message = refusal(folder)
    assert f"{ONLY}, line 2: a line is too long" in message


def test_a_bundle_beyond_the_bound_is_refused_before_it_is_parsed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FHIR_BUNDLE_BYTES_MAX", 1_000)
    (folder / "a.json.gz").write_bytes(gzip.compress(b"[" * 10_000_000))
    assert f"{ONLY}, line 1: the file is too long" in refusal(folder)


def test_a_files_name_is_not_said_where_it_may_be_a_patients_but_it_can_be_found(
    folder: Path,
) -> None:
    """The command is the one of the document, run by a shell."""
    names = ("Zoe_Marker_0c6f.json", f"{MARKER}.json", f"{MARKER}/b.ndjson", f"{MARKER}-/c.ndjson")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(GOOD)
    text = (Path(__file__).parents[2] / "docs/fhir-source.md").read_text()
    command = text.partition("```bash\n")[2].partition("```")[0]
    for name in names:
        (folder / name).write_bytes(LINE[:-1])
        message = refusal(folder)
        assert "Zoe" not in message
        number = message.partition("file ")[2].partition(" of 4 by name, line 1")[0]
        shell = ["bash", "-c", command.replace("17p", f"{number}p")]
        found = subprocess.run(shell, cwd=folder, capture_output=True, text=True, check=True)
        assert found.stdout == f"./{name}\n"
        (folder / name).write_bytes(GOOD)


@pytest.mark.parametrize(
    ("name", "is_said"),
    [
        ("Patient.ndjson", True),
        ("Observation.000.ndjson.gz", True),
        ("12-MedicationRequest.json", True),
        ("Patient-19410307.ndjson", False),
        ("Patient-Smith.ndjson", False),
        ("Patient.Person.ndjson", False),
        ("patient.ndjson", False),
        ("17.ndjson", False),
    ],
)
def test_only_the_name_of_a_bulk_export_is_said(folder: Path, name: str, is_said: bool) -> None:
    data = LINE[:-1]
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    place = f"{name} ({ONLY}), line 1: " if is_said else f"{ONLY}, line 1: "
    assert refusal(folder).startswith(place)


def test_a_folder_without_fhir_is_refused(folder: Path) -> None:
    (folder / "notes.txt").write_text(MARKER)
    for path in (folder, folder / "absent", folder / "notes.txt"):
        source = FhirFolder(path, "UTC")
        with pytest.raises(DataSourceError):
            source.fingerprint()
        with pytest.raises(DataSourceError):
            read(path)


def test_a_refused_source_leaves_no_rows_in_scratch(folder: Path, tmp_path: Path) -> None:
    (folder / "a.ndjson").write_bytes(GOOD * 10 + b"{")
    refusal(folder)
    assert not list(tmp_path.rglob("*.parquet"))


def mutated(random_: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random_.randint(1, 4)):
        place = random_.randrange(len(changed))
        match random_.randrange(5):
            case 0:
                changed[place] = random_.randrange(256)
            case 1:
                del changed[place : place + random_.randint(1, 30)]
            case 2:
                changed[place:place] = random_.choice(
                    [b"null", b"[]", b"{}", b'"', b"1e999", b"\n", b",", b"\x00", b"-", b"true"]
                )
            case 3:
                changed[place] = random_.choice(b'0123456789"{}[]:,-TZ')
            case _:
                other = random_.randrange(len(changed))
                changed[place:place] = changed[other : other + random_.randint(1, 60)]
        if not changed:
            changed += b" "
    return bytes(changed)


def fuzz(folder: Path, tmp_path: Path, seed: int, cases: int) -> None:
    random_ = random.Random(seed)
    lines = [json.dumps(item).encode() for item in resources()]
    read_whole = 0
    connection = open_local(scratch=tmp_path)
    source = FhirFolder(folder, "Europe/London")
    for case in range(cases):
        chosen = random_.sample(lines, 6)
        chosen[0] = mutated(random_, chosen[0])
        name = random_.choice(["a.ndjson", "a.json"])
        content = b"\n".join(chosen)
        if name == "a.json":
            entries = b",".join(b'{"resource":' + line + b"}" for line in chosen)
            content = b'{"resourceType":"Bundle","type":"batch","entry":[' + entries + b"]}"
        path = folder / name
        path.write_bytes(content)
        scratch = tmp_path / str(case)
        scratch.mkdir()
        try:
            source.write_events(connection, f"events {case}", scratch=scratch)
            read_whole += 1
        except DataSourceError as error:
            assert f"{ONLY}, line" in str(error)
        path.unlink()
        shutil.rmtree(scratch)
    connection.close()
    assert 0 < read_whole < cases


def test_mutated_bytes_are_read_or_refused(folder: Path, tmp_path: Path) -> None:
    fuzz(folder, tmp_path, seed=1, cases=300)


@pytest.mark.slow
def test_many_mutated_bytes_are_read_or_refused(folder: Path, tmp_path: Path) -> None:
    fuzz(folder, tmp_path, seed=2, cases=FUZZ_CASES)
