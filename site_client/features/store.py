"""The feature store: rows made from the source, kept at the site, whole or not at all.

One folder for each entry. What is in `entry.json` exists; writing that one file (flushed, then
renamed) is the moment at which an entry begins to exist, and removing it the moment at which it
ends. Whatever else lies in the store was left by a process that died, and goes at the next build.
One process writes at a time, under a lock that ends with it; readers need none.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa

from common.errors import DataSourceError
from common.whole_file import write_whole
from site_client.features.store_entry import (
    EntryKey,
    FeatureEntry,
    RowsFile,
    damaged,
    entry_bytes,
    parse_entry,
)
from site_client.features.store_rows import check_parquet, read_parquet, write_parquet

ENTRY: Final = "entry.json"
_LOCK: Final = "store.lock"
_DIGESTS: Final = "source-files.json"
_PLANS: Final = "plan-files.json"
_BUILDING: Final = "building"
_DAY_S: Final = 86_400


class FeatureStore:
    """The entries of one site.

    Args:
        folder: the site's `SitePaths.features`; made with mode 0700.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def file_digests(self) -> Path:
        """Where the digests of the source's files are remembered."""
        self._make_folder()
        return self._folder / _DIGESTS

    @property
    def plan_files(self) -> Path:
        """Where plan files that were read are remembered."""
        self._make_folder()
        return self._folder / _PLANS

    def entries(self) -> tuple[FeatureEntry, ...]:
        """Return every whole entry, the newest first; a damaged description is passed over."""
        found = []
        for path in self._entry_folders():
            try:
                found.append(self.entry(path.name))
            except (OSError, DataSourceError):
                continue
        return tuple(sorted(found, key=lambda entry: (-entry.built_at_s, entry.id)))

    def names(self) -> tuple[str, ...]:
        """Return the name of every entry, damaged ones too."""
        return tuple(path.name for path in self._entry_folders())

    def find(self, key: EntryKey) -> FeatureEntry | None:
        """Return the newest entry of a key; None when there is none."""
        return next((entry for entry in self.entries() if entry.key == key), None)

    def entry(self, entry_id: str) -> FeatureEntry:
        """Return an entry by its name; raises `DataSourceError` when it is damaged or gone."""
        try:
            found = parse_entry((self._folder / entry_id / ENTRY).read_bytes())
        except OSError:
            pass
        else:
            if found.id == entry_id:
                return found
        raise damaged("its description")

    def check(self, entry: FeatureEntry) -> None:
        """Raise `DataSourceError` unless every file of an entry is as it was written."""
        for file in entry.files.values():
            check_parquet(self._folder / entry.id, file)

    def is_whole(self, entry: FeatureEntry) -> bool:
        """Whether every file of an entry is as it was written."""
        try:
            self.check(entry)
        except DataSourceError:
            return False
        return True

    def read(self, entry: FeatureEntry, what: str) -> pa.Table:
        """Return one table of an entry; raises `DataSourceError` when it is damaged."""
        if what not in entry.files:
            raise damaged("a Parquet file")
        return read_parquet(self._folder / entry.id, entry.files[what])

    @contextmanager
    def writing(self) -> Iterator[StoreWriter]:
        """Wait for the store's lock, clean up after the dead, and give the way to write.

        Raises:
            DataSourceError: the folder cannot be written.
        """
        self._make_folder()
        try:
            lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError:
            raise _unwritable(self._folder) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._clean()
            yield StoreWriter(self._folder)
        finally:
            os.close(lock)

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
        except OSError:
            raise _unwritable(self._folder) from None

    def _entry_folders(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if (path / ENTRY).is_file())

    def _clean(self) -> None:
        """Remove what dead processes left; the lock is ours, so nobody is at work on it."""
        for path in self._folder.iterdir():
            if path.is_dir() and not (path / ENTRY).is_file():
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                self._clean_entry(path)
            elif path.name.endswith(".partial"):
                path.unlink(missing_ok=True)

    def _clean_entry(self, path: Path) -> None:
        try:
            entry = parse_entry((path / ENTRY).read_bytes())
        except (OSError, DataSourceError):
            return  # damaged, which is not for us to hide: a build replaces it, a person drops it
        known = {ENTRY, *(file.name for file in entry.files.values())}
        for file in path.iterdir():
            if file.name not in known:
                file.unlink(missing_ok=True)


class StoreWriter:
    """The way to write, while the lock is held; see `FeatureStore.writing`.

    Args:
        folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(
        self,
        tables: Mapping[str, pa.Table],
        describe: Callable[[dict[str, RowsFile]], FeatureEntry],
        *,
        shared: Mapping[str, FeatureEntry] | None = None,
    ) -> FeatureEntry:
        """Write an entry; on return it is on disk.

        Args:
            tables: by what they hold.
            shared: by what they hold, entries whose file is this one's as well; it takes no room.
            describe: makes the entry from its written files.

        Raises:
            DataSourceError: no space, or no permission.
        """
        building = self._folder / _BUILDING
        try:
            building.mkdir(mode=0o700)
            files = {
                name: write_parquet(item, building, what=name) for name, item in tables.items()
            }
            for name, entry in (shared or {}).items():
                files[name] = entry.files[name]
                os.link(self._folder / entry.id / files[name].name, building / files[name].name)
            entry = describe(files)
            into = self._folder / entry.id
            into.mkdir(mode=0o700, exist_ok=True)
            for file in files.values():
                (building / file.name).replace(into / file.name)
            _flush_folder(into)
            write_whole(into / ENTRY, entry_bytes(entry), mode=0o600)
            building.rmdir()
            _flush_folder(self._folder)
        except OSError:
            shutil.rmtree(building, ignore_errors=True)
            raise _unwritable(self._folder) from None
        return entry

    def drop(self, entry_id: str) -> None:
        """Delete an entry; raises `DataSourceError` when the folder cannot be written.

        What lay on the disk is not overwritten: who must be sure encrypts the disk.
        """
        path = self._folder / entry_id
        try:
            (path / ENTRY).unlink(missing_ok=True)
            _flush_folder(path)
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError:
            raise _unwritable(self._folder) from None


def expired(
    entries: tuple[FeatureEntry, ...], *, in_use: frozenset[str], now_s: int, keep_days: int
) -> tuple[FeatureEntry, ...]:
    """Return the entries that are older than the site keeps them and that no study needs.

    Args:
        entries: of the store.
        in_use: ids of the entries of running studies.
        now_s: since 1970.
        keep_days: since an entry was built.
    """
    return tuple(
        entry
        for entry in entries
        if entry.id not in in_use and now_s - entry.built_at_s > keep_days * _DAY_S
    )


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(folder: Path) -> DataSourceError:
    return DataSourceError(
        "the feature store cannot be written",
        expected=f"a folder {folder} of the agent's own, with room for the rows",
        arrived="an error of the file system",
        todo="check space and permissions; `cohortium-site features drop` makes room",
    )
