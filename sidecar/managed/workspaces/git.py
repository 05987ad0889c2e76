"""Cloning with git: a private configuration, a token that leaves no trace, bounds on time and size.

The token travels in git's environment for the length of the clone, as a header for that one host: not
in the URL, so not in `.git/config`; not in the arguments, which every user of the machine can list.

git and its helpers, which do the work, end with the clone or with us: they have a guard (`launch`).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import secrets
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from sidecar.aiokit import TaskOwner, cancel_and_wait
from sidecar.config import RepositorySettings
from sidecar.managed.workspaces.directories import remove_directory
from sidecar.masking import IN_USE, masked
from sidecar.opencode.environment import INHERITED
from sidecar.processes.process import guarded
from sidecar.wire.objects.events import FailureType

_SIZE_CHECK_SECONDS = 1.0
_KEPT_OUTPUT_BYTES = 8192
_MESSAGE_CHARS = 400

_SAYS: tuple[tuple[FailureType, re.Pattern[str]], ...] = (
    ("repository_forbidden_error", re.compile(r"returned error: 403|HTTP 403", re.I)),
    (
        "repository_authentication_error",
        re.compile(
            r"Authentication failed|could not read (Username|Password)|error: 401|invalid credentials",
            re.I,
        ),
    ),
    ("repository_not_found_error", re.compile(r"repository '.*' not found|error: 404", re.I)),
    (
        "repository_checkout_error",
        re.compile(
            r"Remote branch .* not found|not our ref|reference is not a tree|unable to read tree"
            r"|did not match any file|couldn't find remote ref|Not a valid object name",
            re.I,
        ),
    ),
)
"""What git 2.39 prints (with `LC_ALL=C`) for each kind, first match wins."""


class CloneError(Exception):
    """A clone failed; `type` is that of the session's error event, the message is for people."""

    def __init__(self, kind: FailureType, message: str) -> None:
        super().__init__(message)
        self.type = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Checkout:
    """What to check out: a branch, a commit, or with neither the default branch."""

    branch: str | None = None
    commit: str | None = None


class Git:
    """Runs git. `inherited` is our own environment, of which git sees a short list."""

    def __init__(
        self,
        *,
        settings: RepositorySettings,
        inherited: Mapping[str, str],
        tasks: TaskOwner,
    ) -> None:
        self._settings = settings
        self._tasks = tasks
        self._slots = asyncio.Semaphore(settings.max_parallel)
        self._environment = _environment(inherited)

    async def clone(
        self, url: str, target: Path, *, checkout: Checkout, token: str | None = None
    ) -> None:
        """Clone into `target`, which must not exist or be empty. It appears complete or not at all.

        Raises CloneError. Cancelling ends git and leaves nothing behind.
        """
        begin = f".{target.name}.cloning-"
        work = target.with_name(begin + secrets.token_hex(4))
        if token:
            IN_USE.add(token)
        async with self._slots:
            try:
                await asyncio.to_thread(_make_room, target.parent, begin)
                async with asyncio.timeout(self._settings.clone_timeout_seconds):
                    await self._clone(
                        url, work, checkout, _with_token(self._environment, url, token)
                    )
                await asyncio.to_thread(work.rename, target)
            except TimeoutError as error:
                seconds = self._settings.clone_timeout_seconds
                raise CloneError(
                    "repository_clone_error", f"the clone took more than {seconds:g} s"
                ) from error
            except OSError as error:
                raise CloneError(
                    "repository_clone_error", f"the clone cannot be stored: {error.strerror}"
                ) from error
            except CloneError as error:
                if token is not None and masked(error.message, token) != error.message:
                    raise CloneError(error.type, masked(error.message, token)) from None
                raise
            finally:
                await asyncio.to_thread(remove_directory, work)

    async def _clone(
        self, url: str, work: Path, checkout: Checkout, environment: Mapping[str, str]
    ) -> None:
        how = []
        if checkout.branch is not None:
            how = [f"--branch={checkout.branch}"]
        elif checkout.commit is not None:
            how = ["--no-checkout"]
        await self._run(["clone", "--quiet", *how, "--", url, str(work)], work, environment)
        if checkout.commit is None:
            return
        inside = ["-C", str(work)]
        detach = [*inside, "checkout", "--quiet", "--detach", checkout.commit]
        try:
            await self._run(detach, work, environment)
        except CloneError:
            # A commit that no branch holds (any more) can still be asked for by its full name.
            fetch = [*inside, "fetch", "--quiet", "origin", checkout.commit]
            try:
                await self._run(fetch, work, environment)
                await self._run(detach, work, environment)
            except CloneError as error:
                raise CloneError("repository_checkout_error", error.message) from error

    async def _run(self, arguments: list[str], work: Path, environment: Mapping[str, str]) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # for its process id
        try:
            process = await asyncio.create_subprocess_exec(
                *guarded([_binary(environment), *arguments], report=nowhere),
                env=dict(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(nowhere,),
                process_group=0,  # Ctrl-C on our terminal is ours
            )
        finally:
            os.close(nowhere)
        assert process.stderr is not None
        reading = self._tasks.start("git", _tail(process.stderr), is_awaited=True)
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=_SIZE_CHECK_SECONDS)
                await self._check_size(work)
            said, code = reading.result(), await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGQUIT)
                await process.wait()
            await cancel_and_wait(reading)
        await self._check_size(work)
        if code != 0:
            raise CloneError(classify(said), _sentence(said, code))

    async def _check_size(self, work: Path) -> None:
        if await asyncio.to_thread(_size, work) > self._settings.max_bytes:
            raise CloneError(
                "repository_clone_error",
                f"the repository is larger than {self._settings.max_bytes} bytes",
            )


def _binary(environment: Mapping[str, str]) -> str:
    found = shutil.which("git", path=environment["PATH"])
    if found is None:
        raise CloneError("repository_clone_error", "git is not installed beside the sidecar")
    return str(Path(found).absolute())


def classify(said: str) -> FailureType:
    """Return the kind of failure from git's words."""
    return next((kind for kind, words in _SAYS if words.search(said)), "repository_clone_error")


def _sentence(said: str, code: int) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))] or lines
    text = "; ".join(dict.fromkeys(telling))[:_MESSAGE_CHARS]
    return text or f"git ended with status {code}"


async def _tail(stream: asyncio.StreamReader) -> str:
    """Read to the end; return the last of it. A server can say as much as it likes."""
    kept = b""
    while chunk := await stream.read(65536):
        kept = (kept + chunk)[-_KEPT_OUTPUT_BYTES:]
    return kept.decode("utf-8", "replace")


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Return git's environment without a token: with no configuration but ours."""
    environment = {name: value for name, value in inherited.items() if name in INHERITED}
    environment.setdefault("PATH", os.defpath)
    if "SSL_CERT_FILE" in environment:
        environment["GIT_SSL_CAINFO"] = environment["SSL_CERT_FILE"]
    return environment | {
        "LC_ALL": "C",
        "HOME": os.devnull,  # no .netrc
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TEMPLATE_DIR": "",  # no hooks
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "http:https",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }


def _with_token(environment: Mapping[str, str], url: str, token: str | None) -> dict[str, str]:
    """Add our configuration, and the token for the URL's host if there is one."""
    options = {
        "core.hooksPath": os.devnull,
        "credential.helper": "",
        "advice.detachedHead": "false",
        "gc.auto": "0",  # it would go on in the background
        "maintenance.auto": "false",
    }
    if token is not None:
        basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        options[f"http.{URL(url).origin()}/.extraHeader"] = f"Authorization: Basic {basic}"
    configured = {"GIT_CONFIG_COUNT": str(len(options))}
    for number, (key, value) in enumerate(options.items()):
        configured |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {**environment, **configured}


def _make_room(parent: Path, begin: str) -> None:
    """Make the directory and remove from it what a clone of an earlier run has left."""
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.iterdir():
        if leftover.name.startswith(begin):
            remove_directory(leftover)


def _size(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # git moves its temporary files while we look
                total += Path(folder, name).lstat().st_size
    return total
