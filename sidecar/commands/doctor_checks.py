"""The doctor's checks of this machine: settings, opencode, directories, ports. Nothing is changed."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp

from sidecar.config import Settings
from sidecar.errors import ChildError, SettingsError
from sidecar.listening import url_of
from sidecar.masking import masked_urls
from sidecar.opencode.client import ChildClient
from sidecar.opencode.confinement import Surroundings, open_services, prepare
from sidecar.opencode.environment import PINNED_VERSION, ChildFiles
from sidecar.opencode.executable import VERSION_SECONDS, ask_version, find_binary

Status = Literal["ok", "warning", "failure"]

_OLDEST_NODE = 20
_LITTLE_SPACE_BYTES = 2_000_000_000
_NO_SPACE_BYTES = 200_000_000
_PROBE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` says what to do about a warning or failure."""

    status: Status
    message: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `run` must not raise anything but what a bug raises."""

    name: str
    run: Callable[[], Awaitable[Finding]]
    bound_seconds: float = 30.0


def ok(message: str) -> Finding:
    """All is well."""
    return Finding("ok", message)


def warning(message: str, fix: str) -> Finding:
    """It works, and something should be looked at."""
    return Finding("warning", message, fix)


def failure(message: str, fix: str) -> Finding:
    """It does not work."""
    return Finding("failure", message, fix)


def machine_checks(settings: Settings) -> list[Check]:
    """Return the checks that need no gateway and start no server."""
    return [
        Check("node", _node, VERSION_SECONDS),
        Check("opencode", lambda: _opencode(settings), VERSION_SECONDS),
        Check("ripgrep", lambda: _ripgrep(settings), VERSION_SECONDS),
        Check("data dir", lambda: asyncio.to_thread(_data_dir, settings)),
        Check("disk space", lambda: asyncio.to_thread(_disk_space, settings)),
        Check("confinement", lambda: asyncio.to_thread(_confinement, settings), VERSION_SECONDS),
        Check("port", lambda: _port(settings)),
        Check("admin port", lambda: _admin_port(settings)),
        Check("access", lambda: _access(settings)),
    ]


async def _node() -> Finding:
    node = shutil.which("node")
    fix = f"only installing opencode needs it: install Node {_OLDEST_NODE} or newer, then `make setup`"
    if node is None:
        return warning("node is not on PATH", fix)
    version = await _version_of(node)
    if version is None:
        return warning(f"{node} does not print its version", fix)
    major = version.lstrip("v").partition(".")[0]
    if not major.isdecimal() or int(major) < _OLDEST_NODE:
        return warning(f"Node {version} is older than {_OLDEST_NODE}", fix)
    return ok(f"Node {version}")


async def _opencode(settings: Settings) -> Finding:
    if settings.child.url is not None:
        return await _attached(settings)
    with tempfile.TemporaryDirectory(prefix="opencode-sidecar-doctor-") as home:
        try:
            binary = find_binary(settings.child.binary, search_path=os.environ.get("PATH"))
            version = await ask_version(binary, env=_plain_environment(home), cwd=Path(home))
        except (SettingsError, ChildError) as error:
            return failure(
                error.message,
                "run `make setup`, or set SIDECAR_CHILD_BINARY to an executable of this machine; the image "
                "may lack its libc",
            )
    if version != PINNED_VERSION:
        return warning(
            f"opencode {version} at {binary}, tested is {PINNED_VERSION}",
            "use the pinned one: `npm ci` in deploy/opencode and leave SIDECAR_CHILD_BINARY unset",
        )
    return ok(f"opencode {version} (the pinned one) at {binary}")


async def _ripgrep(settings: Settings) -> Finding:
    if settings.child.url is not None:
        return ok("the other opencode brings its own")
    binary = shutil.which("rg")
    if binary is None:
        return warning(
            "rg is not on PATH; opencode's glob and grep download it when first used",
            "install ripgrep (Debian and Homebrew: `ripgrep`); without a way out those tools fail",
        )
    return ok(f"ripgrep at {binary}, for glob and grep")


async def _attached(settings: Settings) -> Finding:
    child = settings.child
    url = masked_urls(child.url or "")
    password = child.password.get_secret_value() if child.password else ""
    async with aiohttp.ClientSession() as session:
        client = ChildClient(
            base_url=child.url or "",
            password=password,
            session=session,
            request_timeout_seconds=_PROBE_SECONDS,
        )
        try:
            version = await client.health(timeout_seconds=_PROBE_SECONDS)
        except ChildError as error:
            return failure(
                f"OPENCODE_URL={url}: {error.message}",
                "start that opencode, and give its password as OPENCODE_SERVER_PASSWORD",
            )
    if version != PINNED_VERSION:
        return warning(
            f"opencode {version} at {url}, tested is {PINNED_VERSION}",
            "run the pinned version there",
        )
    return ok(f"opencode {version} (the pinned one) answers at {url}")


def _plain_environment(home: str) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": home}


async def _version_of(binary: str) -> str | None:
    with tempfile.TemporaryDirectory(prefix="opencode-sidecar-doctor-") as home:
        try:
            process = await asyncio.create_subprocess_exec(
                binary,
                "--version",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_plain_environment(home),
            )
        except OSError:
            return None
        try:
            printed, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
    words = printed.decode("utf-8", "replace").split()
    return words[-1] if process.returncode == 0 and words else None


def _data_dir(settings: Settings) -> Finding:
    directory = settings.storage.data_dir
    fix = "set DATA_DIR to a directory that this user may write"
    existing = _nearest_existing(directory)
    if not existing.is_dir():
        return failure(f"{existing} is not a directory", fix)
    try:
        # Unnamed where the system can do that, so a running server never sees it.
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"x")
            probe.flush()
    except OSError as error:
        return failure(f"{existing} cannot be written: {error.strerror}", fix)
    if existing != directory:
        return ok(f"{directory} does not exist yet and can be made")
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        return warning(
            f"{directory} is open to other users (mode {mode:04o}) and holds conversations",
            f"chmod 700 {directory}",
        )
    return ok(f"{directory} is writable, mode {mode:04o}")


def _disk_space(settings: Settings) -> Finding:
    directory = _nearest_existing(settings.storage.data_dir)
    free = shutil.disk_usage(directory).free
    text = f"{free / 1e9:.1f} GB free at {directory}"
    fix = "free some space or set DATA_DIR to a larger volume"
    if free < _NO_SPACE_BYTES:
        return failure(text, fix)
    if free < _LITTLE_SPACE_BYTES:
        return warning(text, fix)
    return ok(text)


def _nearest_existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


async def _port(settings: Settings) -> Finding:
    host, port = settings.http.effective_host(), settings.http.port
    if port == 0:
        return ok("a free one is picked at start (PORT=0)")
    try:
        with _bound(host, port):
            return ok(f"{host}:{port} is free")
    except OSError as error:
        why = error.strerror or str(error)
    state = await _running_sidecar(host, port)
    if state is not None:
        return ok(f"a sidecar serves on {host}:{port}, its opencode is {state}")
    return failure(
        f"{host}:{port} cannot be used: {why}",
        f"stop what listens there (`ss -ltnp 'sport = :{port}'`) or set PORT",
    )


async def _admin_port(settings: Settings) -> Finding:
    admin = settings.admin
    if not admin.is_enabled:
        return ok("metrics and administration are switched off")
    if admin.port == 0:
        return ok("a free one is picked at start (SIDECAR_ADMIN_PORT=0)")
    try:
        with _bound(admin.host, admin.port):
            return ok(f"{admin.host}:{admin.port} is free")
    except OSError as error:
        why = error.strerror or str(error)
    if "port" not in admin.model_fields_set:
        return ok(f"{admin.host}:{admin.port} is taken, a free one is picked at start")
    if await _running_sidecar(settings.http.effective_host(), settings.http.port):
        return ok(f"{admin.host}:{admin.port} is in use, and a sidecar is running")
    return failure(
        f"{admin.host}:{admin.port} cannot be used: {why}",
        "stop what listens there or set SIDECAR_ADMIN_PORT",
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        probe.bind((host, port))
    except OSError:
        probe.close()
        raise
    return probe


async def _running_sidecar(host: str, port: int) -> str | None:
    """Return the state of the child of the sidecar that listens there, None if it is something else."""
    bound = aiohttp.ClientTimeout(total=_PROBE_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=bound) as session,
            session.get(f"{url_of(host, port)}/health") as response,
        ):
            body = await response.json()
            return str(body["opencode"]["state"])
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError):
        return None


def _confinement(settings: Settings) -> Finding:
    fix = (
        "Linux 6.12 holds everything, a C compiler is needed once; SIDECAR_CONFINEMENT=required starts only "
        "where all of it holds (docs/threat-model.md)"
    )
    with tempfile.TemporaryDirectory(prefix="doctor-") as scratch:
        files = ChildFiles(Path(scratch).resolve() / "opencode")
        files.prepare()
        try:
            found = prepare(
                settings.confinement,
                Surroundings(
                    files=files,
                    workspaces_dir=Path(scratch).resolve(),
                    protected=[settings.storage.data_dir, *settings.secret_files()],
                    environ=os.environ,
                    binary=None,
                ),
            )
        except SettingsError as error:
            return failure(error.message, fix)
    if settings.child.url is not None:
        found = found.in_other_container()
    lacks = list(found.lacks)
    if found.is_on and (services := open_services(os.environ)):
        lacks.append(
            f"agents can use {', '.join(services)}, which start programs or sign with keys outside of "
            "every wall: run the sidecar where they are not"
        )
    if lacks:
        return warning("; ".join(lacks), fix)
    return ok("agents are confined to their sessions (Landlock, all of it)")


async def _access(settings: Settings) -> Finding:
    host = settings.http.effective_host()
    if settings.http.runtime_api_key:
        return ok(f"RUNTIME_API_KEY is set, listening on {host}")
    if settings.http.allow_anonymous:
        return warning(
            f"anyone who reaches {host}:{settings.http.port} may run code here",
            "set RUNTIME_API_KEY, unless something in front authenticates",
        )
    return ok(f"no RUNTIME_API_KEY: only this machine is served ({host})")
