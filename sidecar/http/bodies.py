"""Request bodies: bounded while they arrive, counted before they are parsed, parsed in a thread when large.

Four bounds hold for every body: its size, by the class of its route; the time it may take; the number of
values in its JSON (`sidecar.wire.json_shape`); and the size of all bodies that are in flight together, from
their first byte until their request is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import hdrs, web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel

from sidecar.aiokit import SMALL_BYTES, aside
from sidecar.config import HttpSettings
from sidecar.errors import (
    InvalidRequestError,
    OverloadedError,
    RequestTimeoutError,
    RequestTooLargeError,
)
from sidecar.http.connections import BoundedConnection
from sidecar.http.queries import parse
from sidecar.wire.json_shape import JsonShape, JsonTooComplexError, JsonTooDeepError
from sidecar.wire.json_text import (
    MAX_DEPTH,
    UnstorableError,
    mended,
    read_with_nul,
)
from sidecar.wire.problems import kind_of

M = TypeVar("M", bound=BaseModel)

_SMALL_BYTES = SMALL_BYTES
"""Up to here a body is always let in: an interrupt must pass whatever else waits."""
_SLOWEST_BYTES_PER_SECOND = 1024
_RETRY_AFTER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class BodyBounds:
    """What a body may be. Sizes are in bytes, after decompression."""

    plain_bytes: int
    """Size on all routes but those that carry content."""
    content_bytes: int
    """Size on routes that carry messages, files, results of tools."""
    in_flight_bytes: int
    """Size of all bodies together."""
    values: int
    """Values of the JSON: commas and brackets."""
    silence_seconds: float
    """Longest pause between two pieces; on average a body has to bring 1 KiB per second."""

    @classmethod
    def of(cls, settings: HttpSettings) -> BodyBounds:
        """Return the bounds that the settings give."""
        return cls(
            plain_bytes=settings.plain_body_limit_bytes,
            content_bytes=settings.body_limit_bytes,
            in_flight_bytes=settings.bodies_in_flight_bytes,
            values=settings.body_values,
            silence_seconds=settings.body_silence_seconds,
        )


class BodyBudget:
    """The bytes of all bodies in flight on one listener."""

    def __init__(
        self, bounds: BodyBounds, *, on_release: Callable[[int], None] = lambda _freed: None
    ) -> None:
        self.bounds = bounds
        self._on_release = on_release
        self.held_bytes = 0
        self.refused = 0

    def grow(self, held: int, wanted: int) -> int:
        """Let one body grow from `held` to `wanted` bytes; return what it holds now.

        Raises OverloadedError when there is no room and it is not a small one.
        """
        if wanted <= held:
            return held
        grown = self.held_bytes + wanted - held
        if wanted > _SMALL_BYTES and grown > self.bounds.in_flight_bytes:
            self.refused += 1
            raise OverloadedError(
                "too many large requests are being received; send this one again later",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self.held_bytes = grown
        return wanted

    def release(self, held: int) -> None:
        """One body is done with."""
        self.held_bytes -= held
        self._on_release(held)


class _Body:
    """The body of one request."""

    def __init__(self, request: web.Request, budget: BodyBudget) -> None:
        self._request = request
        self._budget = budget
        self._bounds = budget.bounds
        self._held = 0
        self.kept: bytes | None = None
        """What was read, when it may have to be read again."""

    async def read(self, *, has_content: bool) -> bytes:
        if self.kept is not None:
            return self.kept
        limit = self._bounds.content_bytes if has_content else self._bounds.plain_bytes
        self._take(self._request.content_length or 0, limit)
        data, is_coded = bytearray(), hdrs.CONTENT_ENCODING in self._request.headers
        shape = JsonShape(max_values=self._bounds.values, max_depth=MAX_DEPTH)
        content, began = self._request.content, asyncio.get_running_loop().time()
        try:
            while True:
                slowest = began + len(data) / _SLOWEST_BYTES_PER_SECOND
                async with asyncio.timeout_at(self._deadline(slowest)):
                    piece = await content.readany()
                if not piece:
                    return bytes(data)
                self._take(len(data) + len(piece), limit)
                shape.feed(piece)
                data += piece
                if is_coded:
                    await asyncio.sleep(0)  # what unpacks to megabytes never lets us wait
        except TimeoutError as error:
            raise RequestTimeoutError(
                f"the body did not come: after {len(data)} bytes the next were not sent in time"
            ) from error
        except RequestTooLargeError:
            if is_coded and isinstance(self._request.protocol, BoundedConnection):
                self._request.protocol.leave_the_rest()
            raise
        except JsonTooDeepError as error:
            raise InvalidRequestError(str(error)) from error
        except JsonTooComplexError as error:
            raise RequestTooLargeError(f"the body is too complex: {error}") from error
        except (ContentEncodingError, web.RequestPayloadError) as error:
            coding = self._request.headers.get(hdrs.CONTENT_ENCODING, "identity")
            raise InvalidRequestError(
                f"the body cannot be read: it broke off, or is not in its Content-Encoding ({coding[:40]})"
            ) from error

    def _deadline(self, slowest: float) -> float:
        now, silence = asyncio.get_running_loop().time(), self._bounds.silence_seconds
        return min(now, slowest) + silence

    def _take(self, size: int, limit: int) -> None:
        if size > limit:
            raise RequestTooLargeError(
                f"the request body is larger than this route accepts ({limit} bytes)"
            )
        self._held = self._budget.grow(self._held, size)

    def release(self) -> None:
        self._budget.release(self._held)
        self._held = 0


_BODY = web.RequestKey("body", _Body)


def bounded_bodies(budget: BodyBudget) -> Middleware:
    """Return the middleware without which no body can be read. Put it last: it ends with the handler."""

    @web.middleware
    async def hold(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[_BODY] = body = _Body(request, budget)
        try:
            return await handler(request)
        finally:
            body.release()

    return hold


async def read_body(request: web.Request, *, has_content: bool = False) -> bytes:
    """Read the body, to be passed on. `has_content` is the class of the route.

    Raises InvalidRequestError, RequestTooLargeError, RequestTimeoutError, OverloadedError.
    """
    return await request[_BODY].read(has_content=has_content)


async def keep_body(request: web.Request, *, has_content: bool) -> bytes:
    """Read the body so that it can be read again: to be passed on, or else handled here. Raises likewise."""
    body = request[_BODY]
    body.kept = await body.read(has_content=has_content)
    return body.kept


async def read_object(
    request: web.Request, *, has_content: bool = False, allow_empty: bool = False
) -> dict[str, Any]:
    """Read the body as a JSON object; NUL in texts becomes U+FFFD. Raises as `read_body`."""
    held = [await request[_BODY].read(has_content=has_content)]
    return await aside(len(held[0]), lambda: _object_of(held, allow_empty=allow_empty))


async def read_model(
    request: web.Request, model: type[M], *, has_content: bool = False, has_secrets: bool = False
) -> M:
    """Read the body as `model`. Raises as `read_body`.

    NUL in texts becomes U+FFFD: LAP could not store the answer. With `has_secrets` it stays, and the
    field's own check refuses it: a secret is never changed.
    """
    held = [await request[_BODY].read(has_content=has_content)]
    return await aside(
        len(held[0]), lambda: parse(model, _object_of(held, has_secrets=has_secrets))
    )


async def read_optional_model(request: web.Request, model: type[M]) -> M:
    """Read the body as `model`, an empty one as the model without fields. Raises as `read_body`."""
    return parse(model, await read_object(request, allow_empty=True))


def _object_of(
    held: list[bytes], *, allow_empty: bool = False, has_secrets: bool = False
) -> dict[str, Any]:
    """Parse the bytes and let go of them: a large body is not kept beside what was made of it."""
    raw = held.pop()
    if not raw or raw.isspace():
        if allow_empty:
            return {}
        raise InvalidRequestError("the body is empty; send a JSON object")
    try:
        value, is_suspect = read_with_nul(raw)
    except UnstorableError as error:
        raise InvalidRequestError(str(error), field=error.field or None) from error
    except ValueError as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(f"the body must be a JSON object, not {kind_of(value)}")
    return dict(mended(value)) if is_suspect and not has_secrets else value
