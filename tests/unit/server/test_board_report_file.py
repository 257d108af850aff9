"""The report file: the same numbers, no script, nothing loaded, its one style named by hash."""

from __future__ import annotations

import base64
import hashlib
import re
import stat
from pathlib import Path

import pytest

from common.errors import ConfigError
from server.monitor_board.web.report_file import SITES_MAX, report_html, write_report
from tests.lib.board_views import make_study, make_view
from tests.lib.html_pages import Page


def test_the_report_has_no_script_and_one_style_that_its_policy_names_by_hash() -> None:
    page = Page(report_html(make_view()))
    [style] = page.styles
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [item["content"] for item in page.with_tag("meta") if "http-equiv" in item]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not page.scripts
    assert not page.with_tag("script")
    assert not [tag for tag, item in page.elements if "style" in item]
    assert "url(" not in style
    assert "@import" not in style


def test_every_link_of_the_report_leads_to_a_part_of_it() -> None:
    view = make_view(make_study(), make_study(study_id="second", title="Second"))
    page = Page(report_html(view))
    ids = page.ids()
    assert len(ids) == len(set(ids))
    for address in page.addresses():
        assert address.startswith("#")
        assert address[1:] in ids, address


def test_the_report_has_the_pages_of_the_worst_sites_and_says_what_it_left_out() -> None:
    page = Page(report_html(make_view(make_study(sites=SITES_MAX + 3))))
    assert "stroke-outcome-site-site-0002" in page.ids()
    assert "3 more sites have no page here" in page.text
    [heat] = [rows for caption, rows in page.tables.items() if caption.startswith("Heat map")]
    assert len(heat) == SITES_MAX + 3 + 1
    assert not page.with_tag("form")


def test_the_report_file_is_readable_by_its_owner_alone_and_never_overwrites(
    tmp_path: Path,
) -> None:
    target = tmp_path / "report.html"
    write_report(make_view(), target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert re.match(r"<!doctype html>", target.read_text())
    with pytest.raises(ConfigError):
        write_report(make_view(), target)
