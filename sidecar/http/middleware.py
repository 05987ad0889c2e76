"""What every request passes: a request id, the key check, the one maker of the envelope."""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import Collection

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from pydantic import SecretStr

from sidecar.aiokit import TaskOwner
from sidecar.errors import (
    AuthenticationError,
    MethodNotAllowedError,
    NotFoundError,
    PermissionDeniedError,
    RequestTooLargeError,
    SidecarError,
    StoreUnavailableError,
    TimedOutError,
)
from sidecar.http.origin_check import is_from_other_site
from sidecar.http.peer_protocol import PREFIX as PEER_ROOT
from sidecar.http.responses import error_response
from sidecar.http.routes import route_of
from sidecar.ids import new_id
from sidecar.store.interface import StoreError
from sidecar.tracing import current_traceparent, trace_id_of

REQUEST_ID = web.RequestKey("request_id", str)

PROBES = frozenset({"/health", "/livez", "/readyz", "/startupz"})
PUBLIC_PATHS = PROBES | {"/openapi.json"}
"""They need no key; nothing here reveals more than states, versions and the shape of the API."""

CLIENT_GONE = 499
"""nginx's status for a client that did not wait: in logs and metrics, never sent."""

CONSOLE_ROOT = "/console"
"""Below it are the routes that check by themselves who calls: people with a cookie, see `sidecar.console`."""

_UNLOGGED_PATHS = PROBES | {"/metrics"}
"""Asked every few seconds, so not logged."""

_STORE_RETRY_SECONDS = 5.0
_READS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})

_log = structlog.get_logger(__name__)


def is_native(path: str) -> bool:
    """Whether a path belongs to opencode's own API: its clients speak HTTP Basic and read other errors."""
    ours = ("/v1/", f"{PEER_ROOT}/", f"{CONSOLE_ROOT}/")
    is_ours = path.startswith(ours) or path == CONSOLE_ROOT
    return not is_ours and path not in PUBLIC_PATHS | {"/metrics"}


def _checks_itself(route: str) -> bool:
    """Whether the route is the console's."""
    return route == CONSOLE_ROOT or route.startswith(f"{CONSOLE_ROOT}/")


@web.middleware
async def request_context(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Bind a request id to the logs and the answer; turn exceptions into the envelope."""
    request_id = new_id("req")
    request[REQUEST_ID] = request_id
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    if (traceparent := current_traceparent()) is not None:
        structlog.contextvars.bind_contextvars(trace_id=trace_id_of(traceparent))
    started = time.perf_counter()
    try:
        response = await handler(request)
    except asyncio.CancelledError:
        _log_access(request, "request left by its client", CLIENT_GONE, started)
        raise
    except Exception as error:  # noqa: BLE001, RUF100  # the one mapping of errors to answers
        mapped = as_sidecar_error(error, request)
        response = error_response(mapped, request_id, is_native=is_native(request.path))
    if not response.prepared:
        response.headers["request-id"] = request_id
    _log_access(request, "request answered", response.status, started)
    return response


def _log_access(request: web.Request, event: str, status: int, started: float) -> None:
    if request.path not in _UNLOGGED_PATHS:
        _log.info(
            event,
            method=request.method,
            path=request.path,
            status=status,
            milliseconds=round((time.perf_counter() - started) * 1000, 1),
            sdk_retry=request.headers.get("x-stainless-retry-count", "0"),
        )


def finish_writes(tasks: TaskOwner) -> Middleware:
    """Return the middleware that lets a begun write end even when its client has gone.

    Handlers are cancelled when a client disconnects, so that streams end at once; a half-done write
    must not be.
    """

    @web.middleware
    async def shield(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method in _READS:
            return await handler(request)
        name = f"{request.method} {request.path}"
        return await asyncio.shield(tasks.start(name, _call(handler, request), is_awaited=True))

    return shield


async def _call(handler: Handler, request: web.Request) -> web.StreamResponse:
    return await handler(request)


def require_key(
    key: SecretStr | None,
    *,
    variable: str = "RUNTIME_API_KEY",
    public: Collection[str] = PUBLIC_PATHS,
) -> Middleware:
    """Return the middleware that compares the caller's key in constant time; None lets all in."""
    expected = key.get_secret_value().encode() if key else None

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = route_of(request)
        is_checked = route not in public and not _checks_itself(route)
        if expected is not None and is_checked:
            _check_key(request, expected, variable)
        return await handler(request)

    return check


def _check_key(request: web.Request, expected: bytes, variable: str) -> None:
    offered = _offered_keys(request)
    if not offered:
        ways = "'x-api-key: <key>' or 'Authorization: Bearer <key>'"
        if is_native(request.path):
            ways += ", or as the password of HTTP Basic"
        raise AuthenticationError(f"no API key: send it as {ways}")
    # All of them, each in constant time: SDKs that demand a key send a placeholder beside the right one.
    matches = [
        hmac.compare_digest(key.encode(errors="surrogateescape"), expected) for key in offered
    ]
    if not any(matches):
        raise AuthenticationError(f"invalid API key: it must equal the sidecar's {variable}")


def _offered_keys(request: web.Request) -> list[str]:
    """Return every key that the request carries, in any of the headers for one."""
    keys = [value.strip() for value in request.headers.getall("x-api-key", [])]
    for value in request.headers.getall(hdrs.AUTHORIZATION, []):
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() == "bearer":
            keys.append(credentials.strip())
        elif scheme.lower() == "basic" and is_native(request.path):
            if is_from_other_site(request):  # a browser adds remembered credentials by itself
                raise PermissionDeniedError("refused to a page of another site in a browser")
            keys.append(_basic_password(credentials))
    return [key for key in keys if key]


def _basic_password(credentials: str) -> str:
    """Return the password of RFC 7617 credentials, empty when they cannot be read. The user is any."""
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode()
    except ValueError:
        return ""
    return decoded.partition(":")[2]


def as_sidecar_error(error: Exception, request: web.BaseRequest) -> SidecarError:
    """Return what is answered for an exception of a handler; the unexpected is logged."""
    if isinstance(error, SidecarError):
        if error.status >= 500:
            _log.warning("request failed", error=error.message, kind=type(error).__name__)
        return error
    if isinstance(error, web.HTTPException):
        return _from_aiohttp(error, request)
    _log.error("unexpected error", exc_info=error)
    if isinstance(error, StoreError):
        return StoreUnavailableError(
            "the sidecar's store failed; see its log for this request id",
            retry_after_seconds=_STORE_RETRY_SECONDS,
        )
    if isinstance(error, TimeoutError):
        return TimedOutError("the request took too long inside the sidecar")
    return SidecarError("unexpected error; see the sidecar's log for this request id")


def _from_aiohttp(error: web.HTTPException, request: web.BaseRequest) -> SidecarError:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return RequestTooLargeError("the request body is larger than this server accepts")
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowedError(request.method, error.allowed_methods)
    if error.status == 404:
        return NotFoundError(f"no such route: {request.method} {request.path}")
    mapped = SidecarError(error.reason)
    mapped.status = error.status
    return mapped
