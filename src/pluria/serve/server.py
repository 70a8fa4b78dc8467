"""A web server for one application, which ends well: what it accepted is answered first.

On SIGTERM or SIGINT no further connection is taken; connections that are idle are closed; requests that have
arrived are answered; then the worker ends. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from types import FrameType
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from pluria.serve.limits import Limits

BACKLOG = 2048
IDLE = 3
"""A connection that says nothing is closed after so many times what the head of a request may take."""

LATE = b'{"error": "the head of the request did not arrive in time"}'


class Server(uvicorn.Server):
    """uvicorn, whose end by a signal is a success: it does not raise the signal once more."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the service, the second ends it at once."""
        self.force_exit, self.should_exit = self.should_exit, True


class Patient(H11Protocol):
    """HTTP/1.1 with a limit on the seconds that the head of a request takes to arrive (408), which uvicorn lacks."""

    def __init__(self, *given: Any, read: float, **options: Any) -> None:
        super().__init__(*given, **options)
        self._read = read
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head may begin to come: browsers open connections that they use later."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(IDLE * self._read, self.transport.close)

    def data_received(self, data: bytes) -> None:
        """Some of a head, or of a body: the latter has its limit where it is read."""
        begun = self.conn.trailing_data[0] != b""
        super().data_received(data)
        if not self._between:
            self._enough()
        elif not begun:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._enough()
        super().connection_lost(exc)

    @property
    def _between(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._enough()
        self._timer = self.loop.call_later(self._read, self._late)

    def _enough(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self._between or self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE:
            kind = (b"content-type", b"application/json"), (b"content-length", str(len(LATE)).encode())
            head = h11.Response(status_code=408, headers=[*kind, (b"connection", b"close")], reason=b"Request Timeout")
            for event in (head, h11.Data(data=LATE), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. OSError where the port is taken or the host is none of ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def server(app: Starlette, limits: Limits) -> Server:
    """A server for the application, not yet started: `run(sockets=[...])` does, until a signal or `should_exit`."""
    return Server(
        uvicorn.Config(
            app,
            http=partial(Patient, read=limits.read),  # type: ignore[arg-type]
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=IDLE * limits.read,  # type: ignore[arg-type]
            # Every request has an end of its own by then; this is for clients that do not take their answer.
            timeout_graceful_shutdown=int(limits.read + limits.answer) + 5,
        )
    )
