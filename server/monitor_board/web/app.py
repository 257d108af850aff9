"""The dashboard's paths. It only reads: the one thing a form changes is who is logged in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from server.monitor_board.web.access import SESSION_S, Access, matches
from server.monitor_board.web.assets import Asset
from server.monitor_board.web.guard import Guard, cookie_name, session_cookie
from server.monitor_board.web.links import ServerLinks
from server.monitor_board.web.metrics_text import CONTENT_TYPE, metrics_text
from server.monitor_board.web.pages import PAGES, render_page, render_plain, render_site
from server.monitor_board.web.selection import Query
from server.monitor_board.web.view_source import ViewSource

_FORM_BYTES_MAX: Final = 2048
_FORM_S: Final = 10.0
_LOOPBACK: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Dashboard:
    """What the paths share.

    Args:
        metrics_digest: of the token that `/metrics` asks for.
        hosts: names under which the server is reached.
    """

    source: ViewSource
    access: Access
    assets: dict[str, Asset]
    metrics_digest: bytes
    hosts: tuple[str, ...]
    is_tls: bool = False


def make_app(board: Dashboard) -> FastAPI:
    """Return the web application."""
    app = FastAPI(title="Monitor board", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, access=board.access, hosts=board.hosts, is_tls=board.is_tls)
    app.add_exception_handler(HTTPException, _problem)
    _add_door(app, board)
    _add_machine_paths(app, board)
    _add_pages(app, board)
    return app


def _add_door(app: FastAPI, board: Dashboard) -> None:
    @app.get("/login")
    def login_form() -> HTMLResponse:
        return _login_page("")

    @app.post("/login")
    async def login(request: Request) -> Response:
        address = request.client.host if request.client else ""
        wait_s = board.access.seconds_until_allowed(address)
        if wait_s:
            answer = _login_page("Too many attempts. Wait a minute.", status=429)
            answer.headers["retry-after"] = str(wait_s)
            return answer
        cookie = board.access.log_in(await _token_of(request), address=address)
        if cookie is None:
            return _login_page("This is not the current one-time token.", status=403)
        found = RedirectResponse("/", status_code=303)
        found.set_cookie(
            cookie_name(is_tls=board.is_tls),
            cookie,
            max_age=SESSION_S,
            httponly=True,
            samesite="strict",
            secure=board.is_tls,
        )
        return found

    @app.post("/logout")
    def logout(request: Request) -> RedirectResponse:
        board.access.log_out(session_cookie(request.headers, is_tls=board.is_tls))
        found = RedirectResponse("/login", status_code=303)
        found.delete_cookie(
            cookie_name(is_tls=board.is_tls), httponly=True, samesite="strict", secure=board.is_tls
        )
        return found


def _add_machine_paths(app: FastAPI, board: Dashboard) -> None:
    @app.get("/health")
    def health() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        address = request.client.host if request.client else ""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if address not in _LOOPBACK:
            return PlainTextResponse("only on this machine\n", status_code=403)
        if scheme.lower() != "bearer" or not matches(token.strip(), board.metrics_digest):
            headers = {"www-authenticate": "Bearer"}
            return PlainTextResponse("a token is needed\n", status_code=401, headers=headers)
        text = metrics_text(board.source.shown().view)
        return Response(text, media_type=CONTENT_TYPE)

    @app.get("/static/{name:path}")
    def static(name: str) -> Response:
        asset = board.assets.get(name)
        if asset is None:
            raise HTTPException(404)
        headers = {"cache-control": "public, max-age=3600"}
        return Response(asset.content, media_type=asset.media_type, headers=headers)


def _add_pages(app: FastAPI, board: Dashboard) -> None:
    @app.get("/")
    def begin() -> Response:
        view = board.source.shown().view
        if len(view.studies) == 1:
            [study_id] = view.studies
            return RedirectResponse(ServerLinks("/").page(study_id, "overview"), status_code=303)
        links = ServerLinks("/")
        page = render_plain("studies.html", title="Studies", inside=True, view=view, links=links)
        return HTMLResponse(page)

    @app.get("/study/{study_id}/site/{site_id}")
    def site(study_id: str, site_id: str, courses: str = "") -> HTMLResponse:
        shown = board.source.shown()
        study = shown.view.studies.get(study_id)
        found = study.sites.get(site_id) if study else None
        if study is None or found is None:
            raise HTTPException(404)
        page = render_site(shown.view, study, found, stale=shown.is_stale, whole=courses == "all")
        return HTMLResponse(page)

    @app.get("/study/{study_id}/{page}")
    def study_page(study_id: str, page: str, request: Request) -> HTMLResponse:
        shown = board.source.shown()
        study = shown.view.studies.get(study_id)
        if study is None or page not in dict(PAGES):
            raise HTTPException(404)
        asked = request.query_params
        query = Query.parse(
            *(asked.get(key, "") for key in ("words", "state", "order", "page", "courses"))
        )
        return HTMLResponse(render_page(shown.view, study, page, query, stale=shown.is_stale))


def _problem(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = "There is no such page" if status == 404 else "This request is not answered"
    page = render_plain("problem.html", title=words, inside=True, problem=words)
    return HTMLResponse(page, status_code=status)


def _login_page(problem: str, *, status: int = 200) -> HTMLResponse:
    page = render_plain("login.html", title="Log in", inside=False, problem=problem)
    return HTMLResponse(page, status_code=status)


async def _token_of(request: Request) -> str:
    """Return the form's token; empty when the body is too long, too slow or no form."""
    body = b""
    try:
        async with asyncio.timeout(_FORM_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _FORM_BYTES_MAX:
                    return ""
    except TimeoutError:
        return ""
    fields = parse_qs(body.decode("latin-1"), max_num_fields=8)
    return fields.get("token", [""])[0].strip()
