"""Answers that are written in pieces, so that a slow reader costs one piece of memory and not all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence

from aiohttp import ClientConnectionResetError, hdrs, web

from sidecar.http.middleware import REQUEST_ID
from sidecar.wire.json_text import escaped

PIECE_BYTES = 64 * 1024
"""The writer waits for the client when so much is not sent yet."""


async def answer_in_pieces(
    request: web.Request, pieces: AsyncIterator[bytes | memoryview]
) -> web.StreamResponse:
    """Answer 200 with a JSON document that comes in pieces, in one when there is only one.

    An error before the first piece is raised and becomes an answer; a later one cuts the connection,
    because the status is sent already.
    """
    first = await anext(pieces)
    second = await anext(pieces, None)
    if second is None and len(first) <= PIECE_BYTES:
        return web.Response(body=bytes(first), content_type="application/json", charset="utf-8")
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/json; charset=utf-8"})
    response.headers["request-id"] = request[REQUEST_ID]
    if second is None:
        response.content_length = len(first)
    if request.method == hdrs.METH_HEAD:
        rest = sum([len(piece) async for piece in pieces])
        response.content_length = len(first) + len(second or b"") + rest
        await response.prepare(request)
        return response
    await response.prepare(request)
    try:
        await write_frames(response, [first])
        del first
        await write_frames(response, [second or b""])
        del second
        async for piece in pieces:
            await write_frames(response, [piece])
    except ClientConnectionResetError:
        return response
    except BaseException:
        if request.transport is not None:
            request.transport.abort()
        raise
    await response.write_eof()
    return response


def pieces_of(
    frames: Sequence[bytes | memoryview], *, is_ascii: bool = False
) -> Iterator[bytes | memoryview]:
    """Yield the frames in writes of about 64 KiB; long ones are not copied, their readers share them.

    With `is_ascii` each piece of a long one is escaped as it is written: LAP decodes each part of a stream as
    it comes from the network, and a character that is cut in two there ends it. Short ones are ASCII.
    """
    short: list[bytes | memoryview] = []
    size = 0
    for frame in frames:
        if len(frame) > PIECE_BYTES:
            if short:
                yield b"".join(short)
                short, size = [], 0
            for piece in _cut(memoryview(frame)):
                yield _escaped(piece) if is_ascii else piece
            continue
        short.append(frame)
        size += len(frame)
        if size >= PIECE_BYTES:
            yield b"".join(short)
            short, size = [], 0
    if short:
        yield b"".join(short)


def _cut(text: memoryview) -> Iterator[memoryview]:
    """Yield UTF-8 in pieces of about 64 KiB, never in the middle of a character."""
    start = 0
    while start < len(text):
        end = min(start + PIECE_BYTES, len(text))
        while end < len(text) and text[end] & 0xC0 == 0x80:  # not the first byte of its character
            end += 1
        yield text[start:end]
        start = end


def _escaped(piece: memoryview) -> bytes | memoryview:
    text = str(piece, "utf-8")
    return piece if text.isascii() else escaped(text)


async def write_frames(
    response: web.StreamResponse,
    frames: Sequence[bytes | memoryview],
    *,
    is_ascii: bool = False,
) -> None:
    """Write them in pieces, see `pieces_of`, and let others run in between."""
    for piece in pieces_of(frames, is_ascii=is_ascii):
        await response.write(piece)
        if len(piece) >= PIECE_BYTES:
            await asyncio.sleep(0)  # a client that reads fast never lets us wait
