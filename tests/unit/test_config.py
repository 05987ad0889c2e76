"""Settings: names that LAP's deployments use, secrets from files, and refusals that help."""

import pwd
import socket
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from sidecar.config import HttpSettings, Settings, meanings, trimmed_variables, variables
from sidecar.errors import SettingsError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for _, name, _ in variables():
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_the_names_of_existing_deployments_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drop-in for the servers before us reads the same variables."""
    for name, value in {
        "HOST": "127.0.0.1",
        "PORT": "9090",
        "OPENCODE_PORT": "4097",
        "WORKDIR": "/work/dirs",
        "DB_PATH": "/var/x.db",
        "LITELLM_BASE_URL": "http://gateway:4000/v1/",
        "LITELLM_API_KEY": "sk-gateway",
        "LITELLM_MODELS": " a, b/c ,,d:e ",
        "LITELLM_DEFAULT_MODEL": "b/c",
        "RUNTIME_API_KEY": "sk-runtime",
        "DATA_DIR": "/var/data",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert (settings.http.host, settings.http.port, settings.child.port) == (
        "127.0.0.1",
        9090,
        4097,
    )
    assert settings.storage.workspaces_dir == Path("/work/dirs")
    assert settings.storage.database_file == Path("/var/x.db")
    assert settings.gateway.base_url == "http://gateway:4000/v1"
    assert settings.gateway.models == ("a", "b/c", "d:e")
    assert settings.gateway.api_key == SecretStr("sk-gateway")
    assert settings.http.runtime_api_key == SecretStr("sk-runtime")


@pytest.mark.parametrize("name", ["OPENCODE_PORT", "OPENCODE_URL"])
def test_a_spare_needs_room_for_two(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where there can be one opencode only, a spare is refused rather than ignored."""
    monkeypatch.setenv("SIDECAR_CHILD_SPARE", "1")
    monkeypatch.setenv(name, "4096" if name.endswith("PORT") else "http://127.0.0.1:4096")
    with pytest.raises(SettingsError, match="SIDECAR_CHILD_SPARE"):
        Settings.load()


def test_nothing_set_is_a_whole_configuration(tmp_path: Path) -> None:
    """Defaults: loopback, port 8080, state below the user's state directory, the demo gateway."""
    settings = Settings.load()
    assert settings.http.effective_host() == "127.0.0.1"
    assert settings.http.port == 8080
    assert settings.storage.data_dir == tmp_path / "opencode-sidecar"
    assert settings.gateway.base_url is None


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("SIDECAR_HTTP_BODY_LIMIT", "SIDECAR_HTTP_BODY_LIMIT_BYTES"),
        ("SIDECAR_LOG_LEVL", "SIDECAR_LOG_LEVEL"),
        ("SIDECAR_TURN_MAXSECONDS", "SIDECAR_TURN_MAX_SECONDS"),
        ("SIDECAR_XYZ", "SIDECAR_"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, wrong: str, near: str
) -> None:
    """A misspelt setting does not silently do nothing."""
    monkeypatch.setenv(wrong, "1")
    with pytest.raises(SettingsError, match=f"unknown setting {wrong}; did you mean {near}"):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "abc"),
        ("PORT", "-1"),
        ("LITELLM_BASE_URL", "gateway:4000"),
        ("LITELLM_BASE_URL", "http://gateway:99999"),
        ("LITELLM_BASE_URL", "http://::1:4000"),
        ("LITELLM_BASE_URL", "http:///v1"),
        ("LITELLM_BASE_URL", "http://gateway/v1?key=x"),
        ("OPENCODE_URL", "http://opencode:port"),
        ("SIDECAR_GATEWAY_REFRESH_SECONDS", "0"),
        ("SIDECAR_GATEWAY_ALIASES", "not json"),
        ("SIDECAR_STORAGE_SYNCHRONOUS", "OFF"),
        ("SIDECAR_CHILD_MAX_INSTANCES", "0"),
    ],
)
def test_a_wrong_value_is_refused_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The message names the variable, not a field of ours."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        Settings.load()


def test_the_scheme_of_a_url_may_be_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every other client."""
    monkeypatch.setenv("LITELLM_BASE_URL", "HTTPS://Gateway:4000/v1/")
    assert Settings.load().gateway.base_url == "https://Gateway:4000/v1"


@pytest.mark.parametrize("name", ["RUNTIME_API_KEY", "LITELLM_API_KEY"])
def test_a_secret_may_come_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """`<NAME>_FILE` is read and stripped, of a byte order mark, too; both at once, or a missing file, are
    refused."""
    file = tmp_path / "secret"
    file.write_bytes(b"\xef\xbb\xbf  sk-from-file\t\r\n")
    monkeypatch.setenv(f"{name}_FILE", str(file))
    settings = Settings.load()
    found = {settings.http.runtime_api_key, settings.gateway.api_key} - {None}
    assert found == {SecretStr("sk-from-file")}
    monkeypatch.setenv(name, "also")
    with pytest.raises(SettingsError, match="both set"):
        Settings.load()
    monkeypatch.delenv(name)
    monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "gone"))
    with pytest.raises(SettingsError, match="gone"):
        Settings.load()


def test_secrets_do_not_show() -> None:
    """Printing settings prints no key."""
    settings = HttpSettings(runtime_api_key=SecretStr("sk-secret"))
    assert "sk-secret" not in repr(settings)
    assert "sk-secret" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("host", "has_key", "is_allowed", "bound"),
    [
        (None, False, False, "127.0.0.1"),
        (None, True, False, "0.0.0.0"),
        (None, False, True, "0.0.0.0"),
        ("localhost", False, False, "localhost"),
        ("::1", False, False, "::1"),
        ("127.5.5.5", False, False, "127.5.5.5"),
        ("0.0.0.0", True, False, "0.0.0.0"),
        ("0.0.0.0", False, True, "0.0.0.0"),
        ("0.0.0.0", False, False, None),
        ("::", False, False, None),
        ("10.0.0.1", False, False, None),
        ("my-host", False, False, None),
        ("*", False, False, None),
        ("*", True, False, "::" if socket.has_dualstack_ipv6() else "0.0.0.0"),
        ("[::1]", False, False, "::1"),
    ],
)
def test_an_open_address_needs_a_key(
    host: str | None, has_key: bool, is_allowed: bool, bound: str | None
) -> None:
    """Anyone who reaches the port runs code: without a key only loopback, unless allowed by name."""
    key = SecretStr("k") if has_key else None
    settings = HttpSettings(host=host, runtime_api_key=key, allow_anonymous=is_allowed)
    if bound is None:
        with pytest.raises(SettingsError, match="RUNTIME_API_KEY"):
            settings.effective_host()
    else:
        assert settings.effective_host() == bound


@pytest.mark.parametrize("host", ["0.0.0.0:8080", "http://0.0.0.0", "a b", "[::1]:80", "::1/64"])
def test_an_address_is_an_address_alone(host: str) -> None:
    """What people write who think of a URL is refused with the setting that it belongs to."""
    with pytest.raises(ValidationError, match="port has a setting of its own"):
        HttpSettings(host=host)


def test_every_setting_has_a_meaning_and_a_name_of_its_own() -> None:
    """The README's table is made from these."""
    names = [name for _, name, _ in variables()]
    assert len(set(names)) == len(names)
    assert all(meanings()[name] for name in names)


@pytest.mark.parametrize("url", ["http://user:pw@gateway:4000", "http://user@gateway:4000/v1"])
def test_a_gateway_is_authenticated_to_in_one_way(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A user in the URL and a key cannot both be sent; the refusal does not repeat them."""
    monkeypatch.setenv("LITELLM_BASE_URL", url)
    assert Settings.load().gateway.base_url == url
    monkeypatch.setenv("LITELLM_API_KEY", "sk-gateway")
    with pytest.raises(SettingsError, match=r"LITELLM_BASE_URL.*LITELLM_API_KEY") as caught:
        Settings.load()
    assert "pw" not in caught.value.message
    assert "sk-gateway" not in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        *("RUNTIME_API_KEY", "LITELLM_API_KEY", "OPENCODE_SERVER_PASSWORD", "SIDECAR_ADMIN_KEY"),
        *("SIDECAR_VAULT_KEY", "ANTHROPIC_API_KEY", "CURSOR_API_KEY", "SIDECAR_RELAY_TOKEN"),
        *("LITELLM_BASE_URL", "ANTHROPIC_BASE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
def test_what_stands_around_a_secret_or_url_is_stripped_and_inside_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Keys from Kubernetes secrets end in a line break; one inside is a mistake, and no key has one."""
    group, field_name = next(
        (group, field_name)
        for group, variable, field in variables()
        if variable == name
        for field_name, other in group.model_fields.items()
        if other is field
    )
    clean = "http://host:1/v1" if name.endswith(("_URL", "_ENDPOINT")) else "key-1"
    for value in (f"{clean}\n", f" {clean}\r\n", f"\t{clean} "):
        monkeypatch.setenv(name, value)
        read = getattr(group(), field_name)
        assert (read.get_secret_value() if isinstance(read, SecretStr) else read) == clean
        assert trimmed_variables() == [name]
    for inside in (" ", "\n", "\x07", "\u00a0", "\ufeff", "\u200b"):
        monkeypatch.setenv(name, clean.replace("-", f"{inside}-").replace("host", f"ho{inside}st"))
        with pytest.raises(SettingsError, match=f"{name}: .*inside") as caught:
            Settings.load()
        assert clean not in caught.value.message
    monkeypatch.setenv(name, " \n")
    with pytest.raises(SettingsError, match=f"{name}: .*only blanks"):
        Settings.load()


def test_an_empty_secret_file_is_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty or unreadable file stops the start; without a key everybody would be let in."""
    file = tmp_path / "key"
    monkeypatch.setenv("RUNTIME_API_KEY_FILE", str(file))
    for content in (b"", b"\n \n", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(SettingsError, match="RUNTIME_API_KEY_FILE: "):
            Settings.load()


def test_values_that_are_no_secret_are_stripped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break behind an address, a path or a choice is ignored."""
    for name, value in {
        "HOST": "[::1]\n",
        "PORT": " 9090\n",
        "DATA_DIR": "/data\n",
        "SIDECAR_LOG_LEVEL": "debug\n",
        "LITELLM_DEFAULT_MODEL": "m\n",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert (settings.http.host, settings.http.port) == ("::1", 9090)
    assert settings.storage.data_dir == Path("/data")
    assert (settings.log.level, settings.gateway.default_model) == ("debug", "m")


def test_neither_home_nor_data_dir_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that no passwd file knows, as platforms give containers, is asked for DATA_DIR."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(SettingsError, match=r"^DATA_DIR: is not set") as caught:
        Settings.load()
    assert "\n" not in caught.value.message
    monkeypatch.setenv("DATA_DIR", "/data")
    assert Settings.load().storage.data_dir == Path("/data")
