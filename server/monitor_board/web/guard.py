"""Before every answer: is the name right, is somebody logged in; after it: the security headers."""

from __future__ import annotations

from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.monitor_board.web.access import Access

POLICY: Final = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    # `no-referrer` would make browsers send no origin with a form, and the origin is checked.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=()"),
)
_PUBLIC: Final = ("/login", "/health", "/metrics")  # metrics has a token of its own
_PUBLIC_FOLDER: Final = "/static/"


def cookie_name(*, is_tls: bool) -> str:
    """Return the session cookie's name; with TLS browsers hold it to this host alone."""
    return "__Host-cohortium-board" if is_tls else "cohortium-board"


def session_cookie(headers: Headers, *, is_tls: bool) -> str | None:
    """Return the session cookie of a request, or None."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(cookie_name(is_tls=is_tls))
    except CookieError:
        return None
    return found.value if found else None


class Guard:
    """Lets a request through only under our own name and, but for a few paths, logged in.

    Args:
        hosts: names under which the server is reached, without port; a page elsewhere that had
            its name lead to us (DNS rebinding) comes under another.
    """

    def __init__(self, app: ASGIApp, *, access: Access, hosts: Sequence[str], is_tls: bool) -> None:
        self._app = app
        self._access = access
        self._hosts = frozenset(host.lower() for host in hosts)
        self._is_tls = is_tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse or pass on one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        answer = self._refusal(scope)
        app: ASGIApp = answer if answer is not None else self._app
        await app(scope, receive, self._with_headers(scope["path"], send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), str(scope["path"])
        if _host_of(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("unknown host name\n", status_code=421)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("method not allowed\n", status_code=405)
        if scope["method"] == "POST" and not self._is_own_form(headers):
            return PlainTextResponse("this form is not ours\n", status_code=403)
        if path in _PUBLIC or path.startswith(_PUBLIC_FOLDER):
            return None
        if self._access.is_inside(session_cookie(headers, is_tls=self._is_tls)):
            return None
        return RedirectResponse("/login", status_code=303)

    def _is_own_form(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        own = f"{'https' if self._is_tls else 'http'}://{headers.get('host', '')}"
        return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none") and (
            origin is None or origin == own
        )

    def _with_headers(self, path: str, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS:
                    headers[name] = value
                if not path.startswith(_PUBLIC_FOLDER):
                    headers["cache-control"] = "no-store"
                if self._is_tls:
                    headers["strict-transport-security"] = "max-age=31536000"
            await send(message)

        return send_with_headers


def _host_of(header: str) -> str:
    name, separator, port = header.rpartition(":")
    return (name if separator and port.isdigit() else header).strip("[]").lower()
