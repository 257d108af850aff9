"""A site's own codes to standard ones, declared: nothing is guessed, and nothing is a chain.

A code map file is CSV in UTF-8 whose first line is `code,standard_code`. A code may stand on two
lines with two standard codes: each record with it is then two events. A standard code is final: a
file that also maps it further is refused, whether or not that ends in a circle.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from site_client.sources.events import SEX
from site_client.sources.file_refusal import refuse_file

HEADER: Final = ("code", "standard_code")
CODE_PATTERN: Final = r"^[A-Za-z0-9_.+-]{1,40}/[^\s/][^\r\n]{0,120}$"
"""A vocabulary and a code, as a plan writes it."""
CODES_MAX: Final = 1_000_000  # the largest vocabularies of one site are a tenth of it
MAP_FILE_BYTES_MAX: Final = 256 << 20

SiteCode = Annotated[str, Field(min_length=1, max_length=1000)]
StandardCode = Annotated[str, Field(max_length=1000, pattern=CODE_PATTERN)]

CodeMap = dict[str, tuple[str, ...]]
"""A site's code to its standard codes, at least one."""

_is_code = re.compile(CODE_PATTERN).match


def is_standard_code(text: str) -> bool:
    """Return whether a text has the form of a vocabulary and a code, `LOINC/2160-0`."""
    return _is_code(text) is not None and "//" not in text


def merge_code_maps(
    declared: Mapping[str, str], files: Mapping[str, Path], *, place: str = "code_map"
) -> CodeMap:
    """Return the declared map and those of the files as one.

    Args:
        declared: site code to standard code, from site.toml.
        files: name to path of code map files.
        place: what site.toml calls the declared map.

    Raises:
        DataSourceError: a file that is no code map, a code mapped in two places, or a standard
            code that is mapped further; with file and line, never the code.
    """
    merged: CodeMap = {}
    places: dict[str, str] = {}
    for code, target in declared.items():
        _check_target(f"{place} in site.toml", target)
        merged[code] = (target,)
        places[code] = f"{place} in site.toml"
    for name, path in files.items():
        for line, code, target in _lines(name, path):
            where = f"{name}, line {line}"
            _check_target(where, target)
            if places.setdefault(code, name) != name or target in merged.get(code, ()):
                raise refuse_file(
                    f"{where}: this code is mapped already",
                    expected="each code in one place, and each pair of codes once",
                    arrived=f"the code also stands in {places[code]}",
                    todo="remove one of the two",
                )
            merged[code] = (*merged.get(code, ()), target)
            if len(merged) > CODES_MAX:
                raise refuse_file(
                    f"{where}: too many codes", expected=f"at most {CODES_MAX:,} codes"
                )
    _check_final(merged, places)
    return merged


def _check_final(merged: CodeMap, places: Mapping[str, str]) -> None:
    for code, targets in merged.items():
        if any(target in merged for target in targets):
            raise refuse_file(
                f"{places[code]}: a standard code is itself mapped further",
                expected="standard codes that end the way: no chain and no circle",
                arrived="a standard code that also stands among the codes to map",
                todo="map each of the site's codes straight to its standard code",
            )


def _check_target(where: str, target: str) -> None:
    if not is_standard_code(target) or target == SEX:
        raise refuse_file(
            f"{where}: the standard code is refused",
            expected="vocabulary/code, such as LOINC/2160-0, and not sex, which has its own entry",
        )


def _lines(name: str, path: Path) -> Iterator[tuple[int, str, str]]:
    text = _text(name, path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error:
            break
        number = reader.line_num
        if cells is None:
            if number == 0:
                break
            return
        if number == 1:
            if tuple(cell.strip() for cell in cells) != HEADER:
                break
            continue
        if not cells:
            continue
        if len(cells) != len(HEADER) or not cells[0].strip():
            break
        yield number, cells[0].strip(), cells[1].strip()
    raise refuse_file(
        f"{name}, line {max(number, 1)}: not a code map",
        expected=f"CSV with the first line {','.join(HEADER)} and two fields a line",
        todo="correct that line",
    )


def _text(name: str, path: Path) -> str:
    try:
        if path.stat().st_size <= MAP_FILE_BYTES_MAX:
            return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeError):
        pass
    raise refuse_file(
        f"{name}: the code map cannot be read",
        expected=f"a file in UTF-8 of at most {MAP_FILE_BYTES_MAX >> 20} MiB",
        arrived="no such file, another encoding, or a larger one",
        todo="correct the path in site.toml, or export the file as UTF-8",
    )
