"""The bundle that the coordinator sends carries no code, and sites accept no other."""

from __future__ import annotations

import io
import zipfile

from server.bundle import BUNDLE_FILES, build_bundle, bundle_digest, read_bundle
from site_client.courier.bundle_pin import BUNDLE_DIGEST, is_pinned


def test_the_bundle_holds_exactly_the_files_of_adr_0002() -> None:
    names = zipfile.ZipFile(io.BytesIO(read_bundle())).namelist()
    assert sorted(names) == [".info/CONTENT", "LICENSE", "README.md", "pyproject.toml"]


def test_the_shipped_bundle_holds_what_a_fresh_build_of_its_files_holds() -> None:
    shipped = zipfile.ZipFile(io.BytesIO(read_bundle()))
    built = zipfile.ZipFile(io.BytesIO(build_bundle()))
    for name in (*BUNDLE_FILES, ".info/CONTENT"):
        assert shipped.read(name) == built.read(name), name


def test_sites_pin_the_bundle_that_this_version_ships() -> None:
    content = read_bundle()
    assert bundle_digest(content) == BUNDLE_DIGEST
    assert is_pinned(content)
    assert not is_pinned(content + b"\0")
