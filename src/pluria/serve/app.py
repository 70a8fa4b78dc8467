"""The service as a web application: `/predict`, `/about`, `/health`, `/ready`, `/metrics`, and a page at `/`.

Every refusal is JSON, {"error": reason}, with a status of its own (see `pluria.serve.refused`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pluria.serve.counted import Counted
from pluria.serve.inputs import Wanted
from pluria.serve.jobs import Queue
from pluria.serve.limits import Limits
from pluria.serve.metrics import TYPE, Metrics
from pluria.serve.page import page
from pluria.serve.panel import Panel
from pluria.serve.predicting import Predicting
from pluria.serve.refused import Refused
from pluria.serve.worker import Worker


@dataclass(frozen=True, eq=False)
class Service:
    """All that the pages need: members, what an example is, limits, the queue with its worker, figures."""

    panel: Panel
    wanted: Wanted
    limits: Limits
    queue: Queue
    worker: Worker
    metrics: Metrics
    title: str

    def about(self) -> dict[str, Any]:
        """What a client has to know, as JSON."""
        return {
            "title": self.title,
            "shape": list(self.wanted.shape),
            "image": self.wanted.image,
            "classes": list(self.panel.classes),
            "members": len(self.panel.weights),
            "weights": self.panel.weights.tolist(),
            "stops_early": self.panel.pooling.running,
            "cascade": None if self.panel.pooling.rule is None else self.panel.pooling.rule.explain(),
            "limits": {"body": self.limits.body, "examples": self.limits.batch, "seconds": self.limits.answer},
        }


def application(panel: Panel, wanted: Wanted, *, limits: Limits | None = None, title: str = "Pluria") -> Starlette:
    """The web application (ASGI) of a panel of members; its worker runs between start-up and shutdown.

    wanted   the shape of one example and how inputs are scaled
    title    what the page and `/about` call the service
    """
    limits = limits or Limits()
    queue = Queue(batch=limits.batch, wait=limits.wait, places=limits.queue)
    metrics = Metrics(lambda: len(queue))
    service = Service(panel, wanted, limits, queue, Worker(panel, queue, metrics.batch), metrics, title)
    return Starlette(
        routes=_routes(service),
        middleware=[Middleware(Counted, metrics=metrics)],
        exception_handlers={Refused: _refused, HTTPException: _http, Exception: _fault},
        lifespan=lambda app: _life(service),
    )


def _routes(service: Service) -> list[Route]:
    html, headers = page(service.title)

    async def home(request: Request) -> Response:
        return Response(html, media_type="text/html", headers=headers)

    async def about(request: Request) -> Response:
        return JSONResponse(service.about())

    async def health(request: Request) -> Response:
        alive = service.worker.alive
        return JSONResponse({"status": "ok" if alive else "the worker has ended"}, 200 if alive else 500)

    async def ready(request: Request) -> Response:
        free = service.worker.alive and len(service.queue) < service.limits.queue
        return JSONResponse({"ready": free, "queue": len(service.queue)}, 200 if free else 503)

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), headers={"content-type": TYPE})

    predict = Predicting(service.panel, service.wanted, service.limits, service.queue)
    pages = {"/": home, "/about": about, "/health": health, "/ready": ready, "/metrics": metrics}
    routes = [Route(path, answer) for path, answer in pages.items()]
    return [*routes, Route("/predict", predict.answer, methods=["POST"])]


@asynccontextmanager
async def _life(service: Service) -> AsyncIterator[None]:
    service.worker.start()
    try:
        yield
    finally:
        service.worker.stop()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _error(error.status, error.reason, error.headers)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    reasons = {404: f"there is no page {path}", 405: f"{path} does not take {method}"}
    return _error(error.status_code, reasons.get(error.status_code, error.detail), error.headers or {})


async def _fault(request: Request, error: Exception) -> Response:
    return _error(500, f"a fault of the service: {type(error).__name__}", {})


def _error(status: int, reason: str, headers: Mapping[str, str]) -> Response:
    return JSONResponse({"error": reason}, status, headers=dict(headers))
