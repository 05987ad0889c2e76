"""What the child inherits, which executable it is, and what of its output is logged."""

import json
import os
from pathlib import Path

import pytest
import structlog.testing

from sidecar.errors import SettingsError
from sidecar.masking import Mask
from sidecar.opencode.child_log import mask, relogger
from sidecar.opencode.environment import (
    PLUGIN_FILE,
    ChildFiles,
    RelayAccess,
    attached_environment,
    build_environment,
)
from sidecar.opencode.executable import find_binary
from sidecar.processes.orphans import marker_for

OURS = {
    "PATH": "/bin",
    "LC_ALL": "C.UTF-8",
    "LITELLM_API_KEY": "sk-gateway",
    "RUNTIME_API_KEY": "runtime",
    "ANTHROPIC_API_KEY": "sk-ant",
    "SIDECAR_HTTP_PORT": "1",
    "HOME": "/root",
    "NO_PROXY": "intern",
    "AWS_SECRET_ACCESS_KEY": "x",
}


def _environment(root: Path) -> dict[str, str]:
    return build_environment(
        ChildFiles(root),
        inherited=OURS,
        password="pw",
        relay=RelayAccess("http://127.0.0.1:9/v1", "token"),
    )


def test_no_secret_of_ours_reaches_the_child(tmp_path: Path) -> None:
    """Only the allow-list passes; keys and settings stay here."""
    environment = _environment(tmp_path)
    assert not set(environment.values()) & {"sk-gateway", "runtime", "sk-ant", "x", "/root"}
    assert (environment["PATH"], environment["LC_ALL"]) == ("/bin", "C.UTF-8")
    assert [name for name in environment if name.startswith("SIDECAR_")] == [
        "SIDECAR_RELAY_URL",
        "SIDECAR_RELAY_TOKEN",
        "SIDECAR_SHELL_SOCKET",
    ]


def test_another_container_gets_what_it_needs(tmp_path: Path) -> None:
    """The same but our PATH, with a marker that both can compute."""
    relay = RelayAccess("http://127.0.0.1:9/v1", "token")
    given = attached_environment(ChildFiles(tmp_path), password="pw", relay=relay, confining=())
    assert set(_environment(tmp_path)) - set(given) == {"PATH", "LC_ALL"}
    assert given["SIDECAR_CHILD_MARKER"] == marker_for("token") != marker_for("another")


def test_the_plugin_is_put_where_another_container_sees_it(tmp_path: Path) -> None:
    """A copy below the data directory; what was changed in it is replaced. A path too deep is refused."""
    files = ChildFiles(tmp_path / "opencode")
    shared = files.share_plugin()
    assert shared.is_relative_to(tmp_path)
    shared.write_text("something else")
    assert files.share_plugin().read_bytes() == PLUGIN_FILE.read_bytes()
    with pytest.raises(SettingsError, match=r"DATA_DIR: .* 80 bytes at most"):
        ChildFiles(Path("/" + "x" * 81) / "opencode").share_plugin()


def test_everything_of_the_child_is_below_its_root(tmp_path: Path) -> None:
    """HOME and the XDG directories are private, and the relay is reached without a proxy."""
    environment = _environment(tmp_path)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        assert Path(environment[name]).is_relative_to(tmp_path)
    assert environment["NO_PROXY"] == "intern,127.0.0.1,localhost,::1"


def test_prepare_seeds_what_would_be_fetched(tmp_path: Path) -> None:
    """The empty catalogue and the plug-in stub are there before the first boot; twice is fine."""
    files = ChildFiles(tmp_path / "opencode")
    files.prepare()
    files.prepare()
    assert files.models_file.read_text() == "{}"
    lock = json.loads((files.xdg("config") / "opencode" / "package-lock.json").read_text())
    assert "@opencode-ai/plugin" in lock["packages"][""]["dependencies"]


def _executable(path: Path, size: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    path.chmod(0o755)
    return path


def test_binary_order_explicit_pinned_path(tmp_path: Path) -> None:
    """An explicit binary wins over the pinned one, the pinned one over PATH, and a stub is passed over."""
    on_path = _executable(tmp_path / "bin" / "opencode")
    search = str(on_path.parent)
    assert find_binary(None, search_path=search, project_root=tmp_path) == on_path
    modules = tmp_path / "deploy" / "opencode" / "node_modules"
    linked = _executable(modules / ".bin" / "opencode", size=100)
    assert find_binary(None, search_path=search, project_root=tmp_path) == on_path
    linked.write_bytes(b"x" * 2_000_000)
    assert find_binary(None, search_path=search, project_root=tmp_path) == linked.resolve()
    explicit = _executable(tmp_path / "mine")
    assert find_binary(explicit, search_path=search, project_root=tmp_path) == explicit


def test_missing_binary_says_what_to_run(tmp_path: Path) -> None:
    """Without opencode there is one sentence with the command that installs it."""
    with pytest.raises(SettingsError, match="make setup"):
        find_binary(None, search_path=os.devnull, project_root=tmp_path)
    with pytest.raises(SettingsError, match="SIDECAR_CHILD_BINARY"):
        find_binary(tmp_path / "none", search_path=None)


def test_child_lines_are_logged_with_level_and_without_secrets() -> None:
    """A line keeps its level, says where it came from, and shows neither our secrets nor key-like words."""
    kept: list[str] = []
    relog = relogger(secrets=("pass-word", "relay-token"), keep=kept.append)
    with structlog.testing.capture_logs() as logs:
        relog("stderr", "level=INFO message=hello pass-word relay-token")
        relog("stderr", "plain words")
        relog("stdout", "listening")
    assert [(entry["log_level"], entry["source"]) for entry in logs] == [
        ("info", "child"),
        ("warning", "child"),
        ("info", "child"),
    ]
    assert logs[0]["line"] == kept[0] == "level=INFO message=hello *** ***"
    assert mask("Bearer abc.def sk-1234567890", Mask()) == "Bearer *** ***"
