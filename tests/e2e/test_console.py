"""The console in a real browser, before the real opencode: signing in, searching, watching, answering."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests import node_program
from tests.chromium import chromium
from tests.harness import http_client, text_of
from tests.raw_client import RawClient
from tests.sidecar_process import serving

KEY = "runtime-key-of-the-console"
SECONDS = 90
PATHS = ("", "/models", "/sessions", "/try")
HOSTILE = "\"><img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
AXE = Path(__file__).parent / "axe"

expect.set_options(timeout=SECONDS * 1000)


@pytest.fixture(scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a sidecar over the demo gateway: a process of its own, as the browser is."""
    settings = {
        "DATA_DIR": str(tmp_path_factory.mktemp("console") / "data"),
        "HOST": "127.0.0.1",
        "PORT": "0",
        "SIDECAR_ADMIN_PORT": "0",
        "RUNTIME_API_KEY": KEY,
        "SIDECAR_HTTP_BOOKKEEPING_EVENTS": "0",
        "SIDECAR_HTTP_LATE_READER_SECONDS": "170",
    }
    async with serving(**settings) as sidecar:
        address = await sidecar.url()
        await sidecar.logged("child ready", seconds=SECONDS)
        yield address


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@pytest.fixture(scope="module")
async def signed_in(browser: Browser, url: str) -> Any:
    """What a browser keeps after signing in."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{url}/console")
    await sign_in(page)
    kept = await context.storage_state()
    await context.close()
    return kept


@pytest.fixture(scope="module")
async def axe() -> str:
    folder = await asyncio.to_thread(node_program.install, AXE)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture
async def raw(url: str) -> AsyncIterator[RawClient]:
    async with http_client(url, KEY) as http:
        yield RawClient(http)


async def sign_in(page: Page, key: str = KEY) -> None:
    await page.get_by_label("Key").fill(key)
    await page.get_by_role("button", name="Sign in").click()


@asynccontextmanager
async def opened(context: BrowserContext) -> AsyncIterator[Page]:
    """A page on which nothing may go wrong unseen: no exception, nothing that the policy refuses."""
    page = await context.new_page()
    page.set_default_timeout(SECONDS * 1000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    yield page
    assert wrong == []


@pytest.fixture
async def page(browser: Browser, signed_in: Any) -> AsyncIterator[Page]:
    context = await browser.new_context(storage_state=signed_in)
    async with opened(context) as page:
        yield page
    await context.close()


async def try_it(page: Page, url: str, text: str, *, tools: str = "ask before") -> None:
    """Start a session with Try it; its page opens."""
    await page.goto(f"{url}/console/try")
    await page.get_by_label("Model").fill("openai/gpt-4o")
    await page.get_by_label(tools).check()
    await page.get_by_label("Message").fill(text)
    await page.get_by_role("button", name="Start").click()
    await page.wait_for_url("**/console/sessions/sesn_*")


def line(page: Page, text: str) -> Any:
    return page.locator("#events > li", has_text=text)


async def test_a_person_signs_in_and_out(browser: Browser, url: str) -> None:
    """A wrong key is called that; the right one leads to the page that was asked for. No script sees it."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{url}/console/models")
    await sign_in(page, "wrong")
    await expect(page.get_by_role("alert")).to_contain_text("not the sidecar's RUNTIME_API_KEY")
    await sign_in(page)
    await expect(page.get_by_role("heading", name="Models")).to_be_visible()
    assert await page.evaluate("document.cookie") == ""
    assert KEY not in await page.content()
    (cookie,) = await context.cookies(f"{url}/console")
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/console")
    await page.get_by_role("button", name="Sign out").click()
    await page.goto(f"{url}/console")
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await context.close()


async def test_models_are_found_while_one_types(page: Page, url: str) -> None:
    """The list follows the words, the address keeps them, and Try takes the model along."""
    await page.goto(f"{url}/console/models")
    rows = page.get_by_role("table", name="Listed models").locator("tbody tr")
    await expect(rows).to_have_count(6)
    await page.get_by_role("searchbox").press_sequentially("anthropic reasoning")
    await expect(rows).to_have_count(1)
    await expect(page.get_by_role("status")).to_contain_text("1 listed, 0 hidden")
    await page.wait_for_url("**/console/models?q=anthropic+reasoning")
    await page.get_by_role("searchbox").fill("embedding")
    await expect(page.get_by_role("table", name="Hidden models")).to_contain_text("mode embedding")
    await page.get_by_role("searchbox").fill("qwen3")
    await page.get_by_role("link", name="Try ollama/qwen3:8b").click()
    await expect(page.get_by_label("Model")).to_have_value("ollama/qwen3:8b")


async def test_the_lists_are_read_again(page: Page, url: str) -> None:
    """By the button, which comes back to the page; it says where the list is from."""
    await page.goto(f"{url}/console/models?q=openai")
    async with page.expect_response("**/console/models/refresh") as refreshed:
        await page.get_by_role("button", name="Read the lists again").click()
    assert (await refreshed.value).status == 303
    await page.wait_for_url("**/console/models")
    await expect(page.get_by_role("status")).to_contain_text("from the demo gateway")


_NOTE_PARTIAL_TEXTS = """
  window.partial = [];
  new MutationObserver(() => {
    const text = document.querySelector("#events .is-partial .text");
    if (text) window.partial.push(text.textContent);
  }).observe(document.querySelector("#events"), { childList: true, subtree: true });
"""


async def test_a_turn_is_watched_as_it_streams(page: Page, url: str, raw: RawClient) -> None:
    """Text appears while it is written; afterwards the session has tokens, and the chart its turn."""
    session = await raw.new_session()
    await page.goto(f"{url}/console/sessions/{session}")
    await page.evaluate(_NOTE_PARTIAL_TEXTS)
    await page.get_by_label("Message").fill("[[slow: 12x0.3 tick]]")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#events .agent:not(.is-partial) .text")).to_contain_text("tick12")
    texts = await page.evaluate("window.partial")
    assert any("tick1" in text and "tick12" not in text for text in texts), texts
    await expect(line(page, "turn ended")).to_be_visible()
    await expect(page.locator("#facts")).to_contain_text("idle")
    await expect(page.locator("#facts")).to_contain_text("$0.000")
    live = await page.locator("#events > li:not(.bookkeeping)").all_inner_texts()
    await page.reload()
    await expect(line(page, "turn ended")).to_be_visible()
    assert await page.locator("#events > li:not(.bookkeeping)").all_inner_texts() == live
    await page.goto(f"{url}/console")
    await expect(page.locator(".figures").first).to_contain_text("median turn")
    assert await page.locator("path.dot.completed").count() == 1


async def test_a_call_is_allowed_and_another_denied(page: Page, url: str) -> None:
    """The question shows the call; allowed it has an output, denied the reason, and both are folded."""
    await try_it(page, url, "[[bash: echo from-the-shell]] [[then]] [[say: First done.]]")
    await expect(page.locator("#pending")).to_contain_text("echo from-the-shell")
    await page.get_by_role("button", name="Allow").click()
    await expect(line(page, "First done.")).to_be_visible()
    await expect(page.locator("#pending")).to_be_hidden()
    call = page.locator("#events .tool").first
    await expect(call.locator(".badge")).to_have_text("done")
    await expect(call.locator(".output")).to_be_hidden()
    await call.locator("summary").click()
    await expect(call.locator(".output")).to_contain_text("from-the-shell")
    await expect(line(page, "turn ended")).to_be_visible()

    await page.get_by_label("Message").fill("[[bash: echo again]] [[then]] [[say: Second done.]]")
    await page.get_by_label("Message").press("Control+Enter")
    await page.get_by_label("Reason, when denied").fill("not today")
    await page.get_by_role("button", name="Deny").click()
    await expect(line(page, "denies bash: not today")).to_be_visible()
    await expect(line(page, "Second done.")).to_be_visible()
    await expect(page.locator("#events .tool").last.locator(".badge")).to_have_text("error")


async def test_a_turn_is_interrupted(page: Page, url: str) -> None:
    """The button stops it; the session takes the next message."""
    await try_it(page, url, "[[slow: 1000x0.3 tick]]", tools="no tools")
    await expect(page.locator("#events .is-partial")).to_contain_text("tick2")
    await page.get_by_role("button", name="Interrupt").click()
    await expect(line(page, "interrupts")).to_be_visible()
    await expect(page.locator("#facts .badge")).to_have_text("idle")
    await expect(page.get_by_role("button", name="Interrupt")).to_be_disabled()
    await page.get_by_label("Message").fill("[[say: Here again.]]")
    await page.get_by_role("button", name="Send").click()
    await expect(line(page, "Here again.").locator("text=agent")).to_be_visible()


async def test_what_agents_say_is_text(page: Page, url: str, raw: RawClient) -> None:
    """Markup in a message, a command, its output and a title stays what it is, and nothing of it runs."""
    command = f"printf %s {json.dumps(HOSTILE)}"
    session = await raw.new_session(name=HOSTILE)
    await raw.call("POST", f"/v1/sessions/{session}", {"title": HOSTILE})
    await raw.turn(session, f"[[say: {HOSTILE}]] [[bash: {command}]] [[then]] [[say: {HOSTILE}]]")
    await page.goto(f"{url}/console/sessions")
    await page.get_by_role("link", name=HOSTILE).first.click()
    await expect(page.locator("#events .agent")).to_have_count(2)
    await page.locator("#events .tool summary").click()
    await expect(page.locator("#events .output")).to_contain_text("onerror=")
    await expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    await page.get_by_label("bookkeeping events").check()
    await expect(line(page, "session.usage")).to_be_visible()
    assert await page.locator("main img").count() == 0
    assert await page.locator("script").count() == 1
    assert await page.evaluate("window.hacked") is None


async def test_a_command_reads_as_it_runs(page: Page, url: str) -> None:
    """Where a call is asked about, what would turn or hide a part of it is named; and in its output, too."""
    command = "echo \u202e safe \u2066 \U000e0041"
    named = "echo ⟨U+202E⟩ safe ⟨U+2066⟩ ⟨U+E0041⟩"
    await try_it(page, url, f"[[bash: {command}]] [[then]] [[say: Read \u202eit.]]")
    await expect(page.locator("#pending")).to_contain_text(named)
    await page.get_by_role("button", name="Allow").click()
    await expect(line(page, "Read ⟨U+202E⟩it.").last).to_be_visible()
    await page.locator("#events .tool summary").click()
    await expect(page.locator("#events .output")).to_contain_text("⟨U+202E⟩ safe")
    shown = await page.locator("#events").inner_text()
    assert [odd for odd in "\u202e\u2066\U000e0041" if odd in shown] == []


async def test_our_own_script_cannot_make_markup_of_text(
    browser: Browser, signed_in: Any, url: str
) -> None:
    """The browser refuses it: a mistake in the script would show, not run."""
    context = await browser.new_context(storage_state=signed_in)
    page = await context.new_page()
    await page.goto(f"{url}/console")
    refused = "try { document.body.innerHTML = 'x'; 'taken' } catch (error) { error.name }"
    assert await page.evaluate(refused) == "TypeError"
    await context.close()


async def test_earlier_events_are_read_when_asked(page: Page, url: str, raw: RawClient) -> None:
    """A page opens with the latest ones; the button brings those before, in order."""
    calls = " ;; ".join('glob {"pattern": "*"}' for _ in range(70))
    session = await raw.new_session()
    await raw.turn(session, f"[[tools: {calls}]] [[then]] [[say: In the first turn.]]")
    await raw.turn(session, f"[[tools: {calls}]] [[then]] [[say: In the second turn.]]")
    await page.goto(f"{url}/console/sessions/{session}")
    await expect(page.locator("#events .agent", has_text="In the second turn.")).to_be_visible()
    assert await page.locator("#events .user").count() < 2
    await page.get_by_role("button", name="Show earlier events").click()
    await expect(page.get_by_role("button", name="Show earlier events")).to_be_hidden()
    await expect(page.locator("#events .tool")).to_have_count(140)
    await expect(page.locator("#events .tool .badge.ok")).to_have_count(140)
    said = await page.locator("#events .agent:not(.slim)").all_inner_texts()
    assert ["first" in said[0], "second" in said[1]] == [True, True]


async def test_a_watched_session_is_read_as_any_other(page: Page, url: str, raw: RawClient) -> None:
    """Who looks on changes nothing for clients: a fast turn is still replayed to two late readers."""
    session = await raw.new_session()
    await page.goto(f"{url}/console/sessions/{session}")
    await expect(page.locator("#connection")).to_have_text("live")
    await raw.send(session, "[[say: Read by two.]]")
    await expect(line(page, "turn ended")).to_be_visible()
    for _ in range(2):
        async with raw.stream(session) as reader:
            assert text_of(await reader.until("session.status_idle")) == "Read by two."


async def test_a_page_that_is_old_says_so(browser: Browser, signed_in: Any, url: str) -> None:
    """While the sidecar cannot be reached; and when one is signed in no longer, it asks for the key."""
    context = await browser.new_context(storage_state=signed_in)
    page = await context.new_page()
    await page.goto(f"{url}/console")
    await context.set_offline(True)
    await expect(page.locator("body[data-stale]")).to_be_visible()
    await context.set_offline(False)
    await expect(page.locator("body:not([data-stale])")).to_be_visible()
    await context.clear_cookies()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await context.close()


async def test_the_keyboard_is_enough(page: Page, url: str) -> None:
    """The first stop leads past the navigation, and every page can be reached from it."""
    await page.goto(f"{url}/console")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await page.get_by_role("link", name="Models").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Models")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_are_accessible_and_fit_a_phone(
    browser: Browser, signed_in: Any, url: str, raw: RawClient, axe: str, scheme: Any
) -> None:
    """By the rules of axe-core, in both schemes, and without scrolling sideways at 320 pixels."""
    session = await raw.new_session(
        tools=[
            {
                "type": "agent_toolset_20260401",
                "default_config": {"permission_policy": {"type": "always_ask"}},
            }
        ]
    )
    await raw.turn(
        session, "[[say: A long_" + "word" * 60 + "]] [[bash: ls -la /usr/lib/very/long/path]]"
    )
    context = await browser.new_context(
        storage_state=signed_in, color_scheme=scheme, viewport={"width": 320, "height": 640}
    )
    background = {"light": "rgb(251, 250, 247)", "dark": "rgb(20, 22, 25)"}
    async with opened(context) as page:
        for path in (*PATHS, f"/sessions/{session}"):
            answer = await page.goto(f"{url}/console{path}")
            if path.startswith("/sessions/"):
                await expect(page.locator("#pending")).to_be_visible()
                await page.locator("#events .tool summary").click()
            assert (
                await page.evaluate("getComputedStyle(document.body).backgroundColor")
                == background[scheme]
            )
            for width in (320, 1280):
                await page.set_viewport_size({"width": width, "height": 800})
                wide = await page.evaluate("document.documentElement.scrollWidth")
                assert (path, wide) == (path, width)
                await page.evaluate(axe)
                found = await page.evaluate("axe.run().then((done) => done.violations)")
                shown = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]
                assert (path, width, shown) == (path, width, [])
            assert answer is not None
    await context.close()
