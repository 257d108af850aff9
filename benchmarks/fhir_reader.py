"""Speed of the FHIR reader beside the standard library's JSON parser over the same bytes.

    COHORTIUM_DATA=../shared/data python benchmarks/fhir_reader.py [--megabytes 60] [--pairs 5]

NDJSON is made from the Synthea bundles, one file per resource type as a bulk export has them. Each
pair is `json.loads` of every line and nothing else, then the whole reader (parse, map, Parquet,
join, distinct), in one process; the figure is the median of the pairs' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import tarfile
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import orjson

from site_client.sources.fhir import FhirFolder
from site_client.sources.local_database import open_local

BUNDLES = Path(os.environ.get("COHORTIUM_DATA", "../shared/data")) / "fhir_synthea/bundles.tar.gz"


def write_export(folder: Path, bytes_min: int) -> tuple[int, int]:
    """Write NDJSON of at least so many bytes; returns bytes and resources."""
    written = resources = 0
    files: dict[str, BinaryIO] = {}
    with tarfile.open(BUNDLES) as archive, ExitStack() as stack:
        for member in archive:
            packed = archive.extractfile(member) if member.isfile() else None
            if packed is None:
                continue
            entries = orjson.loads(packed.read())["entry"]
            patients = {
                entry["fullUrl"]: entry["resource"]["id"]
                for entry in entries
                if entry["resource"]["resourceType"] == "Patient"
            }
            for entry in entries:
                item = entry["resource"]
                for name in ("subject", "patient"):
                    if item.get(name, {}).get("reference") in patients:
                        item[name]["reference"] = f"Patient/{patients[item[name]['reference']]}"
                line = orjson.dumps(item) + b"\n"
                kind = item["resourceType"]
                if kind not in files:
                    files[kind] = stack.enter_context((folder / f"{kind}.ndjson").open("wb"))
                files[kind].write(line)
                written += len(line)
                resources += 1
            if written >= bytes_min:
                return written, resources
    return written, resources


def seconds_of_json(folder: Path) -> float:
    started = time.perf_counter()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as lines:
            for line in lines:
                json.loads(line)
    return time.perf_counter() - started


def seconds_of_reader(folder: Path) -> tuple[float, int]:
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        connection = open_local(scratch=Path(scratch))
        FhirFolder(folder, "Europe/London").write_events(
            connection, "events", scratch=Path(scratch)
        )
        passed = time.perf_counter() - started
        row = connection.execute("SELECT count(*) FROM events").fetchone()
        connection.close()
    return passed, 0 if row is None else int(row[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    if not BUNDLES.is_file():
        print(f"skipped: no {BUNDLES}; set COHORTIUM_DATA")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written, resources = write_export(folder, options.megabytes * 1_000_000)
        pairs = []
        events = 0
        for _ in range(options.pairs):
            plain = seconds_of_json(folder)
            ours, events = seconds_of_reader(folder)
            pairs.append((plain, ours))
        megabytes = written / 1e6
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{megabytes:.1f} MB, {resources} resources, {events} events")
    for plain, ours in pairs:
        print(
            f"json.loads {megabytes / plain:6.1f} MB/s   reader {megabytes / ours:6.1f} MB/s"
            f"   ratio {ours / plain:.2f}"
        )
    ratio = statistics.median(ours / plain for plain, ours in pairs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"median ratio {ratio:.2f} (goal: at most 2); peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
