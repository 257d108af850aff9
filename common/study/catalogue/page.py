"""The catalogue as a page and as records: all that a plan may take, and where it is from."""

from __future__ import annotations

from collections.abc import Iterator

from common.study.catalogue.entries import AGGREGATES, Catalogue, Entry

_HEAD = """# The feature catalogue

Version {version}, {count} entries. A plan takes `creatinine.last`, the last creatinine, by

```toml
[[features]]
from_catalogue = "creatinine.last"
```

as [the study plan](study-plan.md#features-from-the-catalogue) explains. This page is made from the
catalogue's data files by `make catalogue-page`; `cohortium-coordinator plan catalogue` lists them.

How values become one:
{kinds}

**Ranges.** A value outside the *plausible* range is set missing and counted. Its source stands in
brackets. *Clip* bounds are this catalogue's own choice: about from a low critical value to a high
one. They are public, and no patient's data went into them. `count` is clipped to 50 (conditions and
drugs 20), `time_since` to the window, `slope` to half the clip's span a day. *Window* is in days.

**Codes.** Every LOINC and SNOMED CT code has its right check digit. *Seen in* says where a code was
found together with its name; `public-code` is the weakest: look such a code up before you rely on
it. A site's codes are found as [Codes](study-plan.md#codes) says: OMOP sites by SNOMED CT, LOINC,
RxNorm and, where their vocabulary tables hold it, ATC; sites with codes as recorded by ICD and ATC
as well. A site that records RxNorm products and has no vocabulary tables needs a code map to
ingredients. Where an entry has no ICD-9-CM codes, none were found in a source that could be read.
"""


def catalogue_page(catalogue: Catalogue) -> str:
    """Return docs/feature-catalogue.md."""
    kinds = "\n".join(
        f"- {kind}: {', '.join(f'`{item}`' for item in items) or 'taken by its name alone'}"
        for kind, items in AGGREGATES.items()
    )
    count = len(catalogue.entries)
    lines = [_HEAD.format(version=catalogue.version, count=count, kinds=kinds)]
    for group, title in catalogue.groups.items():
        lines += [f"## {title}", ""]
        for entry in catalogue.entries.values():
            if entry.group == group:
                lines += [*_entry(entry), ""]
    lines += ["## Sources", ""]
    lines += [f"- `{key}`: {citation}" for key, citation in catalogue.sources.items()]
    return "\n".join(lines) + "\n"


def _entry(entry: Entry) -> Iterator[str]:
    yield f"**`{entry.name}`** {entry.says}"
    yield ""
    facts: list[str] = [entry.kind]
    if entry.unit is not None:
        facts.append(f"unit `{entry.unit}`")
    if entry.analyte is not None:
        facts.append(f"analyte {entry.analyte}")
    if entry.plausible_range is not None and entry.clip is not None:
        low, high = entry.plausible_range
        facts.append(f"plausible {low:g} to {high:g} ({', '.join(entry.ranges)})")
        facts.append(f"clip {entry.clip[0]:g} to {entry.clip[1]:g}")
    if entry.levels:
        facts.append("levels " + ", ".join(f"`{level}`" for level in entry.levels))
    if entry.kind != "age":
        facts.append(f"window {entry.window_days}")
    yield f"- {'; '.join(facts)}"
    for code, name in entry.codes.items():
        yield f"- `{code}` {name}"
    for edition, codes in (("ICD-10", entry.icd10), ("ICD-9-CM", entry.icd9cm)):
        if codes:
            yield f"- {edition}: {' '.join(f'{code}*' for code in codes)}".replace("*", "\\*")
    yield f"- seen in {', '.join(entry.verified)}"


def entry_record(entry: Entry) -> dict[str, object]:
    """Return an entry as a record for `--json` output."""
    return entry.model_dump(mode="json") | {"terms": list(entry.terms())}
