"""The clients themselves: faults, all runtimes at once, threads and loops, strict conformance."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anthropic
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.sdk import (
    AsyncClient,
    AuthenticationError,
    BadAnswerError,
    Client,
    ClientClosedError,
    CursorRuntime,
    InvalidSettingError,
    ModelPage,
    ModelsError,
    PermissionDeniedError,
    RateLimitedError,
    RequestPolicy,
    TimedOutError,
    UnavailableError,
    make_page,
)
from sidecar.sdk.registry import ENTRY_POINT_GROUP
from sidecar.sdk.shapes import read_item
from tests.fakes.anthropic_api import (
    HTML_PAGE,
    NOT_JSON,
    AnthropicApi,
    Fault,
    VendorFake,
    anthropic_error,
    anthropic_model,
    serving_in_a_thread,
)
from tests.fakes.cursor_api import V1_OBJECTS, CursorApi
from tests.fakes.gemini_api import GeminiApi
from tests.waiting import patience

ROOT = Path(__file__).resolve().parents[2]
SECRET = "cur_0123456789abcdef"
ONCE = RequestPolicy(max_retries=0)
IMPATIENT = RequestPolicy(max_retries=0, request_timeout_seconds=0.3)

Serve = Callable[[VendorFake], Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve a fake on a real socket and return its base URL."""
    async with AsyncExitStack() as stack:

        async def start(fake: VendorFake) -> str:
            server = TestServer(fake.app())
            await stack.enter_async_context(server)
            return str(server.make_url("/")).rstrip("/")

        yield start


@pytest.fixture
def threaded_cursor() -> Iterator[tuple[CursorApi, str]]:
    fake = CursorApi()
    with serving_in_a_thread(fake) as url:
        yield fake, url


def cursor_settings(url: str, key: str, **more: Any) -> dict[str, Any]:
    return {"api_keys": {"cursor": key}, "base_urls": {"cursor": url}, "environ": {}, **more}


def chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(401, anthropic_error("authentication_error", "no")), AuthenticationError),
        (Fault(403, '{"error":"forbidden","message":"no"}'), PermissionDeniedError),
        (Fault(429, "slow", {"retry-after": "120"}), RateLimitedError),
        (Fault(500, "<h1>Oops</h1>", content_type="text/html"), UnavailableError),
        (Fault(hangs=True), TimedOutError),
        (NOT_JSON, BadAnswerError),
        (HTML_PAGE, BadAnswerError),
        (Fault(307, headers={"location": "/elsewhere"}), BadAnswerError),
    ],
)
@pytest.mark.parametrize("name", ["anthropic", "cursor", "opencode", "gemini"])
async def test_every_fault_is_typed_for_every_runtime(
    serve: Serve, name: str, fault: Fault, kind: type[ModelsError]
) -> None:
    """The same cause has the same class whatever the runtime, and the key is nowhere in it."""
    fakes: dict[str, Any] = {
        "anthropic": AnthropicApi(),
        "cursor": CursorApi(),
        "opencode": AnthropicApi(),
        "gemini": GeminiApi(),
    }
    fake = fakes[name]
    fake.faults.append(fault)
    url = await serve(fake)
    policy = IMPATIENT if fault.hangs else ONCE
    async with AsyncClient(
        api_keys={name: SECRET}, base_urls={name: url}, environ={}, policy=policy
    ) as client:
        with pytest.raises(kind) as caught:
            await client.models.list(name)

    assert type(caught.value) is kind
    assert caught.value.runtime == name
    assert len(fake.requests) == 1
    assert SECRET not in "".join(f"{e!r}{e}{vars(e)}" for e in chain(caught.value))
    if fault.status == 429:
        assert caught.value.retry_after_seconds == 120


async def test_a_failure_is_retried_on_the_wire(serve: Serve) -> None:
    """With the default number of retries two failures are survived."""
    fake = CursorApi()
    fake.faults.extend([Fault(503), Fault(429, headers={"retry-after": "0"})])
    policy = RequestPolicy(first_delay_seconds=0.01)
    async with AsyncClient(**cursor_settings(await serve(fake), fake.key, policy=policy)) as client:
        assert len(await client.models.list("cursor")) == 2

    assert len(fake.requests) == 3


async def test_an_answer_that_is_not_http_does_not_leak_the_key() -> None:
    """aiohttp's error for broken HTTP holds the request's headers; ours is not chained to it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SMTP ready\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        AsyncClient(**cursor_settings(f"http://127.0.0.1:{port}", SECRET, policy=ONCE)) as client,
    ):
        with pytest.raises(UnavailableError) as caught:
            await client.models.list("cursor")

    shown = "".join(f"{e!r}{e}{vars(e)}" for e in chain(caught.value))
    assert "Basic" not in shown
    assert SECRET not in shown


async def test_a_refused_connection_is_unavailable(unused_tcp_port: int) -> None:
    """Nothing listens: the error names the host and is not a time-out."""
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with AsyncClient(**cursor_settings(url, SECRET, policy=ONCE)) as client:
        with pytest.raises(UnavailableError, match=f"cannot reach 127.0.0.1:{unused_tcp_port}"):
            await client.models.list("cursor")


async def test_logs_of_retries_do_not_show_the_key(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A retry is logged with its cause; a key echoed by the vendor is masked there too."""
    fake = CursorApi()
    fake.faults.append(Fault(503, json.dumps({"message": f"overload for {fake.key}"})))
    caplog.set_level(logging.DEBUG, "sidecar.sdk")
    policy = RequestPolicy(first_delay_seconds=0.01)
    async with AsyncClient(**cursor_settings(await serve(fake), fake.key, policy=policy)) as client:
        await client.models.list("cursor")

    assert "overload for ***" in caplog.text
    assert fake.key not in caplog.text


async def test_list_all_keeps_failures_apart(serve: Serve) -> None:
    """One runtime answers, one fails, one is not configured; nothing is raised."""
    good, bad = CursorApi(), AnthropicApi()
    bad.faults.append(Fault(500))
    async with AsyncClient(
        api_keys={"cursor": good.key, "anthropic": bad.key},
        base_urls={"cursor": await serve(good), "anthropic": await serve(bad)},
        environ={},
        policy=ONCE,
    ) as client:
        everything = await client.models.list_all()

    assert list(everything.pages) == ["cursor"]
    assert isinstance(everything.errors["anthropic"], UnavailableError)
    assert list(everything.unconfigured) == ["opencode", "gemini"]
    assert {m.runtime for m in everything.data} == {"cursor"}
    assert len(everything.data) == 2


async def test_list_all_asks_all_runtimes_at_once(serve: Serve) -> None:
    """Both vendors have the request in hand before either has answered."""
    fakes: dict[str, Any] = {"cursor": CursorApi(), "anthropic": AnthropicApi()}
    urls = {name: await serve(fake) for name, fake in fakes.items()}
    for fake in fakes.values():
        fake.faults.append(Fault(200, "{}", hangs=True))
    async with AsyncClient(
        api_keys={name: fake.key for name, fake in fakes.items()}, base_urls=urls, environ={}
    ) as client:
        asked = asyncio.ensure_future(client.models.list_all(["cursor", "anthropic"]))
        async with patience():
            await asyncio.gather(*(fake.hanging.wait() for fake in fakes.values()))
        for fake in fakes.values():
            fake.release()
        everything = await asked

    assert set(everything.errors) == {"cursor", "anthropic"}


async def test_list_all_of_named_runtimes_reports_an_unknown_one() -> None:
    """A wrong name in the selection does not spoil the others."""
    async with AsyncClient(environ={}) as client:
        everything = await client.models.list_all(["curser", "cursor"])

    assert list(everything.errors) == ["curser"]
    assert list(everything.unconfigured) == ["cursor"]


async def test_the_page_served_back_passes_the_official_sdk_s_strict_mode(serve: Serve) -> None:
    """Every runtime's dumped page, served as it is, reads in strict mode and says the same."""
    fakes: dict[str, Any] = {
        "anthropic": AnthropicApi(
            models=[anthropic_model("claude-x"), anthropic_model("y", capabilities={"batch": 1})]
        ),
        "cursor": CursorApi(items=["plain", *V1_OBJECTS]),
        "gemini": GeminiApi(),
    }
    for name, fake in fakes.items():
        url = await serve(fake)
        async with AsyncClient(
            api_keys={name: fake.key}, base_urls={name: url}, environ={}
        ) as client:
            page = await client.models.list(name)
        await read_strictly(page)
    await read_strictly(make_page("empty", [], lambda item: read_item(item, runtime="empty")))


async def read_strictly(page: ModelPage) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(page.model_dump(mode="json"))

    app = web.Application()
    app.router.add_get("/v1/models", answer)
    async with TestServer(app) as server:
        official = anthropic.Anthropic(
            base_url=str(server.make_url("/")), api_key="x", _strict_response_validation=True
        )
        with official:
            got = await asyncio.to_thread(lambda: list(official.models.list()))

    assert [m.id for m in got] == [m.id for m in page]
    for theirs, ours in zip(got, page, strict=True):
        assert theirs.display_name == ours.display_name
        assert theirs.created_at == ours.created_at
        assert theirs.max_input_tokens == ours.max_input_tokens
        assert (theirs.capabilities is None) == (ours.capabilities is None)
        assert theirs.runtime == page.runtime  # type: ignore[attr-defined]  # an extra field


async def test_a_closed_async_client_says_so() -> None:
    """Calls after `close()` raise ClientClosedError."""
    client = AsyncClient(api_keys={"cursor": SECRET}, environ={})
    await client.close()

    with pytest.raises(ClientClosedError):
        await client.models.list("cursor")


async def test_a_package_adds_a_runtime_by_entry_point(
    tmp_path: Path, threaded_cursor: tuple[CursorApi, str]
) -> None:
    """An installed distribution's adapter is listed, asked, given its own key; a broken one is reported."""
    fake, url = threaded_cursor
    (tmp_path / "acme_models.py").write_text(
        "from sidecar.sdk import CursorRuntime, Endpoint, ModelInfo, Runtime, bearer, make_page\n"
        "class Acme(Runtime):\n"
        "    name = 'acme'\n"
        "    endpoints = (Endpoint('acme', 'ACME_KEY', 'ACME_URL', None, bearer),)\n"
        "    async def list_models(self, upstream):\n"
        "        body = await upstream.get_json('/v1/models')\n"
        "        read = lambda i: ModelInfo.read({'id': i['id']}, runtime='acme', raw=i)\n"
        "        return make_page('acme', body['items'], read)\n",
        encoding="utf-8",
    )
    info = tmp_path / "acme_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: acme-models\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\nacme = acme_models:Acme\nbroken = acme_models:Missing\n",
        encoding="utf-8",
    )
    code = (
        "import sys; from sidecar.sdk import Client\n"
        "with Client(api_keys={'acme': sys.argv[2]}, environ={'ACME_URL': sys.argv[1]}) as client:\n"
        "    print(client.runtimes)\n"
        "    print([(m.id, m.runtime) for m in client.models.list('acme')])\n"
        "    found = client.models.list_all()\n"
        "    print(list(found.pages), list(found.errors), found.errors['broken'])\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, url, fake.key],
        cwd=ROOT,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stderr == ""
    names, models, everything = done.stdout.splitlines()
    assert names == "('anthropic', 'cursor', 'opencode', 'gemini', 'acme', 'broken')"
    assert models == "[('claude-4.5-opus-high-thinking', 'acme'), ('gpt-5.2', 'acme')]"
    assert everything.startswith("['acme'] ['broken'] broken: the adapter acme_models:Missing")


async def test_an_adapter_that_fails_comes_out_as_a_models_error() -> None:
    """A bug in a third party's adapter is named, and `list_all` still returns."""

    class Faulty(CursorRuntime):
        name = "faulty"

        async def list_models(self, upstream: Any) -> ModelPage:
            raise KeyError(SECRET)

    async with AsyncClient(runtimes=[Faulty()], api_keys={"cursor": SECRET}, environ={}) as client:
        everything = await client.models.list_all(["faulty"])

    assert str(everything.errors["faulty"]) == "faulty: the adapter failed with KeyError"


def test_a_misspelt_key_name_is_refused_by_the_sync_client_too() -> None:
    """The mistake shows at construction, before any request."""
    with pytest.raises(InvalidSettingError, match="curser"):
        Client(api_keys={"curser": SECRET}, environ={})


async def test_the_systems_proxy_is_used_but_for_loopback(serve: Serve) -> None:
    """By default, from the environment that the client was given; it can be switched off."""
    api = AnthropicApi(key="k", models=[anthropic_model("claude-one")])
    proxy = await serve(api)
    environ = {"http_proxy": proxy, "ANTHROPIC_API_KEY": "k"}
    far = environ | {"ANTHROPIC_BASE_URL": "http://anthropic.invalid"}
    async with AsyncClient(environ=far, policy=ONCE) as client:
        assert [model.id for model in await client.models.list("anthropic")] == ["claude-one"]
    async with AsyncClient(environ=far, policy=ONCE, use_system_proxy=False) as client:
        with pytest.raises(UnavailableError):
            await client.models.list("anthropic")

    nowhere = {"http_proxy": "http://127.0.0.1:9", "ANTHROPIC_API_KEY": "k"}
    async with AsyncClient(environ=nowhere, base_urls={"anthropic": proxy}, policy=ONCE) as client:
        assert await client.models.list("anthropic")

    with pytest.raises(InvalidSettingError, match="http_proxy"):
        AsyncClient(environ={"http_proxy": "socks5://x:1"})
