"""Changed bytes in a site's OMOP files give events or one `DataSourceError`, nothing else."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from common.errors import DataSourceError
from site_client.sources.local_database import open_local
from site_client.sources.omop import OmopFolder
from tests.lib.fuzz_cases import FUZZ_CASES
from tests.lib.omop_reading import MARKER
from tests.lib.six_patients_omop import six_patients_tables, write_csv

_PIECES = (b"\0", b"\xff", b'"', b",", b"\t", b"\r", b"\n", b"'", b"-", b"9" * 30, b"\xe2\x82")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tables = six_patients_tables()
    for name in ("procedure_occurrence", "drug_exposure", "observation", "concept_ancestor"):
        del tables[name]  # fewer statements a case; the others are read by the same code
    for rows in tables.values():
        for row in rows:
            for column in row:
                if column.endswith("_source_value"):
                    row[column] = MARKER
    folder = write_csv(tmp_path_factory.mktemp("original"), tables)
    packed = folder / "measurement.csv.gz"  # its checksum would answer for the reader
    (folder / "measurement.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    return folder


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_local(scratch=tmp_path, threads_max=1) as opened:
        yield opened


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with up to four of them changed, added, repeated or gone.

    Every other time the header stays: most changes there are a column that is missing.
    """
    header = data.index(b"\n") + 1 if chance.random() < 0.5 else 0
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(min(header, len(changed)), len(changed) + 1)
        length = chance.choice((0, 1, 1, 2, 20))
        match chance.randrange(4):
            case 0:
                changed[place : place + length] = chance.choice(_PIECES)
            case 1:
                changed[place : place + length] = chance.randbytes(length)
            case 2:
                del changed[place : place + length]
            case _:
                changed[place:place] = changed[chance.randrange(len(changed) + 1) :][:length]
    return bytes(changed)


def read_mutated(
    original: Path, connection: duckdb.DuckDBPyConnection, scratch: Path, seeds: range
) -> tuple[int, int]:
    """Return how many cases gave events and how many an error."""
    originals = {path.name: path.read_bytes() for path in sorted(original.iterdir())}
    folder = scratch / "cdm"
    folder.mkdir()
    for name, data in originals.items():
        (folder / name).write_bytes(data)
    read = refused = 0
    for seed in seeds:
        chance = random.Random(seed)
        name = chance.choice(sorted(originals))
        (folder / name).write_bytes(mutated(originals[name], chance))
        try:
            counts = OmopFolder(folder).write_events(connection, "events", scratch=scratch)
            connection.sql("SELECT count(*) FROM events").fetchall()
            assert MARKER not in repr(counts), seed
            read += 1
        except DataSourceError as error:
            said = str(error) + repr(error.__cause__) + repr(error.__context__)
            assert MARKER not in said, seed
            refused += 1
        (folder / name).write_bytes(originals[name])
        for path in scratch.glob("events_*"):
            path.unlink()
    return read, refused


def test_changed_bytes_give_events_or_one_error(
    original: Path, connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    read, refused = read_mutated(original, connection, tmp_path, range(200))
    assert read > 20
    assert refused > 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_changed_bytes_give_events_or_one_error(
    original: Path, connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    read, refused = read_mutated(original, connection, tmp_path, range(1000, 1000 + FUZZ_CASES))
    assert read + refused == FUZZ_CASES
