"""The board's pages in Chromium: they load, draw and work under their own content policy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from server.monitor_board.web.serve import LOGIN_TOKEN
from simulations.deployment import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
STUDY = "/study/stroke-outcome"
PAGES = {
    "overview": f"{STUDY}/overview",
    "site": f"{STUDY}/site/site-0002?courses=all",
    "model": f"{STUDY}/model",
    "fairness": f"{STUDY}/fairness",
    "privacy": f"{STUDY}/privacy",
    "protocol": f"{STUDY}/protocol",
    "decisions": f"{STUDY}/decisions",
}
PICTURES = {"site": 3, "model": 2, "fairness": 1}
"""Pages with charts, and how many they have at least."""

_WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
  (event) => window.violations.push(event.violatedDirective + " " + event.blockedURI));
"""
_PICTURES = """() => [...document.querySelectorAll(".picture svg")].map((svg) => {
  const box = svg.getBoundingClientRect();
  const shapes = [...svg.querySelectorAll("path, line, polyline, polygon, rect, circle")];
  const drawn = shapes.filter((shape) => {
    const size = shape.getBoundingClientRect();
    return size.width + size.height > 0;
  });
  return [box.width, box.height, drawn.length];
})"""
_INK_OF_CANVAS = """(canvas) => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.filter((value, place) => place % 4 === 3 && value > 0).length;
}"""


@dataclass
class Board:
    """A running board's address and the folder of its tokens."""

    url: str
    folder: Path

    def token(self) -> str:
        return (self.folder / LOGIN_TOKEN).read_text().strip()


@dataclass
class Visit:
    """A page of a browser, and what went wrong on it."""

    page: Page
    board: Board
    faults: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Load a page with its scripts and pictures."""
        answer = self.page.goto(self.board.url + path, wait_until="load")
        assert answer is not None and answer.status == 200, path

    def check(self) -> None:
        """Nothing was told to the console, refused by the policy, or asked of another host."""
        assert self.page.evaluate("window.violations") == []
        assert self.faults == []


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder, port = tmp_path_factory.mktemp("web"), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lib.serve_views", str(folder), str(port)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield Board(url, folder)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None
        try:
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the board did not come up")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("there is no Chromium on this machine (apt-get install chromium)")
    # Chromium refuses its own sandbox to root; it opens nothing but our own page here.
    words = ["--no-sandbox", "--no-proxy-server", "--disable-gpu", "--disable-dev-shm-usage"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=words)
        yield browser
        browser.close()


@contextmanager
def _visit(browser: Browser, board: Board, scheme: str = "light") -> Iterator[Visit]:
    """Open a browser window that is not logged in."""
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    context.set_default_timeout(20_000)
    context.add_init_script(_WATCH_POLICY)
    visit = Visit(context.new_page(), board)
    page, faults = visit.page, visit.faults
    page.on("pageerror", lambda error: faults.append(f"error {error}"))
    page.on(
        "console",
        lambda said: faults.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(board.url) else faults.append(asked.url),
    )
    try:
        yield visit
    finally:
        context.close()


def _log_in(visit: Visit) -> None:
    token = visit.board.token()
    visit.go(f"/login#{token}")
    assert visit.page.input_value("#token") == token
    assert token not in visit.page.url  # the script took it out of the address
    visit.page.click("text=Log in >> nth=-1")
    visit.page.wait_for_selector("nav.pages")


def test_a_token_logs_in_once_and_logging_out_closes_the_door(
    browser: Browser, board: Board
) -> None:
    with _visit(browser, board) as visit:
        used = board.token()
        _log_in(visit)
        visit.check()
        visit.page.click("text=Log out")
        visit.page.wait_for_selector("#token")
        visit.page.goto(f"{board.url}{PAGES['overview']}")
        assert visit.page.url.endswith("/login")
        visit.page.fill("#token", used)
        visit.page.click("button[type=submit]")
        visit.page.wait_for_selector("[role=alert]")
        assert visit.page.evaluate("window.violations") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_loads_and_draws_without_an_error_or_a_violation_of_the_policy(
    browser: Browser, board: Board, scheme: str
) -> None:
    with _visit(browser, board, scheme) as visit:
        _log_in(visit)
        for name, path in PAGES.items():
            visit.go(path)
            visit.check()
            assert visit.page.locator("main table").count() > 0, name
            pictures = visit.page.evaluate(_PICTURES)
            assert len(pictures) >= PICTURES.get(name, 0), name
            for width, height, shapes in pictures:
                assert width > 50 and height > 30 and shapes > 3, name
        light = sum(_background(visit.page)) > 3 * 128
        assert light == (scheme == "light")


def _background(page: Page) -> list[int]:
    """Return the page's red, green and blue as a screen shows them."""
    words = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return [int(word) for word in words[words.index("(") + 1 : -1].split(",")[:3]]


def test_zoom_draws_the_table_and_the_filter_shows_fewer_rows(
    browser: Browser, board: Board
) -> None:
    with _visit(browser, board) as visit:
        _log_in(visit)
        visit.go(PAGES["site"])
        visit.page.click("button.zoom >> nth=0")
        canvas = visit.page.wait_for_selector("figure.series canvas")
        assert canvas is not None
        assert visit.page.eval_on_selector("figure.series canvas", _INK_OF_CANVAS) > 500
        visit.check()
        visit.go(PAGES["overview"])
        rows = visit.page.locator("#rows tbody tr")
        before = rows.count()
        visit.page.fill("input[name=words]", "0002")
        rows.nth(before - 1).wait_for(state="detached")
        assert (before, rows.count()) == (6, 1)
        assert "words=0002" in visit.page.url
        visit.check()
