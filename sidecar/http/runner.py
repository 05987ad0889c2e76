"""The runner of our listeners: requests that aiohttp cannot read get the envelope, too.

Such a request (a line too long, bytes that are no HTTP) never becomes one that a middleware sees.
aiohttp answers it as plain text without a request id, and logs a traceback for what is the client's
mistake. Its hook is `RequestHandler.handle_error`; the classes between are only there to reach it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from sidecar.errors import InvalidRequestError
from sidecar.http.answers import error_response
from sidecar.ids import new_id

_log = structlog.get_logger(__name__)


class Runner(web.AppRunner):
    """An `AppRunner` that answers everything in the envelope."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, **self._kwargs)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status != HTTPStatus.BAD_REQUEST or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        request_id = new_id("req")
        _log.info("request not readable", request_id=request_id, kind=type(exc).__name__)
        error = InvalidRequestError(_sentence(exc))
        response = error_response(error, request_id)
        response.headers["request-id"] = request_id
        response.force_close()
        return response


def _sentence(exc: BaseException | None) -> str:
    """Say what is wrong without repeating it: the bytes may hold a key."""
    if isinstance(exc, LineTooLong):
        return "the URL or a header is longer than this server reads (8190 bytes)"
    told = str(getattr(exc, "message", "")).partition("\n")[0].partition("b'")[0].strip(" :")
    return f"the request is not HTTP that this server reads: {told[:100] or 'malformed'}"
