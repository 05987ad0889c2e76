"""Secrets are found in every shape in which a server may echo them."""

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.masking import IN_USE, Mask, masked, masked_urls, secret_in
from tests.fakes.echoes import gives_away, shapes_of

SECRET = "ghp_s3cret/+value?for=tests"


@pytest.mark.parametrize("around", ["", "x-access-token:", "a:", "ab:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_of_anything_with_the_secret_is_masked(
    around: str, encode: Callable[[bytes], bytes]
) -> None:
    """A Basic header does not give the token away, whatever the user's name is."""
    header = encode(f"{around}{SECRET}".encode()).decode()
    shown = masked(f"Authorization: Basic {header} refused", SECRET)
    assert "***" in shown
    left = shown.split("Basic ")[1].split(" refused")[0].replace("***", "")
    assert len(left) <= len(base64.b64encode(around.encode())) + 4


@given(st.text(min_size=12, max_size=40), st.text(max_size=10), st.text(max_size=10))
def test_plain_and_percent_encoded_are_masked(secret: str, before: str, after: str) -> None:
    """Neither the secret nor its percent-encoded form is left."""
    text = f"{before}|{secret}|{quote(secret, safe='')}|{after}"
    assert secret not in masked(text, secret).replace("***", "")


def test_other_text_stays() -> None:
    """Nothing but the secret is replaced."""
    assert masked("fatal: repository 'https://h/x' not found", SECRET) == (
        "fatal: repository 'https://h/x' not found"
    )


@pytest.mark.parametrize("secret", [SECRET, 'quote"back\\slash/and more', "plain-token-0123456789"])
def test_every_shape_that_a_server_may_echo_is_masked(secret: str) -> None:
    """Nothing of it is left, alone and in JSON."""
    for shape in shapes_of(secret):
        assert gives_away(shape, secret), "the search works"
        for text in (shape, json.dumps({"a": shape}), f"before {shape} after"):
            assert gives_away(masked(text, secret), secret) == [], text


def test_json_is_masked_through_and_through() -> None:
    """In lists, in objects, in names of fields; other values stay what they are."""
    mask = Mask([SECRET])
    value = {"a": [f"x {SECRET}", 1, None, True], f"k{SECRET}": {"b": SECRET}}
    assert mask.json(value) == {"a": ["x ***", 1, None, True], "k***": {"b": "***"}}
    assert Mask().json(value) is value


def test_the_longest_secret_first_and_no_short_ones() -> None:
    """A secret that begins with another leaves no rest; ordinary words stay."""
    assert (
        Mask(["secret", "secret-longer", "", "abc"]).text("secret-longer secret abc")
        == "*** *** abc"
    )


def test_secrets_in_use_are_the_latest() -> None:
    """Their number has a bound, which those that are used again outlive."""
    mask = Mask(bound=2)
    mask.add("first-secret", "second-secret")
    mask.add("first-secret", "third-secret")
    assert mask.text("first-secret second-secret third-secret") == "*** second-secret ***"
    assert IN_USE.text("nothing") == "nothing"


SECRET_URLS = [
    ("https://user:pw@host/p", "https://***@host/p", "a user or password"),
    ("https://token@host/p", "https://***@host/p", "a user or password"),
    ("https://h/p?token=x", "https://h/p?token=***", "the parameter 'token'"),
    ("https://h/p?a=1&api_key=x#f", "https://h/p?a=1&api_key=***#f", "the parameter 'api_key'"),
    ("https://h/p?X-Amz-Signature=x", "https://h/p?X-Amz-Signature=***", "'X-Amz-Signature'"),
    ("https://h/p?X-Amz-Security-Token=x&b=2", "https://h/p?X-Amz-Security-Token=***&b=2", "Token"),
    ("https://h/p?sv=1&sig=x%2By", "https://h/p?sv=1&sig=***", "'sig'"),
    ("https://h/mcp?exaApiKey=x", "https://h/mcp?exaApiKey=***", "'exaApiKey'"),
    ("https://h/mcp?%74oken=x", "https://h/mcp?%74oken=***", "'token'"),
    ("https://h/cb#access_token=x", "https://h/cb#access_token=***", "'access_token'"),
    ("https://h/p?client_secret=x", "https://h/p?client_secret=***", "'client_secret'"),
    ("https://h/f?code=x", "https://h/f?code=***", "'code'"),
    ("https://h/f?PASSWORD=x", "https://h/f?PASSWORD=***", "'PASSWORD'"),
]


@pytest.mark.parametrize(("url", "shown", "found"), SECRET_URLS)
def test_a_secret_in_a_url_is_found_and_masked(url: str, shown: str, found: str) -> None:
    """By its place, alone and in a sentence."""
    assert masked_urls(url) == shown
    assert masked_urls(f"cannot reach '{url}', {url} now") == f"cannot reach '{shown}', {shown} now"
    assert found in (secret_in(url) or "")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://registry.example/@scope/package",
            "http://h:1/a@b",
            "https://h/p?page=2&limit=10",
        ),
        *(
            "https://h/p?max_tokens=4&monkey=1",
            "https://h/p?q=token",
            "mailto:a@b",
            "a=b; token: x",
        ),
    ],
)
def test_other_urls_stay(url: str) -> None:
    """Paths, ports and ordinary parameters."""
    assert masked_urls(url) == url
    assert secret_in(url) is None
