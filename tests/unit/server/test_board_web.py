"""The dashboard over HTTP: who gets in, what answers carry, and what no answer or log has."""

from __future__ import annotations

import logging
import re
import stat
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from common.clock import FixedClock
from server.monitor_board.web.access import (
    ADDRESSES_MAX,
    ATTEMPTS_MAX,
    ATTEMPTS_WINDOW_S,
    IDLE_S,
    SESSION_S,
    SESSIONS_MAX,
    Access,
    token_digest,
    write_private,
)
from server.monitor_board.web.app import Dashboard, make_app
from server.monitor_board.web.assets import read_assets
from server.monitor_board.web.pages import PAGES
from server.monitor_board.web.view_source import ViewSource
from server.monitor_board.web.views import BoardView
from tests.lib.asgi_client import client_of
from tests.lib.board_views import make_study, make_view
from tests.lib.html_pages import Page

METRICS_TOKEN = "metrics-token-of-the-test"
PATHS = [
    "/",
    *[f"/study/stroke-outcome/{page}" for page, _ in PAGES],
    "/study/stroke-outcome/site/site-0002",
]


class KeptView:
    """A maker of one view that is there already."""

    def __init__(self, view: BoardView) -> None:
        self.view = view

    def newest_position(self) -> int:
        return self.view.position

    def make(self) -> BoardView:
        return self.view


class Desk:
    """A board's dashboard under test."""

    def __init__(self, *views: BoardView, is_tls: bool = False) -> None:
        self.clock = FixedClock()
        self.tokens: list[str] = []
        self.access = Access(self.clock, on_new_token=self.tokens.append)
        maker = KeptView(views[0] if views else make_view())
        source = ViewSource(maker, now_s=lambda: maker.view.made_at_s, failed=lambda _: None)
        self.app = make_app(
            Dashboard(
                source=source,
                access=self.access,
                assets=read_assets(),
                metrics_digest=token_digest(METRICS_TOKEN),
                hosts=("127.0.0.1", "::1"),
                is_tls=is_tls,
            )
        )
        scheme = "https" if is_tls else "http"
        self.client = client_of(self.app, base_url=f"{scheme}://127.0.0.1:8460")

    def log_in(self) -> httpx.Response:
        return self.client.post("/login", data={"token": self.tokens[-1]})


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_every_page_sends_who_is_not_logged_in_to_the_login(desk: Desk) -> None:
    for path in PATHS:
        answer = desk.client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
        assert answer.text == ""


def test_no_route_but_login_health_metrics_and_static_is_open(desk: Desk) -> None:
    routes = [route for route in desk.app.routes if isinstance(route, APIRoute)]
    assert len(routes) >= 8
    open_to_all = set()
    for route in routes:
        path = re.sub(r"\{name:path\}", "board.css", route.path)
        path = re.sub(r"\{\w+\}", "overview", path)
        method = next(iter(route.methods))
        if desk.client.request(method, path).headers.get("location") != "/login":
            open_to_all.add(route.path)
    assert open_to_all == {"/login", "/health", "/metrics", "/static/{name:path}"}


def test_a_path_that_does_not_exist_is_not_told_from_one_that_does(desk: Desk) -> None:
    assert desk.client.get("/nothing").headers["location"] == "/login"
    desk.log_in()
    assert desk.client.get("/nothing").status_code == 404
    assert desk.client.get("/study/other/overview").status_code == 404
    assert desk.client.get("/study/stroke-outcome/site/nobody").status_code == 404
    assert desk.client.get("/study/stroke-outcome/frame").status_code == 404


def test_the_one_time_token_opens_every_page_once_and_the_next_is_another(desk: Desk) -> None:
    answer = desk.log_in()
    assert answer.headers["location"] == "/"
    for path in PATHS[1:]:
        assert desk.client.get(path).status_code == 200, path
    assert desk.client.get("/").headers["location"] == "/study/stroke-outcome/overview"
    first, second = desk.tokens
    assert first != second
    desk.client.cookies.clear()
    assert desk.client.post("/login", data={"token": first}).status_code == 403
    assert desk.client.get(PATHS[1]).status_code == 303


def test_the_cookie_is_strict_http_only_and_with_tls_secure_and_bound_to_the_host() -> None:
    plain, secure = Desk(), Desk(is_tls=True)
    text = plain.log_in().headers["set-cookie"].lower()
    assert "httponly" in text and "samesite=strict" in text and "path=/" in text
    assert "domain" not in text
    answer = secure.log_in()
    text = answer.headers["set-cookie"]
    assert text.startswith("__Host-") and "Secure" in text
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_no_token_or_cookie_is_in_an_address_a_page_or_a_log(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = desk.log_in()
    cookie = next(iter(desk.client.cookies.values()))
    secrets_known = [*desk.tokens, cookie]
    seen = [answer.headers["location"], caplog.text]
    for path in PATHS[1:]:
        page = desk.client.get(path)
        seen += [page.text, *Page(page.text).addresses()]
    for secret in secrets_known:
        assert not [text for text in seen if secret in text]


def test_every_answer_has_the_security_headers(desk: Desk) -> None:
    answers = [desk.client.get(path) for path in ("/login", "/health", "/static/board.css", "/")]
    desk.log_in()
    answers += [desk.client.get(path) for path in [*PATHS, "/nothing"]]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy and "*" not in policy and "data:" not in policy
        assert "frame-ancestors 'none'" in policy and "object-src 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        if not answer.request.url.path.startswith("/static/"):
            assert answer.headers["cache-control"] == "no-store"


def test_everything_a_page_names_is_served_to_it(desk: Desk) -> None:
    desk.log_in()
    for path in PATHS[1:]:
        for address in Page(desk.client.get(path).text).addresses():
            if not address.startswith("#") and address != "/logout":
                assert desk.client.get(address).status_code in (200, 303), address


def test_logins_that_fail_too_often_wait_by_address(desk: Desk) -> None:
    for _ in range(ATTEMPTS_MAX):
        assert desk.client.post("/login", data={"token": "guess"}).status_code == 403
    late = desk.log_in()
    assert late.status_code == 429
    assert 0 < int(late.headers["retry-after"]) <= ATTEMPTS_WINDOW_S
    assert desk.access.seconds_until_allowed("10.0.0.9") == 0
    desk.clock.seconds += ATTEMPTS_WINDOW_S
    assert desk.log_in().status_code == 303


def test_failures_of_many_addresses_take_bounded_memory() -> None:
    access = Access(FixedClock(), on_new_token=lambda _: None)
    for place in range(ADDRESSES_MAX + 50):
        assert access.log_in("guess", address=f"a{place}") is None
    assert len(access._failures) == ADDRESSES_MAX


def test_a_session_ends_when_idle_when_old_and_by_logout(desk: Desk) -> None:
    desk.log_in()
    desk.clock.seconds += IDLE_S - 1
    assert desk.client.get(PATHS[1]).status_code == 200
    desk.clock.seconds += IDLE_S
    assert desk.client.get(PATHS[1]).status_code == 303
    desk.log_in()
    for _ in range(SESSION_S // (IDLE_S // 2)):
        desk.clock.seconds += IDLE_S // 2
        desk.client.get(PATHS[1])
    assert desk.client.get(PATHS[1]).status_code == 303
    desk.log_in()
    cookie = next(iter(desk.client.cookies.values()))
    assert desk.client.post("/logout").headers["location"] == "/login"
    assert not desk.access.is_inside(cookie)


def test_the_session_seen_longest_ago_makes_room_for_a_new_one() -> None:
    clock, tokens = FixedClock(), list[str]()
    access = Access(clock, on_new_token=tokens.append)
    cookies = []
    for _ in range(SESSIONS_MAX + 1):
        clock.seconds += 1
        cookies.append(access.log_in(tokens[-1], address="a"))
    assert not access.is_inside(cookies[0])
    assert access.is_inside(cookies[1])
    assert access.is_inside(cookies[-1])


def test_a_foreign_host_name_is_refused(desk: Desk) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:8460", "", "[::2]:8460"):
        assert desk.client.get("/login", headers={"host": host}).status_code == 421
    assert desk.client.get("/login", headers={"host": "[::1]:8460"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "null"},
    ],
)
def test_a_form_sent_from_another_origin_is_refused(desk: Desk, headers: dict[str, str]) -> None:
    answer = desk.client.post("/login", data={"token": desk.tokens[-1]}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_only_reading_methods_and_forms_are_answered(desk: Desk) -> None:
    desk.log_in()
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        assert desk.client.request(method, PATHS[1]).status_code == 405
    assert desk.client.post(PATHS[1]).status_code == 405


@pytest.mark.parametrize("body", [b"", b"token=", b"token=" + b"x" * 5000, b"\xff\xfe&&&===", b"t"])
def test_a_login_body_that_is_no_form_of_ours_is_a_wrong_token(desk: Desk, body: bytes) -> None:
    assert desk.client.post("/login", content=body).status_code == 403


@pytest.mark.parametrize(
    "cookie",
    ["x", "cohortium-board=", "cohortium-board=\x7f;;;=", "=;=", "cohortium-board=" + "a" * 500],
)
def test_a_cookie_that_is_not_ours_opens_nothing(desk: Desk, cookie: str) -> None:
    assert desk.client.get(PATHS[1], headers={"cookie": cookie}).status_code == 303


def test_static_serves_its_own_files_and_nothing_beside_them(desk: Desk) -> None:
    for name in ("../app.py", "%2e%2e/app.py", "vendor/manifest.json", "vendor/../board.css/.."):
        assert desk.client.get(f"/static/{name}").status_code in (303, 404), name
    script = desk.client.get("/static/vendor/htmx.min.js")
    assert script.headers["content-type"].startswith("text/javascript")


def test_metrics_need_their_own_token_and_this_machine(desk: Desk) -> None:
    desk.log_in()
    assert desk.client.get("/metrics").status_code == 401
    wrong = {"authorization": f"Bearer {desk.tokens[-1]}"}
    assert desk.client.get("/metrics", headers=wrong).status_code == 401
    right = {"authorization": f"Bearer {METRICS_TOKEN}"}
    assert desk.client.get("/metrics", headers=right).status_code == 200
    afar = client_of(desk.app, base_url="http://127.0.0.1", address="10.1.2.3")
    assert afar.get("/metrics", headers=right).status_code == 403


def test_two_studies_have_a_page_to_choose_from() -> None:
    desk = Desk(make_view(make_study(), make_study(study_id="second", title="<Second>")))
    desk.log_in()
    page = Page(desk.client.get("/").text)
    assert "/study/second/overview" in page.addresses()
    assert "<Second>" in page.text


def test_a_board_without_a_plan_says_what_to_do() -> None:
    desk = Desk(BoardView("b", 0, "", 0, {}))
    desk.log_in()
    assert "plan add" in desk.client.get("/").text


def test_a_private_file_is_its_owners_alone_even_over_an_open_one(tmp_path: Path) -> None:
    path = tmp_path / "web" / "login-token"
    write_private(path, "first")
    path.chmod(0o644)
    write_private(path, "second")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.read_text() == "second\n"
    assert [item.name for item in path.parent.iterdir()] == ["login-token"]
