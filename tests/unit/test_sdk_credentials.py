"""Which endpoint, base URL and key a client uses."""

from __future__ import annotations

import pytest

from sidecar.sdk import AsyncClient, InvalidSettingError, MissingKeyError
from sidecar.sdk.cursor import CursorRuntime
from sidecar.sdk.endpoints import Connection, Credentials
from sidecar.sdk.opencode import LITELLM, SIDECAR, OpencodeRuntime

SECRET = "cur_0123456789abcdef"


def connect(
    *,
    runtime: OpencodeRuntime | CursorRuntime | None = None,
    api_keys: dict[str, str] | None = None,
    base_urls: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
) -> Connection:
    used = runtime or OpencodeRuntime()
    credentials = Credentials(
        api_keys=api_keys or {}, base_urls=base_urls or {}, environ=environ or {}
    )
    return credentials.connect(used.name, used.endpoints)


def test_the_sidecar_comes_before_the_gateway() -> None:
    """With both in the environment the opencode runtime is the sidecar."""
    environ = {"SIDECAR_BASE_URL": "http://s:1", "LITELLM_BASE_URL": "http://g:2"}

    assert connect(environ=environ).endpoint is SIDECAR


def test_without_a_sidecar_the_gateway_is_asked_directly() -> None:
    """`LITELLM_BASE_URL` alone is enough, with or without /v1."""
    connection = connect(environ={"LITELLM_BASE_URL": "http://g:2/v1/"})

    assert connection.endpoint is LITELLM
    assert connection.base_url == "http://g:2"


def test_an_argument_wins_over_the_environment_also_for_the_choice_of_endpoint() -> None:
    """A gateway named by argument is used although the environment names a sidecar."""
    connection = connect(
        base_urls={"litellm": "http://mine"},
        environ={"SIDECAR_BASE_URL": "http://s:1", "LITELLM_BASE_URL": "http://g:2"},
    )

    assert (connection.endpoint, connection.base_url) == (LITELLM, "http://mine")


def test_a_sidecar_s_key_alone_means_the_default_port() -> None:
    """`SIDECAR_API_KEY` without a base URL asks 127.0.0.1:8080."""
    connection = connect(environ={"SIDECAR_API_KEY": "k-123456"})

    assert connection.base_url == "http://127.0.0.1:8080"
    assert connection.headers() == {"x-api-key": "k-123456"}


@pytest.mark.parametrize("environ", [{}, {"LITELLM_API_KEY": "sk-lonely"}])
def test_an_unconfigured_runtime_names_what_to_set(environ: dict[str, str]) -> None:
    """The error lists every way; a gateway key without a gateway is no configuration."""
    with pytest.raises(MissingKeyError) as caught:
        connect(environ=environ)

    assert "SIDECAR_BASE_URL" in str(caught.value)
    assert "LITELLM_BASE_URL" in str(caught.value)
    assert caught.value.runtime == "opencode"


def test_an_empty_variable_counts_as_unset() -> None:
    """Compose files set unused variables to the empty string."""
    with pytest.raises(MissingKeyError, match="CURSOR_API_KEY"):
        connect(runtime=CursorRuntime(), environ={"CURSOR_API_KEY": "  "})


def test_a_key_is_stripped() -> None:
    """Keys read from files end in a newline, which would break the header."""
    connection = connect(runtime=CursorRuntime(auth="bearer"), api_keys={"cursor": f"{SECRET}\n"})

    assert connection.headers() == {"authorization": f"Bearer {SECRET}"}


@pytest.mark.parametrize("key", [f"{SECRET}\r\nx: y", f"{SECRET} tail", f"{SECRET}é"])
def test_a_key_that_cannot_be_a_header_is_refused_and_not_shown(key: str) -> None:
    """Control characters could smuggle headers; the error does not repeat the key."""
    with pytest.raises(InvalidSettingError) as caught:
        connect(runtime=CursorRuntime(), api_keys={"cursor": key})

    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "api.cursor.com",
        "ftp://api.cursor.com",
        "http://",
        "http://host:99999",
        "http://user:secret-word@host",
        "http://host/?key=secret-word",
    ],
)
def test_a_base_url_that_cannot_work_is_refused_and_not_shown(url: str) -> None:
    """The error names the variable and keeps what may be a secret to itself."""
    with pytest.raises(InvalidSettingError) as caught:
        connect(runtime=CursorRuntime(), environ={"CURSOR_API_KEY": "k", "CURSOR_BASE_URL": url})

    assert "CURSOR_BASE_URL" in str(caught.value)
    assert "secret-word" not in repr(caught.value)


def test_a_misspelt_name_is_refused_with_the_known_ones() -> None:
    """`api_keys={"curser": ...}` must not silently use the environment."""
    with pytest.raises(InvalidSettingError, match=r"'curser'.*cursor.*litellm"):
        AsyncClient(api_keys={"curser": SECRET}, environ={})


def test_no_repr_shows_a_key() -> None:
    """Neither the client nor the connection prints what it holds."""
    client = AsyncClient(api_keys={"cursor": SECRET}, environ={})
    connection = connect(runtime=CursorRuntime(), api_keys={"cursor": SECRET})

    assert SECRET not in repr(client) + repr(connection) + str(vars(client))
    assert repr(client) == "<AsyncClient runtimes=anthropic,cursor,opencode,gemini>"
