"""An HTTP client whose requests a web application in this process answers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx


class _InProcess(httpx.BaseTransport):
    def __init__(self, app: Any, address: str) -> None:
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=True, client=(address, 40_000))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        asked = httpx.Request(
            request.method, request.url, headers=request.headers, content=request.read()
        )
        answer = await self._inner.handle_async_request(asked)
        body = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=body)


def client_of(app: Any, *, base_url: str, address: str = "127.0.0.1") -> httpx.Client:
    """Return a client that keeps cookies and follows no redirect; requests come from `address`."""
    return httpx.Client(transport=_InProcess(app, address), base_url=base_url)
