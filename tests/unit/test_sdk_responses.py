"""HTTP answers and the errors they become, with aioresponses in place of the network."""

from __future__ import annotations

import base64
import pickle
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses

from sidecar.sdk import (
    AsyncClient,
    AuthenticationError,
    BadAnswerError,
    ModelsError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RequestPolicy,
    RequestRefusedError,
    TimedOutError,
    UnavailableError,
    UnknownRuntimeError,
    Upstream,
)
from sidecar.sdk.cursor import CursorRuntime
from sidecar.sdk.endpoints import Credentials

KEY = "cur_0123456789abcdef"
URL = "https://api.cursor.com/v1/models"
ONCE = RequestPolicy(max_retries=0)
OK: dict[str, Any] = {"items": [{"id": "m"}]}


class MockedResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not pass what aiohttp 3.14 requires (pnuckowski/aioresponses#289)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)


class Vendor(aioresponses):
    def add(self, *args: Any, **kwargs: Any) -> None:
        super().add(*args, response_class=MockedResponse, **kwargs)


@pytest.fixture
def vendor() -> Iterator[aioresponses]:
    with Vendor() as mocked:
        yield mocked


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    async with AsyncClient(api_keys={"cursor": KEY}, environ={}, policy=ONCE) as made:
        yield made


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


def upstream(
    session: aiohttp.ClientSession, waits: list[float], policy: RequestPolicy | None = None
) -> Upstream:
    """Return an upstream that notes its waits instead of waiting."""

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    runtime = CursorRuntime()
    credentials = Credentials(api_keys={"cursor": KEY}, base_urls={}, environ={})
    return Upstream(
        runtime="cursor",
        connection=credentials.connect("cursor", runtime.endpoints),
        session=session,
        policy=policy or RequestPolicy(),
        sleep=sleep,
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefusedError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (429, RateLimitedError),
        (451, RequestRefusedError),
        (500, UnavailableError),
        (503, UnavailableError),
        (529, UnavailableError),
    ],
)
async def test_each_status_has_its_error(
    vendor: aioresponses, client: AsyncClient, status: int, kind: type[ModelsError]
) -> None:
    """The class says the cause; status, request id, runtime and the vendor's words are on it."""
    body = {"error": "code", "message": "because of reasons"}
    vendor.get(URL, status=status, payload=body, headers={"x-request-id": "req_7"})

    with pytest.raises(kind) as caught:
        await client.models.list("cursor")

    error = caught.value
    assert type(error) is kind
    assert (error.status, error.request_id, error.runtime) == (status, "req_7", "cursor")
    assert str(error).endswith(f"because of reasons (HTTP {status}, request req_7)")


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        ("<!doctype html><p>hi", "text/html", "a web page (text/html)"),
        ("oops", "text/plain", "not JSON (text/plain)"),
        ("", "application/json", "not JSON"),
        ('{"items": [NaN]}', "application/json", "none of the 1 listed items has an id"),
        ("[" * 100_000, "application/json", "not JSON"),
        ("[]", "application/json", "not a list of models"),
        ("null", "application/json", "not a list of models"),
        ('{"items": {"id": "m"}}', "application/json", "items is missing or wrong"),
        ('{"data": []}', "application/json", "items is missing or wrong"),
    ],
)
async def test_a_200_that_is_no_list_is_a_bad_answer(
    vendor: aioresponses, client: AsyncClient, body: str, content_type: str, words: str
) -> None:
    """HTML, broken JSON and foreign shapes never become an empty list."""
    vendor.get(URL, body=body, content_type=content_type)

    with pytest.raises(BadAnswerError, match=words.replace("(", r"\(").replace(")", r"\)")):
        await client.models.list("cursor")


async def test_a_number_beyond_range_does_not_spoil_the_list(
    vendor: aioresponses, client: AsyncClient
) -> None:
    """`1e999` is JSON, but the infinity Python makes of it could not be served on."""
    vendor.get(URL, body='{"items": [{"id": "m", "weight": 1e999, "size": 1.5}]}')

    page = await client.models.list("cursor")

    assert page.data[0].raw == {"id": "m", "weight": None, "size": 1.5}


async def test_a_redirect_is_not_followed(vendor: aioresponses, client: AsyncClient) -> None:
    """The key is never carried to where a Location header points."""
    vendor.get(URL, status=302, headers={"location": "https://evil.example/v1/models"})

    with pytest.raises(BadAnswerError, match="redirect"):
        await client.models.list("cursor")

    assert len(vendor.requests) == 1


@pytest.mark.parametrize("form", ["{key}", "key={key};", "Basic {basic}"])
async def test_a_key_echoed_by_the_vendor_is_masked(
    vendor: aioresponses, client: AsyncClient, form: str
) -> None:
    """Vendors repeat keys in their messages; ours do not, in clear or as a Basic token."""
    basic = base64.b64encode(f"{KEY}:".encode()).decode()
    echoed = form.format(key=KEY, basic=basic)
    vendor.get(URL, status=401, payload={"message": f"bad {echoed} given"})

    with pytest.raises(AuthenticationError) as caught:
        await client.models.list("cursor")

    shown = repr(caught.value) + str(caught.value) + repr(vars(caught.value))
    assert "***" in shown
    assert KEY not in shown
    assert basic not in shown


async def test_a_long_vendor_message_is_cut_to_one_line(
    vendor: aioresponses, client: AsyncClient
) -> None:
    """Messages reach terminals and logs: one line, about 300 characters."""
    vendor.get(URL, status=500, payload={"error": {"message": "line\n\x1b[31m" + "x" * 5000}})

    with pytest.raises(UnavailableError) as caught:
        await client.models.list("cursor")

    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


async def test_retries_grow_and_then_succeed(
    vendor: aioresponses, session: aiohttp.ClientSession
) -> None:
    """Two failures are waited out with growing delays, jittered downwards by at most a quarter."""
    waits: list[float] = []
    vendor.get(URL, status=503)
    vendor.get(URL, exception=aiohttp.ServerDisconnectedError())
    vendor.get(URL, payload=OK)

    assert await upstream(session, waits).get_json("/v1/models") == OK

    assert 0.375 <= waits[0] <= 0.5
    assert 0.75 <= waits[1] <= 1.0


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after": "0.25"}, 0.25, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5, 1.5),
        ({"retry-after": "-3"}, 0, 0),
        ({"retry-after": "soon"}, 0.375, 0.5),
        ({"retry-after": "inf"}, 0.375, 0.5),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0, 0),
    ],
)
async def test_retry_after_is_honoured(
    vendor: aioresponses,
    session: aiohttp.ClientSession,
    headers: dict[str, str],
    low: float,
    high: float,
) -> None:
    """Milliseconds first, then seconds or a date; nonsense falls back to our own delay."""
    waits: list[float] = []
    vendor.get(URL, status=429, headers=headers)
    vendor.get(URL, payload=OK)

    await upstream(session, waits).get_json("/v1/models")

    assert len(waits) == 1
    assert low <= waits[0] <= high


async def test_retry_after_as_a_future_date(
    vendor: aioresponses, session: aiohttp.ClientSession
) -> None:
    """An HTTP date is waited for as the difference from now."""
    waits: list[float] = []
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    vendor.get(URL, status=429, headers={"retry-after": when})
    vendor.get(URL, payload=OK)

    await upstream(session, waits).get_json("/v1/models")

    assert 15 < waits[0] <= 20


async def test_a_retry_after_beyond_the_bound_raises_at_once(
    vendor: aioresponses, session: aiohttp.ClientSession
) -> None:
    """An hour is not waited for; the caller gets the hour."""
    waits: list[float] = []
    vendor.get(URL, status=429, headers={"retry-after": "3600"})

    with pytest.raises(RateLimitedError) as caught:
        await upstream(session, waits).get_json("/v1/models")

    assert waits == []
    assert caught.value.retry_after_seconds == 3600


@pytest.mark.parametrize(
    ("status", "told", "tries"),
    [(500, "false", 1), (409, "true", 3), (401, None, 1), (500, None, 3)],
)
async def test_x_should_retry_overrides_the_rule_for_the_status(
    vendor: aioresponses,
    session: aiohttp.ClientSession,
    status: int,
    told: str | None,
    tries: int,
) -> None:
    """As in the official SDKs the server has the last word on retrying."""
    waits: list[float] = []
    headers = {"x-should-retry": told} if told else {}
    vendor.get(URL, status=status, headers=headers, repeat=True)

    with pytest.raises(ModelsError):
        await upstream(session, waits).get_json("/v1/models")

    assert len(waits) == tries - 1


async def test_time_outs_and_refused_connections_differ(
    vendor: aioresponses, client: AsyncClient
) -> None:
    """A time-out has its own class under `UnavailableError` and names the bound."""
    vendor.get(URL, exception=TimeoutError())
    vendor.get(URL, exception=aiohttp.ClientConnectionError("refused"))

    with pytest.raises(TimedOutError, match="within 20 s"):
        await client.models.list("cursor")
    with pytest.raises(UnavailableError, match=r"cannot reach api\.cursor\.com") as caught:
        await client.models.list("cursor")
    assert not isinstance(caught.value, TimedOutError)


async def test_an_unknown_runtime_lists_the_known_ones(client: AsyncClient) -> None:
    """The error carries the names and a near match."""
    with pytest.raises(UnknownRuntimeError, match="Did you mean 'cursor'") as caught:
        await client.models.list("curser")

    assert caught.value.known == ("anthropic", "cursor", "opencode", "gemini")
    assert "anthropic, cursor, opencode, gemini" in str(caught.value)


async def test_an_unlisted_model_suggests_near_ones(
    vendor: aioresponses, client: AsyncClient
) -> None:
    """`retrieve` on a runtime without such a route looks in the list."""
    vendor.get(URL, payload={"items": [{"id": "gpt-5.2"}, {"id": "sonnet"}]})

    with pytest.raises(NotFoundError, match=r"no model 'gpt-5'; did you mean gpt-5\.2\?"):
        await client.models.retrieve("cursor", "gpt-5")


def test_errors_survive_pickling() -> None:
    """Errors cross process pools with their facts."""
    error = RateLimitedError("slow down", runtime="cursor", status=429, retry_after_seconds=2.5)
    unknown = UnknownRuntimeError("no", known=("a",))

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy), copy.retry_after_seconds) == (RateLimitedError, str(error), 2.5)
    assert pickle.loads(pickle.dumps(unknown)).known == ("a",)
