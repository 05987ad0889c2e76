"""Which proxy a URL is reached through, and which redirects are followed."""

import pytest
from yarl import URL

from sidecar.errors import SettingsError
from sidecar.gateway.redirects import RedirectError, next_url
from sidecar.proxies import Proxies

PROXY = "http://user:secret@proxy.corp:3128"


@pytest.mark.parametrize(
    ("none", "url", "is_direct"),
    [
        ("", "https://gateway.corp/v1", False),
        ("", "http://127.0.0.1:4000", True),
        ("", "http://[::1]:4000", True),
        ("", "http://localhost:4000", True),
        ("", "http://[::ffff:127.0.0.1]/", True),
        ("*", "https://gateway.corp", True),
        ("corp", "https://gateway.corp", True),
        (".corp", "https://gateway.corp", True),
        ("*.corp", "https://gateway.corp", True),
        ("way.corp", "https://gateway.corp", False),
        ("other GATEWAY.corp\n", "https://gateway.corp", True),
        ("other, GATEWAY.corp", "https://gateway.corp", True),
        ("gateway.corp:443", "https://gateway.corp", True),
        ("gateway.corp:8443", "https://gateway.corp", False),
        ("10.0.0.0/8", "http://10.1.2.3:4000", True),
        ("10.0.0.0/8", "http://11.1.2.3:4000", False),
        ("10.1.2.3:4000", "http://10.1.2.3:4000", True),
        ("fd00::/8", "http://[fd00::1]:4000", True),
        ("[fd00::1]:4000", "http://[fd00::1]:4000", True),
        ("[FD00:0::1]:4000", "http://[fd00::1]:4000", True),
        ("[fd00::1]:4001", "http://[fd00::1]:4000", False),
        ("10.0.0.0/8", "http://[::ffff:10.1.2.3]:4000", True),
        ("2.3", "http://10.1.2.3", False),
    ],
)
def test_no_proxy(none: str, url: str, is_direct: bool) -> None:
    """Names, domains, addresses, networks, ports; loopback is always direct."""
    names = {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "NO_PROXY": none}
    proxies = Proxies.from_environment(names)
    assert (proxies.proxy_for(URL(url)) is None) is is_direct
    assert "secret" not in proxies.describe(URL(url))


def test_each_scheme_has_its_own_proxy() -> None:
    """Lower case wins, as for curl; an address without a scheme is an HTTP proxy."""
    proxies = Proxies.from_environment(
        {"http_proxy": "a:1", "HTTP_PROXY": "b:2", "HTTPS_PROXY": "http://c:3"}
    )
    assert str(proxies.proxy_for(URL("http://x"))) == "http://a:1"
    assert str(proxies.proxy_for(URL("https://x"))) == "http://c:3"
    assert Proxies.from_environment({}).middlewares == ()


@pytest.mark.parametrize("name", ["all_proxy", "ALL_PROXY"])
def test_one_proxy_for_all_schemes(name: str) -> None:
    """For those that have none of their own; an empty variable counts as unset."""
    proxies = Proxies.from_environment({name: "a:1", "http_proxy": "", "HTTPS_PROXY": "http://c:3"})
    assert str(proxies.proxy_for(URL("http://x"))) == "http://a:1"
    assert str(proxies.proxy_for(URL("https://x"))) == "http://c:3"


def test_a_socks_proxy_for_all_schemes_is_refused_where_it_would_be_used() -> None:
    """Desktops set one beside the others, and loopback needs none."""
    value = {"ALL_PROXY": "socks5://user:secret@x:1", "NO_PROXY": "inside.corp"}
    proxies = Proxies.from_environment({**value, "HTTP_PROXY": "a:1"})
    assert str(proxies.proxy_for(URL("http://x"))) == "http://a:1"
    for direct in ("https://localhost:4000", "https://inside.corp"):
        assert proxies.proxy_for(URL(direct)) is None
    with pytest.raises(SettingsError, match=r"ALL_PROXY: .*set HTTPS_PROXY") as raised:
        proxies.proxy_for(URL("https://x"))
    assert "secret" not in raised.value.message
    assert "ALL_PROXY" in proxies.describe(URL("https://x"))
    assert Proxies.from_environment(value).middlewares


def test_a_proxy_that_is_not_supported_is_named() -> None:
    """The variable, not its value, which may hold a password."""
    with pytest.raises(SettingsError, match="HTTPS_PROXY") as raised:
        Proxies.from_environment({"HTTPS_PROXY": "socks5://user:secret@x:1"})
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("current", "location", "target"),
    [
        ("http://g:4000/v1/x", "/v2/x", "http://g:4000/v2/x"),
        ("http://g:4000/v1/x?a=1", "http://g:4000/v1/x/?b=2", "http://g:4000/v1/x/?b=2"),
        ("http://g/v1/x", "https://g/v1/x", "https://g/v1/x"),
        ("http://g/v1/x", "https://h/v1/x", None),
        ("https://g/v1/x", "http://g/v1/x", None),
        ("http://g:4000/v1/x", "http://g:4001/v1/x", None),
        ("http://g/v1/x", "//h/x", None),
        ("http://g/v1/x", "http://user:pw@h/x?key=pw", None),
        ("http://g/v1/x", "http://[broken", None),
        ("http://g/v1/x", None, None),
    ],
)
def test_redirects(current: str, location: str | None, target: str | None) -> None:
    """Followed on the same host and port, and to https there; never elsewhere with our key."""
    if target is not None:
        assert str(next_url(URL(current), 307, location, 0)) == target
        with pytest.raises(RedirectError, match="more than"):
            next_url(URL(current), 307, location, 5)
        with pytest.raises(RedirectError, match="303"):
            next_url(URL(current), 303, location, 0)
        return
    with pytest.raises(RedirectError, match="307") as raised:
        next_url(URL(current), 307, location, 0)
    assert "pw" not in str(raised.value)
