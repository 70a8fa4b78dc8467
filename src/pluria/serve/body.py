"""The body of a request, within its size and its time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from pluria.serve.limits import Limits
from pluria.serve.refused import CLOSE, Refused

PATIENCE = 8
"""A body of up to so many times the limit is read to its end and thrown away, so that the client hears the reason."""


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body. Refused: 408 where it does not come in time, 413 where it is larger than the limit."""
    told = request.headers.get("content-length", "0")
    size = int(told) if told.isdecimal() else 0
    large = Refused(413, f"the body is larger than {limits.body:,} bytes, the limit of this service", CLOSE)
    # A client that asks first, or that announces far too much, is told at once and sends nothing.
    asks = request.headers.get("expect", "").lower() == "100-continue"
    if size > limits.body and (asks or size > PATIENCE * limits.body):
        raise large
    try:
        async with asyncio.timeout(limits.read):
            return await _collected(request, limits.body, large)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {limits.read:g} seconds", CLOSE) from None
    except ClientDisconnect:
        raise Refused(400, "the connection was closed before the body had ended", CLOSE) from None


async def _collected(request: Request, limit: int, large: Refused) -> bytes:
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        if size > PATIENCE * limit:
            raise large
        if size <= limit:
            parts.append(part)
        else:
            parts.clear()
    if size > limit:
        raise large
    return b"".join(parts)
