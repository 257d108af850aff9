"""Files beside a generated hospital's data: `site.toml`, and `data.toml` with its source alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import TypeAdapter

from simulations.populations.hospital import Hospital
from site_client.sources.source_mapping import SourceMapping


def write_site_files(folder: Path, hospital: Hospital, source: str) -> None:
    """Write both files.

    Args:
        folder: of the site.
        hospital: whose.
        source: the `[source]` part, as TOML.
    """
    head = (
        "# Generated patients: nobody in these data is real.\n"
        f'[site]\nid = "{hospital.site_id}"\n'
        f"declared_cohort_size = {max(hospital.declared_cohort_size, 1)}\n\n"
        "[limits]\nepsilon_per_study = 10.0\nepsilon_total = 20.0\ndelta_total = 1e-3\n"
        "cohort_size_min = 20\n\n"
    )
    (folder / "site.toml").write_text(head + source, encoding="utf-8")
    (folder / "data.toml").write_text(source, encoding="utf-8")


def read_source(folder: Path) -> SourceMapping:
    """Return the `[source]` that `write_site_files` wrote."""
    document = tomllib.loads((folder / "data.toml").read_text(encoding="utf-8"))
    adapter: TypeAdapter[SourceMapping] = TypeAdapter(SourceMapping)
    return adapter.validate_python(document["source"])
