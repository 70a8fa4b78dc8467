"""Counts every request by path and code, around the application."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pluria.serve.metrics import Metrics

KNOWN = ("/", "/about", "/health", "/metrics", "/predict", "/ready")


class Counted:
    """ASGI middleware. Unknown paths are counted as "other": their number must not grow with what is asked for."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it once its answer is out."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, code = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            path = scope["path"] if scope["path"] in KNOWN else "other"
            self._metrics.request(path, code, time.perf_counter() - start)
