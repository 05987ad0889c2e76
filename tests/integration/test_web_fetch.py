"""Fetching pages for agents: what they get, and what is refused, against a real site on loopback."""

import ipaddress
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from yarl import URL

from sidecar.config import WebSettings
from sidecar.errors import WebError
from sidecar.proxies import Proxies
from sidecar.web.addresses import AddressGuard
from sidecar.web.domains import DomainRules
from sidecar.web.fetch import WebFetcher
from tests.fakes.web_site import PAGE, PNG, Site, web_site
from tests.waiting import PATIENCE_SECONDS

ANY = DomainRules()
LOCAL = {"private_networks": ("127.0.0.0/8",)}


@pytest.fixture(scope="module")
async def running_site() -> AsyncIterator[Site]:
    async with web_site() as running:
        yield running


@pytest.fixture
def site(running_site: Site) -> Site:
    running_site.asked.clear()
    running_site.headers.clear()
    return running_site


@pytest.fixture
async def fetcher() -> AsyncIterator[WebFetcher]:
    async with WebFetcher.open(WebSettings(**LOCAL), Proxies({})) as opened:
        yield opened


async def refusal(fetcher: WebFetcher, url: str, rules: DomainRules = ANY, **more: Any) -> str:
    """Return why a page is not fetched."""
    with pytest.raises(WebError) as caught:
        await fetcher.fetch(url, rules=rules, **more)
    return caught.value.message


async def test_a_page_comes_as_markdown(fetcher: WebFetcher, site: Site) -> None:
    """Headings, lists and code as opencode's users know them; links are whole; scripts are gone."""
    page = await fetcher.fetch(site.url("/page"), rules=ANY)
    link = site.url("/next?a=1")
    assert page.text.split("\n\n") == [
        "# The Title",
        "## Heading",
        f"Some **bold** text & a [link]({link}).",
        "- one\n- two",
        "```\nx = 1\n```\n",
    ]
    assert site.headers[0]["accept"].startswith("text/markdown")
    assert "cookie" not in site.headers[0]


async def test_the_other_formats(fetcher: WebFetcher, site: Site) -> None:
    """Text without marks, and the HTML as it is."""
    text = (await fetcher.fetch(site.url("/page"), rules=ANY, kind="text")).text
    assert "Heading\nSome\nbold\ntext & a\nlink" in text
    assert "hidden" not in text
    assert (await fetcher.fetch(site.url("/page"), rules=ANY, kind="html")).text == PAGE


async def test_other_kinds_of_content(fetcher: WebFetcher, site: Site) -> None:
    """JSON is text, an image is an image, and what is neither is named."""
    assert (await fetcher.fetch(site.url("/json"), rules=ANY)).text == '{"a": 1}'
    assert (await fetcher.fetch(site.url("/image"), rules=ANY)).image == PNG
    assert "caf\u00e9" in (await fetcher.fetch(site.url("/latin"), rules=ANY)).text
    assert "application/zip, which cannot be shown" in await refusal(fetcher, site.url("/zip"))
    assert "answered 404" in await refusal(fetcher, site.url("/gone"))


async def test_a_page_that_is_nested_deeply_is_read_as_text(
    fetcher: WebFetcher, site: Site
) -> None:
    """Its elements are more than any stack has room for; its words are not lost."""
    assert "found it" in (await fetcher.fetch(site.url("/deep"), rules=ANY)).text


async def test_a_page_made_to_break_its_reader_is_given_up(site: Site) -> None:
    """The program that converts it is ended, and the sidecar goes on."""
    patient = WebSettings(**LOCAL, timeout_seconds=PATIENCE_SECONDS)
    async with WebFetcher.open(patient, Proxies({})) as fetcher:
        assert "cannot be converted" in await refusal(fetcher, site.url("/monster"))
        assert (await fetcher.fetch(site.url("/page"), rules=ANY)).text


async def test_bounds(site: Site) -> None:
    """Size, also of what is packed small; time; redirects; characters."""
    small = WebSettings(**LOCAL, max_bytes=1_000_000, max_text_chars=1000)
    async with WebFetcher.open(small, Proxies({})) as fetcher:
        for path in ("/large", "/bomb"):
            assert "larger than 1000000 bytes" in await refusal(fetcher, site.url(path))
        silent = await refusal(fetcher, site.url("/silent"), timeout_seconds=0.2)
        assert silent == "no answer within 0.2 seconds"
        assert "more than 10 times" in await refusal(fetcher, site.url("/loop"))
        long = await fetcher.fetch(site.url("/page") + "?long", rules=ANY, kind="html")
        assert "cut here" not in long.text
        assert fetcher.counts.failed == 4


@pytest.mark.parametrize(
    "rules",
    [DomainRules(allowed=("localhost",)), DomainRules(blocked=("127.0.0.2",))],
    ids=["allowed", "blocked"],
)
async def test_domains_hold_at_every_redirect(
    fetcher: WebFetcher, site: Site, rules: DomainRules
) -> None:
    """The other host is never asked, neither at once nor by way of a permitted one."""
    other = site.url("/page", host="127.0.0.2")
    assert (await fetcher.fetch(site.url("/page"), rules=rules)).text
    assert "the domain 127.0.0.2 is not one" in await refusal(fetcher, other, rules)
    within = site.url("/to") + f"?url={site.url('/page')}"
    assert (await fetcher.fetch(within, rules=rules)).url == site.url("/page")
    away = site.url("/to") + f"?url={other}"
    assert "the domain 127.0.0.2 is not one" in await refusal(fetcher, away, rules)
    assert {asked.partition("/")[0] for asked in site.asked} == {"localhost"}


@pytest.mark.parametrize(
    ("entry", "url", "is_covered"),
    [
        ("example.com", "https://example.com/", True),
        ("example.com", "https://a.b.example.com/x", True),
        ("example.com", "https://EXAMPLE.com./", True),
        ("example.com", "https://notexample.com/", False),
        ("example.com", "https://example.com.evil.net/", False),
        ("example.com", "https://evil.net/example.com", False),
        ("www.example.com", "https://example.com/", False),
        ("b\u00fccher.de", "https://xn--bcher-kva.de/", True),
        ("example.com/docs", "https://example.com/docs/a", True),
        ("example.com/docs", "https://example.com/docs", True),
        ("example.com/docs", "https://example.com/docsx", False),
        ("example.com/docs", "https://example.com/", False),
    ],
)
def test_what_an_entry_means(entry: str, url: str, is_covered: bool) -> None:
    """A host and its subdomains; for searches with the beginning of a path."""
    assert DomainRules(allowed=(entry,)).permits(URL(url)) is is_covered
    assert DomainRules(blocked=(entry,)).permits(URL(url)) is not is_covered


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "0x7f000001", "2130706433", "127.1", "0177.0.0.1", "0.0.0.0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "[64:ff9b::7f00:1]"),
        *("[2002:7f00:1::]", "169.254.169.254", "10.0.0.1", "[fe80::1]", "[fd00::1]"),
    ],
)
async def test_only_public_addresses_are_reached(site: Site, host: str) -> None:
    """However the address is written. Nothing arrives."""
    async with WebFetcher.open(WebSettings(), Proxies({})) as fetcher:
        why = await refusal(fetcher, site.url("/page", host=host))
    assert "not a public one" in why or "canonical" in why, why
    assert site.asked == []


async def test_a_redirect_does_not_lead_inside(site: Site) -> None:
    """What a permitted host answers is checked as what the agent asked for."""
    only_two = WebSettings(private_networks=("127.0.0.2/32",))
    inside = f"{site.url('/to', host='127.0.0.2')}?url={site.url('/page', host='127.0.0.1')}"
    async with WebFetcher.open(only_two, Proxies({})) as fetcher:
        assert "not a public one" in await refusal(fetcher, inside)
        assert fetcher.counts.refused == 1
    assert site.asked == ["127.0.0.2/to"]


async def test_a_name_that_changes_its_address(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that answers a public address proves nothing: the address of the connection does."""
    answers = iter(["93.184.215.14", *["127.0.0.1"] * 9])

    def look_up(*_args: Any, **_more: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), site.port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert look_up()[0][4][0] == "93.184.215.14"
    async with WebFetcher.open(WebSettings(), Proxies({})) as fetcher:
        assert "not a public one" in await refusal(fetcher, site.url("/page", host="rebind.test"))
    assert site.asked == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://example.com/", "only http:// and https://"),
        ("file:///etc/passwd", "only http:// and https://"),
        ("example.com", "only http:// and https://"),
        ("http://user:secret@example.com/", "user or password"),
        ("http://[", "not a URL"),
        ("http://exa mple/", ""),
        ("", "only http:// and https://"),
    ],
)
async def test_what_is_no_url_to_fetch(fetcher: WebFetcher, url: str, says: str) -> None:
    """It is said; a password in it is not repeated."""
    why = await refusal(fetcher, url)
    assert says in why
    assert "secret" not in why


async def test_through_a_company_proxy(site: Site) -> None:
    """The proxy is asked, and a name that leads inside from here is refused before it is."""
    proxy = URL(site.url("", host="127.0.0.1"))
    async with WebFetcher.open(WebSettings(), Proxies({"http": proxy})) as fetcher:
        page = await fetcher.fetch("http://only-the-proxy-knows.test/page", rules=ANY)
        assert "Some **bold** text" in page.text
        assert site.asked == ["only-the-proxy-knows.test/page"]
        for host in ("10.1.2.3", "169.254.169.254"):
            assert "not a public one" in await refusal(fetcher, f"http://{host}/page")
    assert len(site.asked) == 1


def test_networks_that_the_setting_names() -> None:
    """They are reached in every spelling; their neighbours are not."""
    guard = AddressGuard([ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")])
    permitted = ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "8.8.8.8", "2606:4700::1111")
    refused = (
        "10.2.0.1",
        "::ffff:10.2.0.1",
        "fe80::1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
    )
    assert [a for a in permitted if not guard.permits(ipaddress.ip_address(a))] == []
    assert [a for a in refused if guard.permits(ipaddress.ip_address(a))] == []
