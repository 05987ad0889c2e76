"""The catalogue against gateways on real sockets: refreshing, surviving, resolving."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from sidecar.aiokit import TaskOwner
from sidecar.config import GatewaySettings
from sidecar.demo_gateway import DemoGateway, DemoModel
from sidecar.errors import (
    GatewayAuthenticationError,
    GatewayError,
    GatewayUnavailableError,
    InvalidRequestError,
    SettingsError,
)
from sidecar.gateway.catalogue import Catalogue, CatalogueSnapshot
from sidecar.gateway.client import GatewayClient
from sidecar.naming import ModelRef
from tests.fakes.gateway_fixed import Fixed, FixedGateway, model_list
from tests.waiting import PATIENCE_SECONDS

DEAD = "http://127.0.0.1:9"
MakeCatalogue = Callable[..., Catalogue]


@pytest.fixture
async def demo() -> AsyncIterator[DemoGateway]:
    gateway = DemoGateway(key="k")
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture
async def fixed() -> AsyncIterator[FixedGateway]:
    gateway = FixedGateway()
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[MakeCatalogue]:
    tasks = TaskOwner("test")
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        def make(url: str, *, key: str | None = "k", **settings: Any) -> Catalogue:
            made = GatewaySettings(**settings)
            return Catalogue(
                client=GatewayClient(settings=made, base_url=url, api_key=key, session=session),
                settings=made,
                file=tmp_path / "data" / "catalogue.json",
                tasks=tasks,
            )

        yield make
        await tasks.close()


async def changed(catalogue: Catalogue, condition: Callable[[CatalogueSnapshot], bool]) -> None:
    """Wait until the catalogue's snapshot fulfils the condition."""
    event = asyncio.Event()

    def check(snapshot: CatalogueSnapshot) -> None:
        if condition(snapshot):
            event.set()

    catalogue.on_change(check)
    if catalogue.snapshot is not None:
        check(catalogue.snapshot)
    await asyncio.wait_for(event.wait(), PATIENCE_SECONDS)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_refresh_reads_all_sources(
    demo: DemoGateway, make: MakeCatalogue, suffix: str
) -> None:
    """One refresh lists the chat models and merges limits and costs, whatever the URL's ending."""
    snapshot = await make(demo.url + suffix).refresh()
    assert "openai/gpt-4o" in snapshot.listed
    assert "text-embedding-3-small" not in snapshot.listed
    assert snapshot.entries["text-embedding-3-small"].hidden_because == "mode embedding"
    claude = snapshot.entries["claude-sonnet-4-5"]
    assert claude.max_input_tokens == 200_000
    assert claude.reasoning_efforts == ("low", "medium", "high")
    assert claude.output_cost_per_token == 1.5e-05
    assert snapshot.origin == "gateway"
    assert not snapshot.failed_sources


async def test_timer_finds_new_models(demo: DemoGateway, make: MakeCatalogue) -> None:
    """A model added to the gateway appears by the timer alone, as a change of generation."""
    catalogue = make(demo.url, refresh_seconds=0.05)
    catalogue.start()
    await changed(catalogue, lambda s: "openai/gpt-4o" in s.listed)
    assert catalogue.snapshot is not None
    generation = catalogue.snapshot.generation
    demo.models["brand/new"] = DemoModel(id="brand/new")
    await changed(catalogue, lambda s: "brand/new" in s.listed)
    assert catalogue.snapshot.generation == generation + 1
    await catalogue.close()


async def test_start_does_not_wait_for_the_gateway(
    fixed: FixedGateway, make: MakeCatalogue
) -> None:
    """Nothing is known while the gateway has not answered; the list comes when it does."""
    fixed.is_open.clear()
    fixed.answers["/v1/models"] = model_list("m")
    catalogue = make(fixed.url)
    catalogue.load()
    catalogue.start()
    assert catalogue.snapshot is None
    fixed.is_open.set()
    await changed(catalogue, lambda s: s.listed == ("m",))


async def test_refresh_is_single_flight(fixed: FixedGateway, make: MakeCatalogue) -> None:
    """Callers that come while a refresh runs share it."""
    fixed.answers["/v1/models"] = model_list("m")
    catalogue = make(fixed.url)
    snapshots = await asyncio.gather(*(catalogue.refresh() for _ in range(20)))
    assert fixed.hits["/v1/models"] == 1
    assert {id(s) for s in snapshots} == {id(catalogue.snapshot)}


async def test_unchanged_answers_change_nothing(
    fixed: FixedGateway, make: MakeCatalogue, tmp_path: Path
) -> None:
    """An equal answer renews the age only: same generation, no callback, no write."""
    fixed.answers["/v1/models"] = model_list("m")
    catalogue = make(fixed.url)
    first = await catalogue.refresh()
    file = tmp_path / "data" / "catalogue.json"
    before = file.stat()
    calls: list[CatalogueSnapshot] = []
    catalogue.on_change(calls.append)
    second = await catalogue.refresh()
    assert second.generation == first.generation
    assert second.fetched_at > first.fetched_at
    assert calls == []
    assert file.stat() == before


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Fixed({"error": {"message": "bad"}}, 401), GatewayAuthenticationError),
        (Fixed({"error": {"message": "bad"}}, 403), GatewayAuthenticationError),
        (
            Fixed({"error": {"message": "No connected db.", "type": "no_db_connection"}}, 400),
            GatewayAuthenticationError,
        ),
        (Fixed("Internal Server Error", 500, "text/plain"), GatewayUnavailableError),
        (Fixed("<html>sign in</html>", 200, "text/html"), GatewayUnavailableError),
        (Fixed({"detail": "x"}), GatewayUnavailableError),
        (Fixed({"detail": "Not Found"}, 404), GatewayError),
        (Fixed("", 302), GatewayUnavailableError),
        (Fixed({"object": "list", "data": []}), GatewayUnavailableError),
    ],
)
async def test_failures_keep_the_last_good(
    fixed: FixedGateway, make: MakeCatalogue, answer: Fixed, error: type[Exception]
) -> None:
    """A failed refresh raises a typed error to its caller; what was known stays, with its age."""
    fixed.answers["/v1/models"] = model_list("m")
    catalogue = make(fixed.url)
    good = await catalogue.refresh()
    assert catalogue.stale_seconds is None
    fixed.answers["/v1/models"] = answer
    with pytest.raises(error) as caught:
        await catalogue.refresh()
    assert type(caught.value) is error
    assert catalogue.snapshot is good
    assert catalogue.stale_seconds is not None
    fixed.answers["/v1/models"] = model_list("m")
    await catalogue.refresh()
    assert catalogue.stale_seconds is None


async def test_silent_gateway_is_bounded(fixed: FixedGateway, make: MakeCatalogue) -> None:
    """A gateway that never answers fails the refresh after the list time-out."""
    fixed.is_open.clear()
    with pytest.raises(GatewayUnavailableError):
        await asyncio.wait_for(
            make(fixed.url, list_timeout_seconds=0.1).refresh(), PATIENCE_SECONDS
        )


async def test_empty_list_is_believed_when_it_repeats(
    fixed: FixedGateway, make: MakeCatalogue
) -> None:
    """One empty list is suspicious, a second one in a row is the truth; a first ever is never served."""
    empty = Fixed({"object": "list", "data": []})
    fixed.answers["/v1/models"] = empty
    catalogue = make(fixed.url)
    for _ in range(3):
        with pytest.raises(GatewayUnavailableError):
            await catalogue.refresh()
    fixed.answers["/v1/models"] = model_list("m")
    await catalogue.refresh()
    fixed.answers["/v1/models"] = empty
    with pytest.raises(GatewayUnavailableError):
        await catalogue.refresh()
    assert (await catalogue.refresh()).listed == ()


async def test_poor_sources_degrade_entries_only(fixed: FixedGateway, make: MakeCatalogue) -> None:
    """A richer source that fails costs its details, not the list; what it said before stays."""
    fixed.answers["/v1/models"] = model_list("m")
    fixed.answers["/v1/model/info"] = Fixed({"error": "only admins"}, 403)
    groups = Fixed({"data": [{"model_group": "m", "mode": "chat", "max_input_tokens": 9.0}]})
    fixed.answers["/model_group/info"] = groups
    catalogue = make(fixed.url)
    snapshot = await catalogue.refresh()
    assert snapshot.listed == ("m",)
    assert snapshot.failed_sources.keys() == {"model_info"}
    del fixed.answers["/model_group/info"]
    later = await catalogue.refresh()
    assert later.failed_sources.keys() == {"model_info", "model_group_info"}
    assert later.entries["m"].max_input_tokens == 9
    assert later.generation == snapshot.generation


async def test_failures_are_logged_once_per_change(make: MakeCatalogue) -> None:
    """A gateway that stays away makes one line, not one per refresh."""
    catalogue = make(DEAD)
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(GatewayUnavailableError):
                await catalogue.refresh()
    events = [log["event"] for log in logs]
    assert events == ["catalogue refresh failed"]


async def test_disk_copy_survives_a_restart(
    demo: DemoGateway, make: MakeCatalogue, tmp_path: Path
) -> None:
    """After a restart the last good list is there at once, details included, without the gateway."""
    url = demo.url
    before = await make(url).refresh()
    file = tmp_path / "data" / "catalogue.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [f.name for f in file.parent.iterdir()] == ["catalogue.json"]
    await demo.close()
    catalogue = make(url, exclude="ollama/*")
    catalogue.load()
    snapshot = catalogue.snapshot
    assert snapshot is not None
    assert snapshot.origin == "disk"
    assert snapshot.entries["claude-sonnet-4-5"] == before.entries["claude-sonnet-4-5"]
    assert set(before.listed) - set(snapshot.listed) == {"ollama/qwen3:8b"}
    assert catalogue.stale_seconds is not None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version":1}', '{"version":99}'])
async def test_broken_disk_copy_is_ignored(
    make: MakeCatalogue, tmp_path: Path, content: str
) -> None:
    """A copy that cannot be read is no copy; the start goes on."""
    file = tmp_path / "data" / "catalogue.json"
    file.parent.mkdir()
    file.write_text(content)
    catalogue = make(DEAD)
    catalogue.load()
    assert catalogue.snapshot is None


async def test_disk_copy_of_another_gateway_is_ignored(
    fixed: FixedGateway, make: MakeCatalogue, tmp_path: Path
) -> None:
    """Models of one gateway are not offered for another; its URL is not written in clear."""
    fixed.answers["/v1/models"] = model_list("m")
    await make(fixed.url).refresh()
    assert fixed.url not in (tmp_path / "data" / "catalogue.json").read_text()
    catalogue = make(DEAD)
    catalogue.load()
    assert catalogue.snapshot is None


async def test_fallback_list_until_the_gateway_answers(
    fixed: FixedGateway, make: MakeCatalogue
) -> None:
    """LITELLM_MODELS serves only while the gateway has never answered."""
    fixed.is_open.clear()
    fixed.answers["/v1/models"] = model_list("real")
    catalogue = make(fixed.url, models="litellm/a/b,c")
    catalogue.load()
    catalogue.start()
    assert catalogue.snapshot is not None
    assert catalogue.snapshot.listed == ("a/b", "c")
    assert catalogue.snapshot.origin == "fallback"
    assert (await catalogue.resolve("a/b"))[0] == ModelRef("litellm", "a/b")
    fixed.is_open.set()
    await changed(catalogue, lambda s: s.listed == ("real",))


async def test_resolve_forces_one_refresh_for_a_miss(
    demo: DemoGateway, make: MakeCatalogue
) -> None:
    """A name added a moment ago is found without waiting for the timer, and many ask only once."""
    catalogue = make(demo.url, miss_refresh_seconds=0.001)
    await catalogue.refresh()
    demo.models["brand/new"] = DemoModel(id="brand/new")
    asked = len(demo.requests)
    answers = await asyncio.gather(*(catalogue.resolve("litellm/brand/new") for _ in range(10)))
    assert {str(ref) for ref, _ in answers} == {"litellm/brand/new"}
    assert all(entry is not None for _, entry in answers)
    assert len([r for r in list(demo.requests)[asked:] if r.path == "/v1/models"]) == 1


async def test_a_name_is_refused_only_by_a_list_that_was_read_after_the_request(
    fixed: FixedGateway, make: MakeCatalogue
) -> None:
    """However new the catalogue is: a model added a moment after it was read is found."""
    fixed.answers["/v1/models"] = model_list("openai/gpt-4o", "hidden-embed")
    catalogue = make(fixed.url, miss_refresh_seconds=0.2)
    await catalogue.refresh()
    fixed.answers["/v1/models"] = model_list("openai/gpt-4o", "a-moment-later")
    ref, _ = await catalogue.resolve("a-moment-later")
    assert ref == ModelRef("litellm", "a-moment-later")
    with pytest.raises(InvalidRequestError) as caught:
        await catalogue.resolve("gpt-4o", "model.id")
    assert fixed.hits["/v1/models"] == 3
    assert caught.value.field == "model.id"
    assert caught.value.message.startswith("model.id: 'gpt-4o' is not offered")
    assert "openai/gpt-4o" in caught.value.message


async def test_a_miss_does_not_share_a_read_that_began_before_it(
    fixed: FixedGateway, make: MakeCatalogue
) -> None:
    """A read under way may have passed the model already: the miss waits for the next one."""
    fixed.answers["/v1/models"] = model_list("old")
    catalogue = make(fixed.url, miss_refresh_seconds=0.001)
    await catalogue.refresh()
    fixed.is_open.clear()
    under_way = asyncio.create_task(catalogue.refresh())
    while fixed.hits["/v1/models"] < 2:
        await asyncio.sleep(0)
    asked = asyncio.create_task(catalogue.resolve("new"))
    fixed.is_open.set()
    await under_way
    fixed.answers["/v1/models"] = model_list("old", "new")
    assert (await asked)[0] == ModelRef("litellm", "new")
    assert fixed.hits["/v1/models"] == 3


async def test_misses_are_bounded_by_rate_and_share_reads(
    fixed: FixedGateway, make: MakeCatalogue
) -> None:
    """Many unknown names in a row cost one read per pause, however many callers there are."""
    fixed.answers["/v1/models"] = model_list("m")
    catalogue = make(fixed.url, miss_refresh_seconds=0.3)
    await catalogue.refresh()
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(3):
        misses = (catalogue.resolve(f"unknown-{n}") for n in range(20))
        errors = await asyncio.gather(*misses, return_exceptions=True)
        assert {type(error) for error in errors} == {InvalidRequestError}
    assert fixed.hits["/v1/models"] == 4
    assert loop.time() - began >= 2 * 0.3


async def test_an_unknown_name_while_the_gateway_is_away_is_not_refused(
    fixed: FixedGateway, make: MakeCatalogue
) -> None:
    """An old list cannot say that a model does not exist: 503 and retry, known names still resolve."""
    fixed.answers["/v1/models"] = model_list("m")
    catalogue = make(fixed.url)
    await catalogue.refresh()
    fixed.answers["/v1/models"] = Fixed("down", 500, "text/plain")
    with pytest.raises(GatewayUnavailableError) as caught:
        await catalogue.resolve("new")
    assert caught.value.retry_after_seconds is not None
    assert (await catalogue.resolve("m"))[0] == ModelRef("litellm", "m")


async def test_resolve_without_any_catalogue(make: MakeCatalogue) -> None:
    """While the gateway has never answered no name can be judged: 503 with retry-after, not 400."""
    with pytest.raises(GatewayUnavailableError) as caught:
        await make(DEAD).resolve("anything")
    assert caught.value.retry_after_seconds is not None


async def test_resolve_knows_hidden_and_aliased_models(
    demo: DemoGateway, make: MakeCatalogue
) -> None:
    """Hidden is not refused; aliases resolve."""
    catalogue = make(demo.url, aliases={"fast": "openai/gpt-4o-mini"})
    await catalogue.refresh()
    _, hidden = await catalogue.resolve("text-embedding-3-small")
    assert not hidden.listed
    ref, _ = await catalogue.resolve("litellm/fast")
    assert str(ref) == "litellm/openai/gpt-4o-mini"


async def test_wrong_override_stops_the_start(make: MakeCatalogue) -> None:
    """A misspelt override field is refused with the variable, the model and the known fields."""
    with pytest.raises(SettingsError, match=r"OVERRIDES: m\.max_tokens.*max_input_tokens"):
        make(DEAD, overrides={"m": {"max_tokens": 5}})


async def test_the_key_is_sent_and_never_told(
    fixed: FixedGateway, make: MakeCatalogue, tmp_path: Path
) -> None:
    """A gateway that echoes the key in its error does not get it into our message or file."""
    fixed.answers["/v1/models"] = Fixed({"error": {"message": "key hunter2-xyz is bad"}}, 401)
    with pytest.raises(GatewayAuthenticationError) as caught:
        await make(fixed.url, key="hunter2-xyz").refresh()
    assert "hunter2" not in caught.value.message
    fixed.answers["/v1/models"] = model_list("m")
    await make(fixed.url, key="hunter2-xyz").refresh()
    saved = (tmp_path / "data" / "catalogue.json").read_text()
    assert "hunter2" not in saved
    assert json.loads(saved)["content"]["models"].keys() == {"m"}
