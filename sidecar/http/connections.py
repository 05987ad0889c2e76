"""Connections of a listener: how many, how long they may take to ask, how long they may take to read.

aiohttp bounds none of this. Its hooks are methods of `RequestHandler`, the protocol of one connection; what
is read of its private state is named in `BoundedConnection`, and a test fails when that changes.

The rules:

- A header has `header_seconds`, from the accept or from its first byte; then 408.
- An answer that makes no progress for `stall_seconds` while the client does not read is cut.
- `most` requests are answered at once; further ones get 503, except for probes, which have `RESERVE` more.
- At most `most + RESERVE` connections are open. A new one takes the place of the one that waits for a
  request longest: clients that open connections and send nothing do not shut out others. Where all are
  at work, the new one gets 503 and is closed.
"""

from __future__ import annotations

import asyncio
import fcntl
import resource
import struct
import termios
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong

from sidecar.config import HttpSettings
from sidecar.errors import (
    InvalidRequestError,
    OverloadedError,
    RequestTimeoutError,
    SidecarError,
)
from sidecar.http.middleware import PROBES, as_sidecar_error
from sidecar.http.responses import error_response
from sidecar.ids import new_id
from sidecar.wire.http_limits import MAX_HEADER_BYTES

RESERVE = 32
"""Connections, and requests, beyond the bound: for probes."""
_OTHER_DESCRIPTORS = 200
"""Left for the store, the child, the gateway, logs, other listeners."""
_DESCRIPTORS_PER_CONNECTION = 2
"""One for the connection, one for what its request needs upstream."""
_RETRY_AFTER_SECONDS = 2.0
_REFUSAL_SECONDS = 1.0
"""How long a refused connection stays open for its client to read why."""
_MOST_REFUSALS = 64
_LONGEST_TICK_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class TooManyRequestsError(OverloadedError):
    """As many requests are being answered as this listener answers at once."""

    status = 503


class ExpectationFailedError(InvalidRequestError):
    """`Expect:` asks for something else than `100-continue`."""

    status = 417


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """What the module's docstring says."""

    most: int
    header_seconds: float
    stall_seconds: float
    exempt: Collection[str] = PROBES
    """Paths that may use the reserve."""

    @classmethod
    def of(cls, settings: HttpSettings) -> ConnectionBounds:
        """Return what the settings say, fewer connections where the descriptors do not suffice."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        possible = (limit - _OTHER_DESCRIPTORS) // _DESCRIPTORS_PER_CONNECTION - RESERVE
        most = settings.max_connections
        if limit != resource.RLIM_INFINITY and possible < most:
            most = max(RESERVE, possible)
            _log.warning(
                "fewer connections than configured: raise the descriptor limit (ulimit -n)",
                connections=most,
                configured=settings.max_connections,
                descriptors=limit,
            )
        return cls(most, settings.header_seconds, settings.write_stall_seconds)


class BoundedServer(web.Server):
    """Makes the protocol of each connection and looks after all of them."""

    def __init__(self, made: web.Server, bounds: ConnectionBounds, **kwargs: Any) -> None:
        super().__init__(self._answer, request_factory=made.request_factory, **kwargs)
        self._handler = made.request_handler
        self.bounds = bounds
        self.answering = 0
        """Requests that are being answered, probes included."""
        self.ended = dict.fromkeys(("connections", "requests", "evicted", "header", "stalled"), 0)
        """How often a bound ended a connection or refused a request, by bound."""
        self._evicted: set[web.RequestHandler] = set()
        self._refusals = 0
        seconds = min(bounds.header_seconds, bounds.stall_seconds) / 4
        self._tick_seconds = min(_LONGEST_TICK_SECONDS, seconds)
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)

    @property
    def open_connections(self) -> int:
        """Return how many connections are open, without those that are being closed for room."""
        return len(self._connections) - len(self._evicted)

    def __call__(self) -> web.RequestHandler:
        if self.open_connections >= self._room and self._idlest() is None:
            # Not a RequestHandler; asyncio asks for no more than a protocol.
            return cast("web.RequestHandler", self._refuse_connection())
        return BoundedConnection(self, loop=self._loop, **self._kwargs)

    @property
    def _room(self) -> int:
        return self.bounds.most + RESERVE

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Note the connection, and make room for it."""
        super().connection_made(handler, transport)
        while self.open_connections > self._room and (idlest := self._idlest()) is not None:
            self.ended["evicted"] += 1
            self._evicted.add(idlest)
            self._connections[idlest].abort()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """Forget the connection."""
        self._evicted.discard(handler)
        super().connection_lost(handler, exc)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Close all connections."""
        self._timer.cancel()
        await super().shutdown(timeout)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Whatever is raised outside of the middlewares gets the envelope here."""
        self.answering += 1
        try:
            self._admit(request)
            return await self._handler(request)
        except Exception as error:  # noqa: BLE001, RUF100  # the outermost place
            return _error_response(as_sidecar_error(error, request))
        finally:
            self.answering -= 1

    def _admit(self, request: web.BaseRequest) -> None:
        is_exempt = request.rel_url.raw_path in self.bounds.exempt
        if not is_exempt and self.answering > self.bounds.most:
            self.ended["requests"] += 1
            raise TooManyRequestsError(
                "this server answers as many requests as it can; try again later",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        expected = request.headers.get(hdrs.EXPECT)
        if expected is not None and expected.strip().lower() != "100-continue":
            raise ExpectationFailedError("Expect: only 100-continue is understood")

    def _idlest(self) -> BoundedConnection | None:
        """Return the connection to close for another one: the oldest that waits for its client."""
        open_ones = [
            connection
            for connection in self._connections
            if isinstance(connection, BoundedConnection) and connection not in self._evicted
        ]
        for is_wanted in (BoundedConnection.waits_for_request, BoundedConnection.is_unused):
            for connection in open_ones:
                if is_wanted(connection):
                    return connection
        return None

    def _refuse_connection(self) -> asyncio.Protocol:
        self.ended["connections"] += 1
        self._refusals += 1
        return _Refusal(is_told=self._refusals <= _MOST_REFUSALS, on_end=self._refusal_ended)

    def _refusal_ended(self) -> None:
        self._refusals -= 1

    def _tick(self) -> None:
        now = self._loop.time()
        for connection, transport in list(self._connections.items()):
            if isinstance(connection, BoundedConnection) and connection not in self._evicted:
                ended_by = connection.check(now, transport, self.bounds)
                if ended_by is not None:
                    self.ended[ended_by] += 1
                    _log.info("connection ended by a bound", bound=ended_by)
        self._timer = self._loop.call_later(self._tick_seconds, self._tick)


class BoundedConnection(web.RequestHandler):
    """One connection.

    Of aiohttp's own it reads `_messages`, `_waiter`, `_current_request`, and sets `_lingering_time`.
    """

    __slots__ = ("_progress", "_reading_since", "_stalled_since", "_was_heard")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._reading_since: float | None = self._loop.time()
        self._was_heard = False
        self._stalled_since: float | None = None
        self._progress = 0
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages or self._waiter is None:
            self._reading_since = None
        elif data:
            self._was_heard = True
            if self._reading_since is None:
                self._reading_since = self._loop.time()

    def leave_the_rest(self) -> None:
        """Do not read what is left of a refused body: unpacking it to throw it away would hold the loop."""
        self._lingering_time = 0.0

    def waits_for_request(self) -> bool:
        """Whether it waits for the client to send one."""
        return self._waiter is not None and not self._messages

    def is_unused(self) -> bool:
        """Whether nothing works for it: what it was answered may not be read yet."""
        return self._current_request is None and not self._messages

    def check(
        self, now: float, transport: asyncio.Transport, bounds: ConnectionBounds
    ) -> str | None:
        """End the connection where it has passed a bound; return which."""
        since = self._reading_since
        if since is not None and now - since >= bounds.header_seconds:
            if self._was_heard:
                error = RequestTimeoutError("the request's header did not come in time")
                transport.write(_raw(error))
            self._reading_since = None
            self.force_close()
            return "header"
        unsent = transport.get_write_buffer_size()
        if unsent == 0:
            self._stalled_since = None
            return None
        request = self._current_request
        written = request.writer.output_size if request is not None else 0
        progress = written - unsent - _unacknowledged_bytes(transport)
        if self._stalled_since is None or progress != self._progress:
            self._stalled_since, self._progress = now, progress
        elif now - self._stalled_since >= bounds.stall_seconds:
            transport.abort()
            return "stalled"
        return None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what aiohttp cannot read, such as a line too long or bytes that are not HTTP.

        It never becomes a request that a middleware sees; aiohttp would answer it as plain text without
        a request id, and log a traceback for what is the client's mistake.
        """
        if status != HTTPStatus.BAD_REQUEST or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        response = _error_response(InvalidRequestError(_sentence(exc)))
        _log.info(
            "request not readable",
            request_id=response.headers["request-id"],
            kind=type(exc).__name__,
        )
        return response


def _unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """Return what the kernel holds of what was sent: megabytes, of which a slow reader takes some."""
    sock = transport.get_extra_info("socket")
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    except (OSError, ValueError, AttributeError):
        return 0
    return int(count)


class _Refusal(asyncio.Protocol):
    """A connection for which there is no room: it gets a 503 and is closed."""

    def __init__(self, *, is_told: bool, on_end: Any) -> None:
        self._is_told = is_told
        self._on_end = on_end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if not self._is_told:
            transport.abort()
            return
        error = TooManyRequestsError(
            "this server has as many connections as it can; try again later",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )
        transport.write(_raw(error))
        # Closed at once, with the request unread, the answer would be lost in a reset.
        transport.write_eof()
        asyncio.get_running_loop().call_later(_REFUSAL_SECONDS, transport.abort)

    def eof_received(self) -> None:
        """Close as well."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._on_end()


def _error_response(error: SidecarError) -> web.Response:
    request_id = new_id("req")
    response = error_response(error, request_id)
    response.headers["request-id"] = request_id
    response.force_close()
    return response


def _raw(error: SidecarError) -> bytes:
    """Return the whole answer as bytes, for where there is no request to answer."""
    response = _error_response(error)
    body = response.body
    assert isinstance(body, bytes)
    headers = {**response.headers, "content-length": str(len(body)), "connection": "close"}
    lines = [f"HTTP/1.1 {response.status} {response.reason}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _sentence(exc: BaseException | None) -> str:
    """Say what is wrong without repeating it: the bytes may hold a key."""
    if isinstance(exc, LineTooLong):
        return f"the URL or a header is longer than this server reads ({MAX_HEADER_BYTES} bytes)"
    told = str(getattr(exc, "message", "")).partition("\n")[0].partition("b'")[0].strip(" :")
    return f"malformed HTTP request: {told[:100] or 'not readable'}"
