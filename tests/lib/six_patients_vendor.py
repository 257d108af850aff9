"""The six fictional patients as a vendor's tables with their mapping and a code map."""

from __future__ import annotations

import csv
import datetime
import gzip
from pathlib import Path
from typing import Any

from site_client.sources.event_table_mapping import EventTablesMapping
from site_client.sources.event_tables import EventTables
from site_client.sources.events import BIRTH, DEATH, SEX
from tests.lib.six_patients import EVENTS, Event

ISO = ["%Y-%m-%d %H:%M:%S"]
GERMAN = ["%d.%m.%Y %H:%M:%S"]
SEXES = {"F": "female", "M": "male"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = ",".join(rows[0]) + "\n"
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as stream:
        stream.write(text)
        csv.writer(stream, lineterminator="\n").writerows(list(row.values()) for row in rows)
    return path


def _admitted(subject: str) -> datetime.datetime:
    visits = [e.time for e in EVENTS if e.subject_id == subject and e.code.startswith("Visit/")]
    return visits[0] if visits and visits[0] else datetime.datetime(2020, 1, 1)  # noqa: DTZ001


def _minutes(event: Event) -> str:
    assert event.time is not None
    return repr((event.time - _admitted(event.subject_id)).total_seconds() / 60)


def _text(time: datetime.datetime | None, form: str = ISO[0]) -> str:
    return time.strftime(form) if time else "NULL"


def write_six(folder: Path) -> None:
    facts = {(e.subject_id, e.code): e for e in EVENTS if e.code in (BIRTH, DEATH, SEX)}
    subjects = [
        {
            "patient": number,
            "stay": f"S{number}",
            "admitted": _text(_admitted(number)),
            "born": _text(facts[number, BIRTH].time, "%Y-%m-%d"),
            "sex": {"female": "F", "male": "M"}[str(facts[number, SEX].text_value)],
            "died": _minutes(facts[number, DEATH]) if (number, DEATH) in facts else "",
        }
        for number in ("101", "102", "103", "104", "105", "106")
    ]
    write(folder / "patients.csv", subjects)
    rest = [e for e in EVENTS if (e.subject_id, e.code) not in facts]
    labs = [e for e in rest if e.numeric_value is not None]
    write(
        folder / "labs.csv.gz",
        [
            {
                "stay": f"S{e.subject_id}",
                "offset": _minutes(e),
                "test": "creatinine" if e.code == "LOINC/2160-0" else e.code.partition("/")[2],
                "result": str(e.numeric_value),
                "unit": "mmHg" if e.unit == "mm[Hg]" else e.unit,
            }
            for e in labs
        ],
    )
    write(
        folder / "others.csv",
        [
            {
                "stay": f"S{e.subject_id}",
                "at": _text(e.time, GERMAN[0]),
                "code": f"x-{e.code}",
                "answer": "smoker?" if e.text_value else "",
            }
            for e in rest
            if e not in labs
        ],
    )


SUBJECTS: dict[str, Any] = {
    "file": {"path": "patients.csv"},
    "subject": "patient",
    "key": "stay",
    "birth": {"column": "born", "formats": ["%Y-%m-%d"]},
    "sex": {"column": "sex", "values": SEXES},
    "death": {"column": "died", "since_anchor": "minutes"},
    "anchor": {"time": {"column": "admitted", "formats": ISO}},
}
LABS: dict[str, Any] = {
    "file": {"path": "labs.csv.gz"},
    "subject": "stay",
    "time": {"column": "offset", "since_anchor": "minutes"},
    "code": {"column": "test", "vocabulary": "LOINC", "values": {"creatinine": "LOINC/2160-0"}},
    "value": "result",
    "unit": {"column": "unit", "values": {"mmHg": "mm[Hg]"}},
}
OTHERS: dict[str, Any] = {
    "file": {"path": "others.csv"},
    "subject": "stay",
    "time": {"column": "at", "formats": GERMAN},
    "code": {"column": "code", "map_files": ["map.csv"]},
    "text": {"column": "answer", "values": {"smoker?": "SNOMED/8517006"}},
}


def source(folder: Path, *entries: dict[str, Any], **declared: Any) -> EventTables:
    record = {"kind": "event_tables", "subjects": SUBJECTS, "events": list(entries), **declared}
    return EventTables(EventTablesMapping.model_validate(record), folder=folder)


def six(folder: Path) -> EventTables:
    write_six(folder)
    codes = sorted({e.code for e in EVENTS} - {SEX})
    rows = [{"code": f"x-{code}", "standard_code": code} for code in codes]
    write(folder / "map.csv", rows)
    return source(folder, LABS, OTHERS)
