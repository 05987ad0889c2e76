"""Requests that are no proper HTTP or no proper JSON: `python -m tests.chaos.hostile_requests URL --key KEY`.

Each is sent on a connection of its own. Whatever it is, the answer is a refusal in the envelope, or what an
ordinary request gets where the oddity changes nothing; and others are served meanwhile.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from dataclasses import dataclass

from tests.chaos.hostile_bodies import new_session
from tests.chaos.target import Answer, Probe, Target, read_answer

BAD = frozenset({400})
NO_ROUTE = frozenset({400, 403, 404, 405})
SERVED = frozenset({200})
EITHER = frozenset({200, 400, 404, 413})
"""Where readers of HTTP may differ, and no harm is done either way."""


@dataclass(frozen=True)
class Oddity:
    """One kind of request. In `raw` `{key}` is the key's header, and `{session}` the path of a session."""

    name: str
    raw: bytes
    statuses: frozenset[int] = BAD

    def to(self, target: Target, session: str) -> bytes:
        """Return the bytes for that server."""
        key = f"x-api-key: {target.key}\r\n".encode()
        path = f"/v1/sessions/{session}".encode()
        return self.raw.replace(b"{key}", key).replace(b"{session}", path)


def _get(name: str, target: bytes, statuses: frozenset[int] = NO_ROUTE, *lines: bytes) -> Oddity:
    head = b"GET " + target + b" HTTP/1.1\r\nhost: localhost\r\n{key}"
    return Oddity(name, head + b"".join(line + b"\r\n" for line in lines) + b"\r\n", statuses)


def _head(name: str, *lines: bytes, statuses: frozenset[int] = BAD) -> Oddity:
    """Return a GET with these header lines."""
    return _get(name, b"/v1/models", statuses, *lines)


def _method(method: bytes, statuses: frozenset[int], target: bytes = b"/v1/models") -> Oddity:
    line = method + b" " + target + b" HTTP/1.1\r\nhost: localhost\r\n{key}\r\n"
    return Oddity(f"method {method.decode()} of {target.decode()}", line, statuses)


def _body(
    name: str,
    body: bytes,
    statuses: frozenset[int] = BAD,
    *lines: bytes,
    path: bytes = b"/v1/agents",
) -> Oddity:
    head = b"POST " + path + b" HTTP/1.1\r\nhost: localhost\r\n{key}"
    length = b"content-length: %d\r\n" % len(body)
    more = b"".join(line + b"\r\n" for line in lines)
    return Oddity(name, head + more + length + b"\r\n" + body, statuses)


def _chunks(name: str, body: bytes, statuses: frozenset[int] = BAD, *lines: bytes) -> Oddity:
    head = (
        b"POST {session}/events HTTP/1.1\r\nhost: localhost\r\n{key}transfer-encoding: chunked\r\n"
    )
    return Oddity(
        name, head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body, statuses
    )


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


_ZEROS = b'{"name":"' + b"x" * 50_000_000 + b'"}'
_PLAIN = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n{key}"
_AGENT = b'{"name":"a","model":"no-such-model"}'

ODDITIES = (
    # The first line
    Oddity("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n"),
    Oddity("HTTP/0.9", b"GET /v1/models\r\n\r\n", frozenset({400, 401})),
    Oddity("HTTP/1.0", b"GET /v1/models HTTP/1.0\r\n{key}\r\n", SERVED),
    Oddity("HTTP/2's first line", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Oddity("HTTP/9.9", b"GET /v1/models HTTP/9.9\r\nhost: localhost\r\n{key}\r\n"),
    Oddity("no target", b"GET  HTTP/1.1\r\nhost: localhost\r\n{key}\r\n"),
    Oddity("two targets", b"GET /v1/models /v1 HTTP/1.1\r\nhost: localhost\r\n{key}\r\n"),
    Oddity("bare newlines", b"GET /v1/models HTTP/1.1\nhost: localhost\n\n", frozenset({400, 401})),
    *(_method(m, NO_ROUTE) for m in (b"OPTIONS", b"TRACE", b"PUT", b"PATCH", b"DELETE", b"PROPFIND")),
    _method(b"get", NO_ROUTE),
    _method(b"X" * 200, NO_ROUTE),
    _method(b"CONNECT", NO_ROUTE, b"example.com:443"),
    _method(b"CONNECT", NO_ROUTE),
    _method(b"OPTIONS", NO_ROUTE, b"*"),
    # The target
    _get("another host's URL", b"http://example.com/v1/models", EITHER),
    _get("a URL of another scheme", b"ftp://example.com/v1/models", EITHER),
    _get("a URL with a port that is none", b"http://localhost:99999999/v1/models", EITHER),
    _get("a URL with a broken host", b"http://[::1/v1/models", EITHER),
    _get("two slashes in front", b"//v1/models"),
    _get("two slashes inside", b"/v1//models"),
    _get("a path upwards", b"/v1/../v1/models", EITHER),
    _get("an encoded path upwards", b"/v1/%2e%2e/%2e%2e/etc/passwd"),
    _get("an encoded slash", b"/v1%2fmodels"),
    _get("a backslash", b"/v1\\models"),
    _get("NUL in the path", b"/v1/agents/%00"),
    _get("no UTF-8 in the path", b"/v1/agents/%ff%fe"),
    _get("half an escape", b"/v1/agents/%"),
    _get("bytes beyond ASCII", b"/v1/agents/\xff\xfe"),
    _get("a fragment", b"/v1/models#x", EITHER),
    _get("a parameter of the path", b"/v1/models;x=1"),
    _get("ten thousand parameters", b"/v1/models?" + b"&".join(b"a%d=1" % n for n in range(1000)), EITHER),
    _get("a parameter that is no UTF-8", b"/v1/agents?limit=%ff"),
    _get("a huge number", b"/v1/agents?limit=" + b"9" * 5000),
    _get("a target of 100 kB", b"/v1/models?" + b"a" * 100_000),
    # The header
    _head("10 000 headers", *(b"x-%d: 1" % n for n in range(10_000))),
    _head("a header of 100 kB", b"x-long: " + b"a" * 100_000),
    _head("a name of 100 kB", b"a" * 100_000 + b": 1"),
    _head("a name with a space", b"x y: 1"),
    _head("a space before the colon", b"x-y : 1"),
    _head("no colon", b"nonsense"),
    _head("a folded line", b"x-a: 1", b" folded", statuses=EITHER),
    _head("NUL in a value", b"x-a: a\x00b"),
    _head("no text in a value", b"x-a: \xff\xfe", statuses=SERVED),
    _head("two hosts", b"host: example.com", statuses=EITHER),
    _head("an upgrade to a web socket", b"connection: upgrade", b"upgrade: websocket",
          b"sec-websocket-version: 13", b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", statuses=SERVED),
    _head("an upgrade to HTTP/2", b"connection: upgrade, http2-settings", b"upgrade: h2c",
          b"http2-settings: AAMAAABkAAQAAP__", statuses=SERVED),
    _head("odd ranges", b"range: bytes=-1--1,9-0", b"if-range: x", statuses=SERVED),
    _head("odd conditions", b"if-none-match: \"", b"if-modified-since: never", statuses=SERVED),
    _head("odd cookies", b"cookie: =;;=; a=\"\\\"; " + b"x=y;" * 1000, statuses=SERVED),
    _head("an odd trace context", b"traceparent: 00-zz", b"tracestate: ,,,=", statuses=SERVED),
    # The length
    _head("two lengths", b"content-length: 1", b"content-length: 2"),
    _head("a negative length", b"content-length: -1"),
    _head("a length with a sign", b"content-length: +1"),
    _head("a length that no number holds", b"content-length: " + b"9" * 40),
    _chunks("length and chunks", b"0\r\n\r\n", BAD, b"content-length: 5"),
    _head("an unknown transfer coding", b"transfer-encoding: xchunked"),
    _head("chunks that are not last", b"transfer-encoding: chunked, identity"),
    _chunks("a chunk of no size", b"zz\r\nab\r\n0\r\n\r\n"),
    _chunks("a chunk larger than memory", b"f" * 20 + b"\r\nab\r\n0\r\n\r\n"),
    _chunks("a negative chunk", b"-5\r\nabcde\r\n0\r\n\r\n"),
    _chunks("a chunk without its end", b"2\r\nabcd\r\n0\r\n\r\n"),
    _chunks("huge extensions of a chunk", b"2;" + b"a" * 1_000_000 + b"\r\n{}\r\n0\r\n\r\n"),
    _chunks("many trailers", b"2\r\n{}\r\n0\r\n" + b"x-a: 1\r\n" * 10_000 + b"\r\n"),
    _chunks("a long trailer", b"2\r\n{}\r\n0\r\nx-a: " + b"a" * 1_000_000 + b"\r\n\r\n"),
    # The coding of the content
    _body("a gzip bomb", gzip.compress(_ZEROS), frozenset({413}), b"content-encoding: gzip"),
    _body("a deflate bomb", zlib.compress(_ZEROS), frozenset({413}), b"content-encoding: deflate"),
    _body("a raw deflate bomb", _raw_deflate(_ZEROS), frozenset({400, 413}), b"content-encoding: deflate"),
    _body("two codings", gzip.compress(gzip.compress(_AGENT)), BAD, b"content-encoding: gzip, gzip"),
    _body("an unknown coding", _AGENT, EITHER, b"content-encoding: x-none"),
    _body("half of a gzip", gzip.compress(_AGENT * 100)[:50], BAD, b"content-encoding: gzip"),
    _body("no gzip", _AGENT, BAD, b"content-encoding: gzip"),
    _body("a form", b"--b\r\ncontent-disposition: form-data; name=a\r\n\r\nx\r\n--b--\r\n", BAD,
          b"content-type: multipart/form-data; boundary=b"),
    _body("a bomb in a form",
          b"--b\r\ncontent-encoding: gzip\r\n\r\n" + gzip.compress(_ZEROS) + b"\r\n--b--\r\n",
          BAD, b"content-type: multipart/form-data; boundary=b"),
    # The JSON
    _body("nothing", b""),
    _body("spaces only", b" " * 500_000),
    _body("deep", b"[" * 100_000 + b"]" * 100_000),
    _body("deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    _body("a huge integer", b'{"name":"a","model":"m","metadata":{"a":' + b"9" * 100_000 + b"}}"),
    _body("a number out of range", b'{"name":"a","model":"m","metadata":{"a":1e400}}'),
    _body("NaN", b'{"name":NaN,"model":"m"}'),
    _body("-Infinity", b'{"name":-Infinity,"model":"m"}'),
    _body("half a pair of surrogates", b'{"name":"\\ud83d","model":"m"}'),
    _body("half a pair in a name", b'{"\\udc00":"a","model":"m"}'),
    _body("a name twice", b'{"name":"a","name":5,"model":"no-such-model"}'),
    _body("a byte order mark", b"\xef\xbb\xbf" + _AGENT),
    _body("UTF-16", _AGENT.decode().encode("utf-16"), BAD, b"content-type: application/json; charset=utf-16"),
    _body("UTF-32", _AGENT.decode().encode("utf-32")),
    _body("Latin-1", b'{"name":"\xe9","model":"m"}'),
    _body("an unknown charset", _AGENT, BAD, b"content-type: application/json; charset=x-none"),
    _body("a control character", b'{"name":"a\x01","model":"m"}'),
    _body("two documents", _AGENT + _AGENT),
    _body("a comment", b"/* */" + _AGENT),
    _body("single quotes", b"{'name':'a'}"),
    _body("no object", b'"text"'),
    _body("null", b"null"),
    _body("events that are one", b'{"events":{"type":"user.message"}}', path=b"{session}/events"),
    _body("large and half a pair", b'{"name":"' + b"\\ud83d\\ude00" * 80_000 + b'\\ud83d"}'),
    # More than one request
    Oddity("garbage after a request", _PLAIN + b"\r\n\x00\x01garbage\r\n\r\n", EITHER),
    Oddity("a body where none is due", _PLAIN + b"content-length: 3\r\n\r\n{}x", SERVED),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of one request."""

    answer: Answer | None
    """None when the connection was closed without one."""
    problem: str
    """Empty when it was handled well."""


async def send(target: Target, oddity: Oddity, session: str) -> Outcome:
    """Send one request and judge the answer."""
    async with target.open() as (reader, writer):
        writer.write(oddity.to(target, session))
        try:
            answer = await read_answer(reader, seconds=60)
        except (EOFError, ConnectionError):
            return Outcome(None, "closed without an answer")
        except TimeoutError:
            return Outcome(None, "no answer in a minute")
    if answer.status not in oddity.statuses:
        return Outcome(answer, f"{answer.status} instead of {sorted(oddity.statuses)}")
    if answer.status >= 400 and not answer.is_enveloped:
        return Outcome(answer, f"{answer.status} without the envelope: {answer.body[:200]!r}")
    if target.key and target.key.encode() in answer.body:
        return Outcome(answer, "the key is in the answer")
    return Outcome(answer, "")


async def pipelined(target: Target, count: int) -> int:
    """Send `count` requests at once on one connection; return how many are answered 200, in order."""
    async with target.open() as (reader, writer):
        writer.write(target.head("GET", "/livez") * count)
        served = 0
        while served < count:
            served += (await read_answer(reader)).status == 200
        return served


async def main(target: Target) -> int:
    """Send each kind; print what came of it. Return how many were handled badly."""
    session, bad = await new_session(target), 0
    async with Probe(target) as probe:
        for oddity in ODDITIES:
            outcome = await send(target, oddity, session)
            bad += bool(outcome.problem)
            status = outcome.answer.status if outcome.answer else "-"
            print(
                f"{'BAD' if outcome.problem else 'ok':3} {oddity.name:40} {status} {outcome.problem}"
            )  # a program
        served = await pipelined(target, 1000)
    print(
        f"{served} of 1000 pipelined requests served; probes: {probe.asked} asked, "  # a program
        f"{len(probe.failures)} failed, longest {probe.longest_seconds * 1000:.0f} ms"
    )
    return bad + len(probe.failures) + 1000 - served


if __name__ == "__main__":
    sys.exit(min(1, asyncio.run(main(Target.from_arguments(__doc__ or "")))))
