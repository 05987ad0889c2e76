"""What the child sees: its files, its environment. Nothing of ours leaks into it.

The agent's bash tool can print the child's environment, so it is built from nothing: a short
allow-list of ours plus what opencode needs. The gateway's key is not in it; the relay's token, which
is worth nothing outside this machine and this boot, is.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.atomic_file import BY_UMASK, replace_file
from sidecar.errors import SettingsError
from sidecar.processes.orphans import MARKER_VARIABLE, marker_for

RELAY_URL_VARIABLE = "SIDECAR_RELAY_URL"
RELAY_TOKEN_VARIABLE = "SIDECAR_RELAY_TOKEN"  # noqa: S105  # a name
SHELL_SOCKET_VARIABLE = "SIDECAR_SHELL_SOCKET"
CONFINED_BY_VARIABLE = "SIDECAR_CONFINED_BY"
"""For another container: what its command line begins with, so that opencode is confined."""
USERNAME = "opencode"

INHERITED = frozenset(
    {
        "PATH",
        "LANG",
        "TZ",
        "TERM",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "NODE_EXTRA_CA_CERTS",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    }
)
"""All that passes from our environment, besides `LC_*`. The agent's commands need a path, a locale and,
behind a company proxy, a way out."""

_SWITCHES = (
    "OPENCODE_DISABLE_MODELS_FETCH",
    "OPENCODE_DISABLE_AUTOUPDATE",
    "OPENCODE_DISABLE_PROJECT_CONFIG",  # a file in a workspace could add plugins and providers
    "OPENCODE_DISABLE_DEFAULT_PLUGINS",
    "OPENCODE_DISABLE_LSP_DOWNLOAD",
    "OPENCODE_DISABLE_SHARE",
    "OPENCODE_DISABLE_CLAUDE_CODE",
    "OPENCODE_DISABLE_EXTERNAL_SKILLS",
    "OPENCODE_DISABLE_FFF",  # three threads per directory
    "OPENCODE_DISABLE_EMBEDDED_WEB_UI",
    "OPENCODE_EXPERIMENTAL_DISABLE_FILEWATCHER",
)
_LOOPBACK = "127.0.0.1,localhost,::1"
_PLUGIN = "@opencode-ai/plugin"
PLUGIN_FILE = Path(__file__).with_name("plugin") / "shell_environment.js"
PINNED_VERSION = "1.18.33"
"""The opencode that deploy/opencode installs and everything here was measured with."""
_MAX_SOCKET_PATH_BYTES = 100


@dataclass(frozen=True, slots=True)
class RelayAccess:
    """How the child reaches models: `url` ends in `/v1`; `token` is good for this boot only."""

    url: str
    token: str


@dataclass(frozen=True, slots=True)
class ChildFiles:
    """Where the child's things are, all below `<DATA_DIR>/opencode`."""

    root: Path

    @property
    def config_file(self) -> Path:
        """The file that `OPENCODE_CONFIG` names; `config_file.ConfigFile` owns it."""
        return self.root / "opencode.json"

    @property
    def models_file(self) -> Path:
        """An empty catalogue: opencode's own of thousands of models costs 20 MB per directory."""
        return self.root / "models.json"

    @property
    def shell_socket(self) -> Path:
        """Where our plug-in asks for a session's variables.

        A socket's path has about 100 bytes at most; for a deeper data directory it is in the
        system's directory for temporary files, under a name that is always the same.
        """
        beside = self.root / "shell.sock"
        if len(os.fsencode(beside)) <= _MAX_SOCKET_PATH_BYTES:
            return beside
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:20]
        return Path(tempfile.gettempdir(), f"sidecar-{digest}.sock")

    @property
    def plugin_file(self) -> Path:
        """Our plug-in, for an opencode that does not see our own files."""
        return self.root / "plugin" / PLUGIN_FILE.name

    @property
    def home(self) -> Path:
        """opencode's HOME."""
        return self.root / "home"

    @property
    def tmp(self) -> Path:
        """opencode's own temporary files, when it is confined."""
        return self.root / "tmp"

    @property
    def walls(self) -> Path:
        """What confines opencode: the launcher, its names, the rules. opencode reads it."""
        return self.root / "walls"

    @property
    def launcher(self) -> Path:
        """The program of `processes/confine.c`."""
        return self.walls / "confine"

    @property
    def shims(self) -> Path:
        """The launcher under the names of programs that opencode starts by itself."""
        return self.walls / "shims"

    @property
    def session_rules(self) -> Path:
        """What a session's commands may do."""
        return self.walls / "session.rules"

    @property
    def keepers(self) -> Path:
        """The sockets of the sessions' keepers, each named like its session's directory."""
        return self.root / "keepers"

    @property
    def private(self) -> Path:
        """Beside its workspace, what a session has for itself: `<name>/home` and `<name>/tmp`."""
        return self.root / "private"

    def xdg_directories(self) -> list[Path]:
        """Return the private XDG directories."""
        return [self.xdg(kind) for kind in _XDG]

    def own_variables(self) -> list[str]:
        """Return the variables that are opencode's alone: no command of an agent has them."""
        nowhere = RelayAccess("", "")
        ours = attached_environment(self, password="", relay=nowhere, confining=("-",))
        return sorted(ours.keys() - {"HOME", "NO_PROXY", "no_proxy"})

    @property
    def cwd(self) -> Path:
        """The child's working directory: the instance of requests that name no other."""
        return self.root / "cwd"

    def xdg(self, kind: str) -> Path:
        """Return one of the private XDG directories: config, data, state, cache."""
        return self.root / kind

    def prepare(self) -> None:
        """Create what must be there before the first boot. Blocks. Raises OSError."""
        for path in (self.cwd, self.home, *self.xdg_directories()):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.models_file.write_text("{}", encoding="ascii")
        self._seed_plugin_directory()

    def share_plugin(self) -> Path:
        """Put our plug-in where an opencode in another container finds it, beside the socket that it asks.

        Blocks. Raises OSError, and SettingsError when the socket cannot be there.
        """
        if self.shell_socket.parent != self.root:
            raise SettingsError(
                f"DATA_DIR: {self.root.parent} is too long a path for a socket in it, which another "
                f"container needs; {_MAX_SOCKET_PATH_BYTES - len('/opencode/shell.sock')} bytes at most"
            )
        shared = self.plugin_file.absolute()
        shared.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # As a whole: a directory may be loading it just now.
        replace_file(shared, PLUGIN_FILE.read_bytes(), mode=BY_UMASK)
        return shared

    def _seed_plugin_directory(self) -> None:
        """Make opencode believe that its plug-in package is installed.

        Otherwise it runs npm in the background at the first load of a directory, which without a
        network blocks that load for 70 s.
        """
        directory = self.xdg("config") / "opencode"
        (directory / "node_modules").mkdir(parents=True, exist_ok=True)
        dependencies = {"dependencies": {_PLUGIN: PINNED_VERSION}}
        lock = {"name": "opencode", "lockfileVersion": 3, "packages": {"": dependencies}}
        (directory / "package.json").write_text(json.dumps(dependencies), encoding="ascii")
        (directory / "package-lock.json").write_text(json.dumps(lock), encoding="ascii")


_XDG = ("config", "data", "state", "cache")


def build_environment(
    files: ChildFiles,
    *,
    inherited: Mapping[str, str],
    password: str,
    relay: RelayAccess,
) -> dict[str, str]:
    """Return the child's whole environment."""
    environment = {
        name: value
        for name, value in inherited.items()
        if name in INHERITED or name.startswith("LC_")
    }
    environment.setdefault("PATH", os.defpath)
    for name in ("NO_PROXY", "no_proxy"):  # the relay must never be reached through a proxy
        environment[name] = ",".join(filter(None, (environment.get(name), _LOOPBACK)))
    environment |= {f"XDG_{kind.upper()}_HOME": str(files.xdg(kind)) for kind in _XDG}
    environment |= dict.fromkeys(_SWITCHES, "1")
    return environment | {
        "HOME": str(files.home),
        "OPENCODE_CONFIG": str(files.config_file),
        "OPENCODE_MODELS_PATH": str(files.models_file),
        "OPENCODE_SERVER_USERNAME": USERNAME,
        "OPENCODE_SERVER_PASSWORD": password,
        RELAY_URL_VARIABLE: relay.url,
        RELAY_TOKEN_VARIABLE: relay.token,
        SHELL_SOCKET_VARIABLE: str(files.shell_socket),
    }


def attached_environment(
    files: ChildFiles, *, password: str, relay: RelayAccess, confining: Sequence[str]
) -> dict[str, str]:
    """Return what an opencode in another container must be given beside that container's own.

    `confining` goes before its command line (`confinement`).
    """
    ours = build_environment(files, inherited={}, password=password, relay=relay)
    ours[MARKER_VARIABLE] = marker_for(relay.token)
    if confining:
        ours[CONFINED_BY_VARIABLE] = " ".join(confining)
    return {name: value for name, value in ours.items() if name != "PATH"}
