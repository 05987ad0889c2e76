"""The walls around opencode (level 1) and each session's commands (level 2), as rules for `confine.c`.

Level 1 is opencode's: it reads the system and writes its own directories and the sessions', not the store,
the keys or anything else of this user. Level 2 is one session's: its own directory and a private one beside
it (`HOME` and `TMPDIR`), the system for reading, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import structlog

from sidecar.atomic_file import BY_UMASK, replace_file
from sidecar.config import ConfinementSettings, Settings
from sidecar.errors import SettingsError
from sidecar.opencode.environment import CONFINED_BY_VARIABLE, PLUGIN_FILE, ChildFiles
from sidecar.processes import landlock

Level = Literal["full", "partial", "off"]

SYSTEM = ("/bin", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sbin", "/usr")
"""Read by opencode and by agents, but for secrets that are named in our settings."""
_MORE = (
    "/nix/store",
    "/snap",
    "/home/linuxbrew/.linuxbrew",
    "/proc",
    "/run/systemd/resolve",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
)
_DEVICES = (
    "/dev/full",
    "/dev/null",
    "/dev/random",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
)
_TERMINALS = ("/dev/ptmx", "/dev/pts")
"""Among them are those of other people: of `make run`, of `kubectl exec -it`."""
_PREFIX_PARTS = (
    "bin",
    "include",
    "lib",
    "lib64",
    "libexec",
    "plugins",
    "sbin",
    "shims",
    "versions",
)
"""What belongs to programs in a directory such as `~/.local` or `~/.pyenv`; the rest of it is the user's."""
_PROGRAMS = ("git", "rg")
"""What opencode starts by itself in an agent's directory, and what an agent's configuration can make run
commands (git), or links can lead out (ripgrep)."""
_SHELLS = ("bash", "sh")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS")
_MAX_SPLIT = 1000
_ELSEWHERE = (
    f"opencode is started by another container: it is confined if its command line begins with what "
    f"`opencode-sidecar child-env` prints as {CONFINED_BY_VARIABLE}. Without a shared process namespace "
    "the sidecar cannot see whether it is, and what a session leaves behind ends with opencode, not with the "
    "session"
)
_SERVICES = (
    *("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock", "/run/crio/crio.sock"),
    *("/run/containerd/containerd.sock", "{run}/docker.sock", "{run}/podman/podman.sock"),
    *("{run}/bus", "{run}/systemd/private"),
)
"""Sockets of services that start programs for every client that may connect; `{run}` is the directory of the
user."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What holds. Made by `prepare`."""

    level: Level
    lacks: tuple[str, ...] = ()
    """What does not hold here, one sentence for each."""
    command: tuple[str, ...] = ()
    """What goes before opencode's own command line; also without walls."""

    def describe(self) -> dict[str, Any]:
        """Return what `/health` shows: `{"level": "full"}`, with what it lacks where that is not all."""
        return {"level": self.level} | ({"lacks": list(self.lacks)} if self.lacks else {})

    def in_other_container(self) -> Confinement:
        """Return what can be said of an opencode that another container starts."""
        if not self.is_on:
            return self
        return replace(self, level="partial", lacks=(*self.lacks, _ELSEWHERE))

    @property
    def is_on(self) -> bool:
        """Whether there are walls at all."""
        return self.level != "off"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the rules depend on besides the settings."""

    files: ChildFiles
    workspaces_dir: Path
    protected: Sequence[Path]
    """Never granted by a rule for something around it: the data directory, files with secrets."""
    environ: Mapping[str, str]
    binary: Path | None
    """opencode's executable; None when another container brings it."""

    @classmethod
    def of(cls, settings: Settings, files: ChildFiles, binary: Path | None) -> Surroundings:
        """Return them as the settings have them."""
        storage = settings.storage
        workspaces = storage.workspaces_dir.resolve()
        return cls(
            files=ChildFiles(files.root.resolve()),
            workspaces_dir=workspaces,
            protected=(
                storage.data_dir,
                storage.database_file,
                workspaces,
                *settings.secret_files(),
            ),
            environ=os.environ,
            binary=binary,
        )


def prepare(settings: ConfinementSettings, around: Surroundings) -> Confinement:
    """Write the rules, put the launcher in place, see that it works.

    Blocks. Raises SettingsError when confinement is required and not complete.
    """
    if settings.mode == "off":
        _log.warning("agents are not confined: SIDECAR_CONFINEMENT is off")
        return Confinement("off", ("SIDECAR_CONFINEMENT is off",), _reporting_shell(around))
    try:
        command = _install(settings, around)
    except landlock.LauncherError as error:
        lack = f"agents are not confined at all: {error}"
        found = Confinement("off", (lack,), _reporting_shell(around))
    else:
        lacks = tuple(landlock.lacks(landlock.abi()))
        found = Confinement("partial" if lacks else "full", lacks, command)
    if found.lacks and settings.mode == "required":
        raise SettingsError(f"SIDECAR_CONFINEMENT=required: {'; '.join(found.lacks)}")
    if found.lacks:
        _log.warning("confinement is not complete", level=found.level, lacks=found.lacks)
    if services := open_services(around.environ):
        _log.warning("agents can use services of this user outside of the walls", sockets=services)
    return found


def open_services(
    environ: Mapping[str, str], services: Sequence[str] = _SERVICES
) -> tuple[str, ...]:
    """Return the sockets of services outside that agents can use as well: Landlock does not know them.

    They start programs (Docker, a user's systemd) or sign with keys (an ssh agent), outside of every wall.
    """
    run = f"/run/user/{os.getuid()}"
    paths = [path.format(run=run) for path in services]
    agent = environ.get("SSH_AUTH_SOCK")
    found = [Path(path) for path in (*paths, *([agent] if agent else []))]
    usable = [path.resolve() for path in found if path.is_socket() and os.access(path, os.W_OK)]
    return tuple(dict.fromkeys(map(str, usable)))


def _install(settings: ConfinementSettings, around: Surroundings) -> tuple[str, ...]:
    if landlock.abi() == 0:
        raise landlock.LauncherError("this kernel has no Landlock (Linux 5.13 or newer has)")
    files = around.files
    try:
        for directory in (
            files.walls,
            files.walls / "bin",
            files.shims,
            files.keepers,
            files.private,
        ):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.tmp.mkdir(exist_ok=True, mode=0o700)
        landlock.install_launcher(files.launcher)
        shells = _found(_SHELLS, around)
        shell = files.walls / "bin" / (shells[0].name if shells else "bash")
        _link(shell, files.launcher)
        for name in _PROGRAMS:
            if around.binary is None or _found([name], around):
                _link(files.shims / name, files.launcher)
        shared = list(_shared_rules(settings, around))
        rules = [*shared, *_opencode_rules(around, shell)]
        _write(files.walls / "opencode.rules", rules)
        _write(files.session_rules, [*shared, *_session_rules(settings, around)])
    except OSError as error:
        raise landlock.LauncherError(f"{files.walls} cannot be prepared: {error}") from error
    landlock.probe(files.launcher, files.walls / "opencode.rules")
    return (str(files.launcher), str(files.walls / "opencode.rules"))


def _reporting_shell(around: Surroundings) -> tuple[str, ...]:
    """Return a start of opencode whose shell reports the end of a command by a signal as a status.

    For without the launcher, which does so, too: opencode does not notice such an end itself, and waits for
    the command's time limit. Nothing is returned where that cannot be had.
    """
    shells = _found(_SHELLS, around)
    env = _found(["env"], around)
    if not shells or not env or around.binary is None:
        return ()
    shell = around.files.walls / "reporting" / shells[0].name
    try:
        shell.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = shell.with_suffix(".new")
        draft.write_text(f'#!/bin/sh\n{shlex.quote(str(shells[0]))} "$@"\nexit $?\n', "utf-8")
        draft.chmod(0o700)
        draft.replace(shell)
    except OSError as error:
        _log.warning("no shell that reports signals", error=str(error))
        return ()
    return (str(env[0]), f"SHELL={shell}")


def _shared_rules(settings: ConfinementSettings, around: Surroundings) -> Iterator[str]:
    """The rules that both levels of confinement share."""
    given = [Path(path) for path in settings.readable]
    certificates = [Path(around.environ[n]) for n in _CERTIFICATES if around.environ.get(n)]
    wanted = [*map(Path, SYSTEM), *map(Path, _MORE), *certificates, *_toolchains(around), *given]
    for path in dict.fromkeys(wanted):
        for granted in without(path, around.protected):
            yield f"read {granted}"
    yield from (f"device {path}" for path in _DEVICES)
    files = around.files
    yield f"shims {files.shims}"
    yield f"tmp {files.tmp}"
    yield f"home {files.home}"
    yield "limit core 0"


def _opencode_rules(around: Surroundings, shell: Path) -> Iterator[str]:
    files = around.files
    if around.binary is not None:
        yield f"read {around.binary.resolve()}"
        yield f"read {PLUGIN_FILE.parent}"
    yield f"read {files.root}"  # not its files: a rule is about an inode, and the config is replaced
    yield from (f"device {path}" for path in _TERMINALS)
    own = (files.cwd, files.home, files.tmp, files.keepers, files.private, *files.xdg_directories())
    for path in (*own, around.workspaces_dir):
        yield f"write {path}"
    yield f"launcher {shell}"
    yield f"session_rules {files.session_rules}"


def _session_rules(settings: ConfinementSettings, around: Surroundings) -> Iterator[str]:
    files = around.files
    yield f"workspaces {around.workspaces_dir}"
    yield f"private {files.private}"
    yield f"keepers {files.keepers}"
    for shell in (*_found(_SHELLS, around), Path("/bin/bash"), Path("/bin/sh")):
        yield f"shell {shell}"
    yield from (f"unset {name}" for name in files.own_variables())
    if settings.terminals:
        yield from (f"device {path}" for path in _TERMINALS)
    yield f"processes {settings.max_processes}"
    yield f"limit user_processes {settings.max_user_processes}"
    yield f"limit file_bytes {settings.max_file_bytes}"
    yield f"limit open_files {settings.max_open_files}"


def _toolchains(around: Surroundings) -> Iterator[Path]:
    """Where the programs on PATH are that are not the system's: a user's Python, Node or Go."""
    homes = {Path(around.environ.get("HOME") or "/")}
    with contextlib.suppress(RuntimeError):  # this user is not in /etc/passwd
        homes.add(Path.home())
    for entry in around.environ.get("PATH", "").split(os.pathsep):
        folder = Path(entry)
        if not folder.is_absolute() or any(folder.is_relative_to(system) for system in SYSTEM):
            continue
        yield folder
        prefix = folder.parent
        if folder.name in _PREFIX_PARTS and not any(h.is_relative_to(prefix) for h in homes):
            yield from (prefix / part for part in _PREFIX_PARTS)


def without(path: Path, protected: Sequence[Path]) -> Iterator[Path]:
    """Yield what makes up `path` but for the protected paths: it itself, or only some of what is in it."""
    try:
        resolved = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return
    hidden = [hidden.resolve() for hidden in protected]
    if any(resolved.is_relative_to(h) for h in hidden):
        return
    if not any(h.is_relative_to(resolved) for h in hidden):
        yield resolved
        return
    try:
        entries = sorted(resolved.iterdir())[:_MAX_SPLIT]
    except OSError:
        return
    for entry in entries:
        yield from without(entry, protected)


def _found(names: Sequence[str], around: Surroundings) -> list[Path]:
    search_path = around.environ.get("PATH", os.defpath)
    found = (shutil.which(name, path=search_path) for name in names)
    return [Path(path).absolute() for path in found if path]


def _link(name: Path, launcher: Path) -> None:
    if not (name.is_symlink() and name.readlink() == launcher):
        name.unlink(missing_ok=True)
        name.symlink_to(launcher)


def _write(path: Path, lines: Sequence[str]) -> None:
    if any("\n" in line for line in lines):
        raise landlock.LauncherError("a path of the settings or of PATH holds a line break")
    text = "\n".join(lines) + "\n"
    replace_file(path, text.encode(errors="surrogateescape"), mode=BY_UMASK)
