"""Builds a plan's rows from each format in a process that refuses every socket; takes a folder."""

from __future__ import annotations

import sys
from pathlib import Path


def _refuse(event: str, _: tuple[object, ...]) -> None:
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        raise RuntimeError(event)


def main() -> None:
    """Read the six patients from every format and print who came out."""
    sys.addaudithook(_refuse)
    # Imported under the hook: a library that asked for an address on import would be seen.
    from site_client.features.event_patients import read_event_patients
    from tests.lib.event_plans import plan_for_events
    from tests.lib.six_sources import SOURCES

    for name, make in SOURCES.items():
        folder = Path(sys.argv[1]) / name
        scratch = folder / "scratch"
        scratch.mkdir(parents=True)
        source = make(folder / "data")
        source.fingerprint()
        found = read_event_patients(plan_for_events(), source, scratch=scratch)
        print(f"{name}: {' '.join(found.table.subject_ids)}")


if __name__ == "__main__":
    main()
