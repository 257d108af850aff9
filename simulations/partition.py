"""Divide one data set among virtual sites: by a column, by label, by quantity or by time.

All rows of one patient go to one site. A part with too few patients is left out and told; a
division that leaves fewer than two sites is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from common import limits
from common.errors import ConfigError
from common.study.plan import StudyPlan
from simulations.data_set import DataSet, read_sites_file
from simulations.part_of_data import Data, PartOfData, question_of, rows_at
from simulations.site_names import natural_order, site_ids
from simulations.virtual_site import VirtualSite
from site_client.sources.table_dates import NO_DATE, index_date_of

PATIENTS_MIN: Final = 50
"""Patients of a part that takes part, where nothing else is said."""
_ROUNDED_TO: Final = 10
"""Declared cohort sizes are rounded down to a multiple of this: a hospital says about how many."""


@dataclass(frozen=True)
class Partition(Sequence[VirtualSite]):
    """Virtual sites made of one data set.

    Args:
        sites: by id.
        words: how it was divided, for a report.
        left_out: what was left out and why, one sentence each.
    """

    sites: tuple[VirtualSite, ...]
    words: str
    left_out: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> VirtualSite: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[VirtualSite]: ...
    def __getitem__(self, index: int | slice) -> VirtualSite | Sequence[VirtualSite]:
        return self.sites[index]

    def __len__(self) -> int:
        return len(self.sites)


def by_column(
    data: DataSet, plan: StudyPlan, column: str | Path, *, patients_min: int = PATIENTS_MIN
) -> Partition:
    """Return one site for each text in a column, such as the hospital.

    Args:
        data: to be divided.
        plan: whose patients they are.
        column: of a table; or a CSV file of subject_id,site, for any source.
        patients_min: a part with fewer is left out.

    Raises:
        ConfigError: no such column or file; fewer than two sites are left.
        DataSourceError: the data do not fit the plan.
    """
    of_patient = read_sites_file(column) if isinstance(column, Path) else data.column(column)
    what = f"the file {column.name}" if isinstance(column, Path) else f"the column {column}"
    named = {who: text for who, text in of_patient.items() if text}
    unknown = _patients(data, plan) - named.keys()
    left_out = () if not unknown else (f"{len(unknown)} patients for whom {what} names no site",)
    texts = sorted(set(named.values()), key=natural_order)
    ids = dict(zip(texts, site_ids(texts), strict=True))
    chosen = {who: ids[text] for who, text in named.items()}
    return _divided(
        data, plan, chosen, words=f"by {what}", patients_min=patients_min, left_out=left_out
    )


def by_label_skew(
    data: Data,
    plan: StudyPlan,
    *,
    sites: int,
    alpha: float,
    seed: int = 1,
    patients_min: int = PATIENTS_MIN,
) -> Partition:
    """Return sites whose shares of each outcome are drawn from a Dirichlet distribution.

    For each outcome the sites' shares are Dirichlet(alpha, ..., alpha) and the patients with it are
    shuffled and cut by them (Yurochkin et al. 2019, section 4; Li et al. 2022, section IV). A
    patient with several rows counts with the highest outcome of them.

    Args:
        data, plan, patients_min: see `by_column`.
        sites: how many are cut; two or more.
        alpha: small values make sites differ much; above about 100 they are alike.
        seed: the division is a function of the patients and this number.

    Raises:
        ConfigError, DataSourceError: see `by_column`.
    """
    _check_number("sites", sites, sites >= 2, "2 or more")
    _check_number("alpha", alpha, 0 < alpha < np.inf, "a number above 0")
    rng = np.random.default_rng([seed, sites, 1])
    table = data.rows(plan)
    outcome: dict[str, float] = {}
    for who, value in zip(table.subject_ids, table.label.tolist(), strict=True):
        outcome[who] = max(value, outcome.get(who, 0.0))
    chosen: dict[str, str] = {}
    for value in (0.0, 1.0):
        patients = sorted(who for who, found in outcome.items() if found == value)
        rng.shuffle(patients)
        edges = np.cumsum(rng.dirichlet(np.full(sites, alpha))) * len(patients)
        chosen |= _cut(patients, edges)
    words = f"by label skew, Dirichlet with alpha {alpha:g}, seed {seed}"
    return _divided(data, plan, chosen, words=words, patients_min=patients_min)


def by_quantity(
    data: Data,
    plan: StudyPlan,
    *,
    sites: int,
    exponent: float,
    seed: int = 1,
    patients_min: int = PATIENTS_MIN,
) -> Partition:
    """Return sites of unequal size: that of rank r is proportional to r^-exponent.

    Args:
        data, plan, seed, patients_min: see `by_label_skew`.
        sites: how many are cut; two or more.
        exponent: 0 makes equal sites, 1 Zipf's.

    Raises:
        ConfigError, DataSourceError: see `by_column`.
    """
    _check_number("sites", sites, sites >= 2, "2 or more")
    _check_number("exponent", exponent, 0 <= exponent < np.inf, "a number of 0 or more")
    patients = sorted(_patients(data, plan))
    np.random.default_rng([seed, sites, 2]).shuffle(patients)
    sizes = np.arange(1, sites + 1, dtype=np.float64) ** -exponent
    chosen = _cut(patients, np.cumsum(sizes / sizes.sum()) * len(patients))
    words = f"by quantity, sizes as rank to the power of -{exponent:g}, seed {seed}"
    return _divided(data, plan, chosen, words=words, patients_min=patients_min)


def by_time(
    data: DataSet,
    plan: StudyPlan,
    *,
    column: str | None = None,
    sites: int,
    patients_min: int = PATIENTS_MIN,
) -> Partition:
    """Return sites that are consecutive periods with about as many patients each, oldest first.

    Patients of one time stay together, so a coarse column (years) may give fewer or unequal sites.

    Args:
        data, plan, patients_min: see `by_column`.
        column: of dates or numbers in a table; None: the index dates of the rows.
        sites: how many periods; two or more.

    Raises:
        ConfigError: see `by_column`; or the data have no dates.
        DataSourceError: see `by_column`.
    """
    _check_number("sites", sites, sites >= 2, "2 or more")
    times, what = _times(data, plan, column)
    of_patient = {who: times[who] for who in _patients(data, plan) if who in times}
    missing = len(_patients(data, plan)) - len(of_patient)
    ordered = np.sort(np.array(list(of_patient.values())))
    chosen = {
        who: _numbered("period", int(np.searchsorted(ordered, time)) * sites // len(ordered), sites)
        for who, time in of_patient.items()
    }
    return _divided(
        data,
        plan,
        chosen,
        words=f"by time, {what}",
        patients_min=patients_min,
        left_out=(f"{missing} patients without a time in {what}",) if missing else (),
    )


def _divided(
    data: Data,
    plan: StudyPlan,
    chosen: Mapping[str, str],
    *,
    words: str,
    patients_min: int,
    left_out: tuple[str, ...] = (),
) -> Partition:
    """Return the sites of a division, those with too few patients left out."""
    table = data.rows(plan)
    places: dict[str, list[int]] = {}
    patients: dict[str, set[str]] = {}
    for place, who in enumerate(table.subject_ids):
        if who in chosen:
            places.setdefault(chosen[who], []).append(place)
            patients.setdefault(chosen[who], set()).add(who)
    least = max(patients_min, limits.COHORT_SIZE_MIN)
    sizes = {name: len(found) for name, found in sorted(patients.items(), key=_by_name)}
    small = [name for name, size in sizes.items() if size < least]
    empty = len(set(chosen.values()) - sizes.keys())
    if small:
        told = sum(sizes[name] for name in small)
        left_out += (
            f"{len(small)} of {len(sizes)} parts with fewer than {least} patients "
            f"({told} patients in all): {', '.join(small[:20])}{' …' if len(small) > 20 else ''}",
        )
    if empty:
        left_out += (f"{empty} parts without any patient of the plan",)
    kept = [name for name in sizes if name not in set(small)]
    if len(kept) < 2:
        raise ConfigError(
            f"the division {words} is refused",
            expected=f"two parts or more with at least {least} patients of the plan each",
            arrived=f"{len(kept)} such part(s) of {len(sizes)}; the largest have "
            f"{', '.join(str(size) for size in sorted(sizes.values(), reverse=True)[:5]) or 0}",
            todo="divide into fewer or more even sites, or accept smaller ones "
            f"(`--patients-min`, {limits.COHORT_SIZE_MIN} or more)",
        )
    question = question_of(plan)
    sites = tuple(
        VirtualSite(
            name,
            sizes[name] // _ROUNDED_TO * _ROUNDED_TO,
            PartOfData(
                data,
                frozenset(patients[name]),
                question=question,
                table=rows_at(table, np.array(places[name], np.int64)),
            ),
        )
        for name in kept
    )
    return Partition(sites, words, left_out)


def _times(data: DataSet, plan: StudyPlan, column: str | None) -> tuple[dict[str, float], str]:
    """Return each patient's first time as a number, and where it is from."""
    if column is not None:
        parsed = {who: _number(text) for who, text in data.column(column).items()}
        if not any(value is not None for value in parsed.values()):
            raise _no_times(f"the column {column} with no date or number in it")
        known = {who: value for who, value in parsed.items() if value is not None}
        return known, f"the column {column}"
    table = data.rows(plan)
    if table.index_time is None or np.isnat(table.index_time).all():
        raise _no_times("rows without one")
    found: dict[str, float] = {}
    for who, time in zip(table.subject_ids, table.index_time, strict=True):
        if not np.isnat(time):
            number = float(time.astype("datetime64[s]").astype(np.int64))
            found[who] = min(number, found.get(who, np.inf))
    return found, "the index date"


def _number(text: str) -> float | None:
    try:
        return float(text) if np.isfinite(float(text)) else None
    except ValueError:
        date = index_date_of(text)
    if date is None or date is NO_DATE or np.isnat(date):
        return None
    return float(date.astype("datetime64[s]").astype(np.int64))


def _no_times(arrived: str) -> ConfigError:
    return ConfigError(
        "the data set cannot be divided by time",
        expected="a column of ISO dates or numbers, or an index date in each row",
        arrived=arrived,
        todo="name another column, or `index_date_column` under [source]",
    )


def _patients(data: Data, plan: StudyPlan) -> set[str]:
    return set(data.rows(plan).subject_ids)


def _cut(patients: Sequence[str], edges: npt.NDArray[np.float64]) -> dict[str, str]:
    """Return the site of each patient: site k has those up to the k-th edge."""
    stops = np.rint(edges).astype(np.int64)
    stops[-1] = len(patients)
    site = np.searchsorted(stops, np.arange(len(patients)), side="right")
    return {
        who: _numbered("site", number, len(edges))
        for who, number in zip(patients, site.tolist(), strict=True)
    }


def _numbered(word: str, number: int, of: int) -> str:
    return f"{word}-{number + 1:0{len(str(of))}d}"


def _by_name(item: tuple[str, Any]) -> tuple[Any, ...]:
    return natural_order(item[0])


def _check_number(name: str, value: float, is_right: bool, expected: str) -> None:
    if not is_right:
        raise ConfigError(
            f"{name} = {value:g} is refused",
            expected=expected,
            arrived=f"{value:g}",
            todo="correct the number",
        )
