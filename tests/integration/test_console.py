"""The console of a whole sidecar over a fake child: who is let in, what is refused, what is escaped."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from http.cookies import Morsel
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from sidecar.app import RunningSidecar
from sidecar.config import ConsoleSettings
from sidecar.demo_gateway import DemoGateway
from sidecar.demo_gateway.models import DemoModel
from tests.fakes.small_sidecar import small_settings
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, http_client, sidecar_for

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{1234*5678}}"
SESSION = "sesn_01M8G5C8EWZ65WQ5TDRATSJ0VZ"
PAGES = ("", "/models", "/sessions", f"/sessions/{SESSION}", "/try", "/nothing", "/nothing/at/all")
CALLS = (f"/api/v1/sessions/{SESSION}/events", f"/api/v1/sessions/{SESSION}/events/stream")
FORMS = ("/models/refresh", "/try", "/sign-out")


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[DemoGateway]:
    gateway = DemoGateway(
        key=GATEWAY_KEY,
        models=[
            DemoModel(id=HOSTILE),
            DemoModel(id="openai/gpt-4o"),
            DemoModel(id="e", mode="embedding"),
        ],
    )
    await gateway.start()
    yield gateway
    await gateway.close()


@asynccontextmanager
async def opened(
    directory: Path, gateway_url: str, *, http: dict[str, Any] | None = None, **console: Any
) -> AsyncIterator[RunningSidecar]:
    settings = small_settings(directory, gateway_url)
    settings = settings.model_copy(
        update={
            "console": ConsoleSettings(**console),
            "http": settings.http.model_copy(update=http or {}),
        }
    )
    async with sidecar_for(settings) as running:
        await running.catalogue.refresh()
        yield running


@pytest.fixture(scope="module")
async def sidecar(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningSidecar]:
    async with opened(tmp_path_factory.mktemp("console"), gateway.url) as running:
        yield running


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as entered:
        yield entered


class Browser:
    """Cookies, and the headers that a browser sends with what a page of `url` does."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url
        self.own = {"origin": url, "sec-fetch-site": "same-origin"}

    async def get(self, path: str, **headers: str) -> tuple[int, str, aiohttp.ClientResponse]:
        async with self.http.get(
            f"/console{path}", headers=headers, allow_redirects=False
        ) as answer:
            return answer.status, await answer.text(), answer

    async def post(
        self, path: str, form: dict[str, str], headers: dict[str, str] | None = None
    ) -> tuple[int, str, aiohttp.ClientResponse]:
        sent = self.own if headers is None else headers
        async with self.http.post(
            f"/console{path}", data=form, headers=sent, allow_redirects=False
        ) as answer:
            return answer.status, await answer.text(), answer

    async def sign_in(self, key: str = RUNTIME_KEY, **headers: str) -> Morsel[str]:
        """Sign in; return the cookie."""
        status, text, answer = await self.post("/sign-in", {"key": key}, self.own | headers)
        assert (status, answer.headers.get("location")) == (303, "/console"), text
        (cookie,) = answer.cookies.values()
        return cookie

    async def token(self) -> str:
        """Return the token of the pages' forms."""
        _, text, _ = await self.get("/try")
        (token,) = re.findall(r'name="console-token" content="([^"]+)"', text)
        return str(token)


async def browse(stack: AsyncExitStack, sidecar: RunningSidecar) -> Browser:
    jar = aiohttp.CookieJar(unsafe=True)  # of an address without a name, too
    http = aiohttp.ClientSession(sidecar.url, cookie_jar=jar)
    return Browser(await stack.enter_async_context(http), sidecar.url)


@pytest.fixture
async def browser(stack: AsyncExitStack, sidecar: RunningSidecar) -> Browser:
    return await browse(stack, sidecar)


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_without_a_session_leads_to_the_sign_in(browser: Browser, path: str) -> None:
    """And from there back; the API's own key does not open a page, only a session does."""
    for headers in ({}, {"x-api-key": RUNTIME_KEY}, {"cookie": "sidecar_console_0=1.2.3"}):
        status, _, answer = await browser.get(path, **headers)
        assert status == 303
        assert answer.headers["location"] == f"/console/sign-in?next=/console{path}"


@pytest.mark.parametrize("path", CALLS)
async def test_a_call_without_a_session_is_refused(browser: Browser, path: str) -> None:
    """401 in the API's envelope, which a script can read, and no question of the browser's own."""
    status, text, answer = await browser.get(path)
    assert (status, "authentication_error" in text) == (401, True)
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("path", FORMS)
async def test_a_form_without_a_session_changes_nothing(browser: Browser, path: str) -> None:
    """It leads to the sign-in, too."""
    status, _, answer = await browser.post(path, {"text": "hello", "model": "openai/gpt-4o"})
    assert (status, answer.headers["location"]) == (303, "/console/sign-in?next=/console")


@pytest.mark.parametrize(
    "path",
    [
        *("/%63onsole", "/%63onsole/models", "/console%2fmodels", "/console/../v1/agents"),
        *("/health%2f", "/livez/../v1/agents", "/openapi.json/../v1/agents"),
    ],
)
async def test_another_spelling_of_a_path_opens_nothing(sidecar: RunningSidecar, path: str) -> None:
    """What decides about the key is the route that was found, not how its path was written."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(URL(sidecar.url + path, encoded=True), allow_redirects=False) as answer,
    ):
        is_sign_in = answer.headers.get("location", "").startswith("/console/sign-in")
        assert answer.status == 401 or is_sign_in


async def test_the_key_gives_a_session_that_is_not_the_key(browser: Browser) -> None:
    """The cookie is for the console only, unreadable for scripts, and not sent by other sites."""
    cookie = await browser.sign_in()
    assert RUNTIME_KEY not in cookie.value
    assert (cookie["path"], cookie["samesite"]) == ("/console", "Strict")
    assert cookie["httponly"]
    assert not cookie["secure"]
    assert int(cookie["max-age"]) == 12 * 3600
    for path in ("", "/models", "/sessions", "/try"):
        assert (await browser.get(path))[0] == 200
    secure = await browser.sign_in(**{"x-forwarded-proto": "https"})
    assert secure["secure"]


async def test_a_session_opens_the_console_and_nothing_else(browser: Browser) -> None:
    """The API goes on asking for its key, whatever cookie comes along."""
    cookie = await browser.sign_in()
    headers = {"cookie": f"{cookie.key}={cookie.value}"}
    for path in ("/v1/models", "/v1/sessions", "/session", "/config"):
        async with browser.http.get(path, headers=headers) as answer:
            assert answer.status == 401


async def test_a_session_ends_with_the_sign_out(browser: Browser) -> None:
    """Also for who kept the cookie."""
    cookie = await browser.sign_in()
    status, _, answer = await browser.post("/sign-out", {"token": await browser.token()})
    assert (status, answer.headers["location"]) == (303, "/console/sign-in")
    assert answer.cookies[cookie.key].value == ""
    kept = {"cookie": f"{cookie.key}={cookie.value}"}
    assert (await browser.get("", **kept))[0] == 303


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:3000"},
    ],
    ids=repr,
)
async def test_changes_come_from_our_own_pages(browser: Browser, headers: dict[str, str]) -> None:
    """403 for whatever another site, or another port of this host, makes a browser send."""
    await browser.sign_in()
    token = await browser.token()
    for path in (*FORMS, "/sign-in"):
        status, _, _ = await browser.post(path, {"token": token, "key": RUNTIME_KEY}, headers)
        assert status == 403, path
    call = f"/console{CALLS[0]}"
    sent = headers | {"x-console-token": token}
    async with browser.http.post(call, json={"events": []}, headers=sent) as answer:
        assert answer.status == 403
    assert (await browser.get(""))[0] == 200


@pytest.mark.parametrize("token", ["", "0" * 64, "\udcff"])
async def test_changes_need_the_token_of_the_session(browser: Browser, token: str) -> None:
    """403 without it, also from a page of ours."""
    await browser.sign_in()
    for path in FORMS:
        form = {"token": token.encode(errors="replace").decode()}
        assert (await browser.post(path, form))[0] == 403
    call = f"/console{CALLS[0]}"
    async with browser.http.post(call, json={"events": []}, headers=browser.own) as answer:
        assert answer.status == 403


async def test_wrong_keys_are_refused_and_then_not_looked_at(
    stack: AsyncExitStack, gateway: DemoGateway, tmp_path: Path
) -> None:
    """401, then 429 with the time to wait, for the right key as well; a session goes on."""
    sidecar = await stack.enter_async_context(opened(tmp_path, gateway.url, attempts_per_minute=3))
    signed_in, browser = await browse(stack, sidecar), await browse(stack, sidecar)
    await signed_in.sign_in()
    for wrong in ("", "wrong", RUNTIME_KEY + "x"):
        status, text, answer = await browser.post("/sign-in", {"key": wrong})
        assert (status, answer.cookies) == (401, {})
        assert "This is not the sidecar&#39;s RUNTIME_API_KEY." in text
        assert RUNTIME_KEY not in text
    status, _, answer = await browser.post("/sign-in", {"key": RUNTIME_KEY})
    assert (status, 0 < int(answer.headers["retry-after"]) <= 60) == (429, True)
    assert (await signed_in.get(""))[0] == 200
    assert sidecar.admin_url is not None
    async with http_client(sidecar.admin_url) as http, http.get("/metrics") as answer:
        text = await answer.text()
    assert "opencode_sidecar_console_sign_in_failures_total 3.0" in text
    assert "opencode_sidecar_console_sign_ins_refused_total 1.0" in text


async def test_every_answer_is_strict_about_what_a_page_may_do(browser: Browser) -> None:
    """Nothing inline, nothing from elsewhere, no frame, no markup from text; pages are not kept."""
    await browser.sign_in()
    for path in (*PAGES, "/sign-in", "/static/console.js"):
        _, _, answer = await browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        if not path.startswith("/static"):
            assert answer.headers["cache-control"] == "no-store"


async def test_after_the_sign_in_one_stays_here(browser: Browser) -> None:
    """`next` leads to a page of the console and nowhere else."""
    for after, expected in (
        ("/console/models?q=a", "/console/models?q=a"),
        ("https://evil.example", "/console"),
        ("//evil.example", "/console"),
        ("/console@evil.example", "/console"),
        ("/console/\\evil.example", "/console"),
        ("/console/\r\nx: y", "/console"),
        ("/v1/models", "/console"),
    ):
        form = {"key": RUNTIME_KEY, "next": after}
        _, _, answer = await browser.post("/sign-in", form)
        assert answer.headers["location"] == expected


async def test_hostile_names_are_text(browser: Browser) -> None:
    """A model's id, a search and an error that repeat markup show it, in text and in attributes."""
    await browser.sign_in()
    _, models, _ = await browser.get("/models")
    _, searched, _ = await browser.get("/models?q=" + "%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    _, offered, _ = await browser.get("/try?model=" + quote(HOSTILE))
    form = {
        "token": await browser.token(),
        "model": f"x{HOSTILE}",
        "text": HOSTILE,
        "tools": "none",
    }
    status, refused, _ = await browser.post("/try", form)
    assert status == 400
    for page in (models, searched, offered, refused):
        assert "&lt;script&gt;alert(1)" in page
        assert page.count("<script") == 1
        assert "<img" not in page
        assert str(1234 * 5678) not in page


async def test_what_cannot_be_seen_is_named(browser: Browser) -> None:
    """Control characters and what turns the order of text; a form still sends what was typed."""
    await browser.sign_in()
    odd = "a\u202egnp\u2066\x1b[31m\x00\u200b\U000e0041z"
    named = "a⟨U+202E⟩gnp⟨U+2066⟩⟨U+001B⟩[31m⟨U+0000⟩⟨U+200B⟩⟨U+E0041⟩z"
    _, searched, _ = await browser.get("/models?q=" + quote(odd))
    assert f"No model matches “{named}”." in searched
    assert f'value="{odd}"' in searched
    form = {"token": await browser.token(), "model": f"x{odd}", "text": odd, "tools": "none"}
    status, refused, _ = await browser.post("/try", form)
    assert status == 400
    assert f">{odd}</textarea>" in refused
    joined = "\u0645\u06cc\u200c\u062e \U0001f469\u200d\U0001f4bb"  # letters and pictures need the joiners
    _, page, _ = await browser.get("/models?q=" + quote(joined))
    assert f"{joined}\N{RIGHT DOUBLE QUOTATION MARK}." in page


async def test_a_refused_message_is_kept_in_the_form(browser: Browser) -> None:
    """With the API's own sentence, near matches included."""
    await browser.sign_in()
    form = {
        "token": await browser.token(),
        "model": "openai/gpt-4",
        "text": "Hello",
        "tools": "ask",
    }
    status, page, _ = await browser.post("/try", form)
    assert status == 400
    assert "openai/gpt-4o" in page
    assert ">Hello</textarea>" in page
    form["text"] = "  "
    assert "Write a message first." in (await browser.post("/try", form))[1]


async def test_odd_queries_are_pages_with_the_reason(browser: Browser) -> None:
    """400 or 404 as the API would answer, for people."""
    await browser.sign_in()
    for path, status in (
        ("/models?page=0", 400),
        ("/models?page=x", 400),
        ("/models?page=999", 200),
        ("/sessions?status=odd", 400),
        ("/sessions?page=none-of-ours", 400),
        ("/sessions/sesn_unknown", 404),
        ("/sessions/..%2f..%2fetc", 404),
        (f"/sessions/{SESSION}", 404),
        ("/static/../pages.py", 404),
        ("/static/none.css", 404),
    ):
        found, text, answer = await browser.get(path)
        assert (path, found) == (path, status)
        assert answer.content_type == "text/html"
        assert "<h1>" in text


async def test_a_search_and_why_models_are_hidden(browser: Browser) -> None:
    """The number of each, and the reason of the hidden one."""
    await browser.sign_in()
    _, page, _ = await browser.get("/models?q=embedding")
    assert "0 listed, 1 hidden" in page
    assert "mode embedding" in page


async def test_a_refresh_reads_the_gateway_again(browser: Browser, sidecar: RunningSidecar) -> None:
    """By the same call as the API's, and then shows the list."""
    await browser.sign_in()
    before = sidecar.catalogue.refreshes
    status, _, answer = await browser.post("/models/refresh", {"token": await browser.token()})
    assert (status, answer.headers["location"]) == (303, "/console/models")
    assert sidecar.catalogue.refreshes == before + 1


async def test_without_a_key_the_pages_are_open_and_their_forms_are_not(
    stack: AsyncExitStack, gateway: DemoGateway, tmp_path: Path
) -> None:
    """As the API is: on loopback, not for other sites. There is nothing to sign in to."""
    sidecar = await stack.enter_async_context(
        opened(tmp_path, gateway.url, http={"runtime_api_key": None})
    )
    browser = await browse(stack, sidecar)
    assert (await browser.post("/models/refresh", {}))[0] == 403
    status, page, _ = await browser.get("")
    assert status == 200
    assert "Sign out" not in page
    assert (await browser.get("/sign-in"))[0] == 303
    assert (await browser.post("/models/refresh", {"token": "wrong"}))[0] == 403
    assert (await browser.post("/models/refresh", {"token": await browser.token()}))[0] == 303
    foreign = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert (await browser.get("", **foreign))[0] == 403


async def test_the_console_can_be_switched_off(
    stack: AsyncExitStack, gateway: DemoGateway, tmp_path: Path
) -> None:
    """Its paths are then as unknown as any other, and ask for the key as any other."""
    sidecar = await stack.enter_async_context(opened(tmp_path, gateway.url, is_enabled=False))
    browser = await browse(stack, sidecar)
    for path in ("", "/sign-in", "/static/console.css"):
        assert (await browser.get(path))[0] == 401
        assert (await browser.get(path, **{"x-api-key": RUNTIME_KEY}))[0] == 404
