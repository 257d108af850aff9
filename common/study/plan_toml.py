"""A plan as a TOML file with nothing left out: what the digest covers, for people to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from common.study.plan import StudyPlan


def plan_toml(plan: StudyPlan) -> str:
    """Return a plan file that reads back as exactly this plan, defaults written out."""
    return "\n".join(_table((), plan.model_dump(mode="json"))).lstrip("\n") + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, object]) -> Iterator[str]:
    later: list[tuple[str, object]] = []
    for key, value in table.items():
        if value is None:
            continue  # TOML has no null: a key that is not there
        if isinstance(value, Mapping) or _is_tables(value):
            later.append((key, value))
        else:
            yield from _assignment(key, value)
    for key, value in later:
        below = (*path, key)
        name = ".".join(below)
        if isinstance(value, Mapping):
            yield from ("", f"[{name}]", *_table(below, value))
        elif isinstance(value, Sequence):
            for item in value:
                yield from ("", f"[[{name}]]", *_table(below, item))


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _assignment(key: str, value: object) -> Iterator[str]:
    # JSON writes text, numbers, lists and true or false as TOML does; long lists one item a line.
    text = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, list) or len(text) < 90:
        yield f"{key} = {text}"
        return
    yield f"{key} = ["
    yield from (f"  {json.dumps(item, ensure_ascii=False)}," for item in value)
    yield "]"
