"""The thin Flower bundle: its files are exactly those of decision 0002, and it holds no code."""

from __future__ import annotations

import hashlib
import io
import tomllib
import zipfile
from pathlib import Path

from server import bundle
from server.bundle import BUNDLE_FILES, build_bundle, bundle_digest, read_bundle

ROOT = Path(__file__).parents[3]


def _names(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.namelist()


def test_the_bundle_holds_exactly_its_three_files_and_their_list() -> None:
    for content in (read_bundle(), build_bundle()):
        names = _names(content)
        assert sorted(names) == [".info/CONTENT", "LICENSE", "README.md", "pyproject.toml"]


def test_the_shipped_bundle_has_the_files_of_the_source() -> None:
    with zipfile.ZipFile(io.BytesIO(read_bundle())) as archive:
        for name in BUNDLE_FILES:
            packed = archive.read(name).decode()
            source = (Path(bundle.__file__).parent / name).read_text(encoding="utf-8")
            if name.endswith(".toml"):  # Flower writes it anew, without its comments
                assert tomllib.loads(packed) == tomllib.loads(source)
            else:
                assert packed == source


def test_the_list_names_each_file_with_its_digest() -> None:
    with zipfile.ZipFile(io.BytesIO(read_bundle())) as archive:
        listed = archive.read(".info/CONTENT").decode().splitlines()
        for line in listed:
            name, digest, bits = line.split(",")
            content = archive.read(name)
            assert digest == hashlib.sha256(content).hexdigest()
            assert int(bits) == 8 * len(content)
    assert sorted(line.split(",")[0] for line in listed) == sorted(BUNDLE_FILES)


def test_the_bundle_asks_for_flower_only_and_points_at_installed_code() -> None:
    with zipfile.ZipFile(io.BytesIO(read_bundle())) as archive:
        project = tomllib.loads(archive.read("pyproject.toml").decode())
    assert project["project"]["dependencies"] == ["flwr>=1.41,<1.42"]
    components = project["tool"]["flwr"]["app"]["components"]
    assert components == {
        "serverapp": "server.app:app",
        "clientapp": "site_client.courier.client_app:app",
    }


def test_the_same_bytes_are_pinned_at_the_sites() -> None:
    pin = (ROOT / "site_client" / "courier" / "bundle_pin.py").read_text(encoding="utf-8")
    assert bundle_digest(read_bundle()) in pin
