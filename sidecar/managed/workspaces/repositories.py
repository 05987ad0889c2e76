"""`github_repository` resources: planned at session create, cloned before the next turn.

A repository that cannot be cloned does not end the session: each turn tries again and reports it to the
client, as the official SDK documents for the repository errors. What an agent then does to its copy is
its own business: a clone happens once.

git is not confined, and a process that an earlier turn left behind may be at work in the session's directory:
it could change the configuration of a clone that is being made, or lead it elsewhere by a link. So a clone is
made beside the sessions' directories, where no agent may write, and moved in when it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import structlog
from yarl import URL

from sidecar.errors import InvalidRequestError
from sidecar.ids import new_id
from sidecar.managed.common import timestamps
from sidecar.managed.turns.failures import Failure
from sidecar.managed.vaults.encryption import DecryptionError, SecretBox
from sidecar.managed.workspaces.directories import remove_directory
from sidecar.managed.workspaces.git import Checkout, CloneError, Git
from sidecar.store.interface import Connection, Row, Store
from sidecar.wire.sessions import GithubRepository

HOSTED_ROOT = "/workspace"
"""Where the hosted API mounts repositories. Here the session's directory takes its place."""

_STAGING = ".cloning"
_LEADS_OUT = "the mount path leads through a link, or through what is no directory"
_IS_TAKEN = "the mount path holds other files already"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """The resources of a session to be: how they are answered, and their rows."""

    answers: list[dict[str, Any]]
    secrets: Sequence[bytes | None]

    def insert(self, connection: Connection, session_id: str) -> None:
        """Write the rows; the session's row must be there."""
        connection.executemany(
            "INSERT INTO session_resources (id, session_id, body, secret) VALUES (?, ?, ?, ?)",
            [
                (answer["id"], session_id, json.dumps(answer), secret)
                for answer, secret in zip(self.answers, self.secrets, strict=True)
            ],
        )


class Repositories:
    """Plans and clones the repositories of sessions."""

    def __init__(self, *, database: Store, secret_box: SecretBox, git: Git) -> None:
        self._database = database
        self._secret_box = secret_box
        self._git = git

    def plan(self, requested: Sequence[GithubRepository]) -> Plan:
        """Check what a client wants mounted. Raises InvalidRequestError naming the resource."""
        now = timestamps.now()
        answers: list[dict[str, Any]] = []
        secrets: list[bytes | None] = []
        taken: dict[PurePosixPath, int] = {}
        for number, wanted in enumerate(requested):
            _check_url(wanted.url, number)
            mount_path = wanted.mount_path or f"{HOSTED_ROOT}/{_repository_name(wanted.url)}"
            _claim(relative_path(mount_path, number), number, taken)
            resource_id = new_id("sesrsc")
            answer = {
                "id": resource_id,
                "type": "github_repository",
                "url": wanted.url,
                "mount_path": mount_path,
                "checkout": wanted.checkout.model_dump() if wanted.checkout else None,
                "created_at": now,
                "updated_at": now,
            }
            answers.append(answer)
            secrets.append(self.encrypt(wanted.authorization_token, resource_id))
        return Plan(answers, secrets)

    def encrypt(self, token: str | None, resource_id: str) -> bytes | None:
        """Return the token's stored form."""
        return self._secret_box.encrypt(token, bound_to=resource_id) if token is not None else None

    async def tokens_of(self, session_id: str) -> list[str]:
        """Return the session's tokens; those that cannot be decrypted are left out."""
        query = (
            "SELECT id, secret FROM session_resources WHERE session_id = ? AND secret IS NOT NULL"
        )
        rows = await self._database.read(lambda c: c.execute(query, (session_id,)).fetchall())
        tokens = []
        for row in rows:
            with contextlib.suppress(DecryptionError):  # cloning reports it
                tokens.append(self._secret_box.decrypt(row["secret"], bound_to=row["id"]))
        return tokens

    async def materialise(self, session_id: str, directory: Path) -> list[Failure]:
        """Clone what is not there yet into the session's directory; return what failed.

        Idempotent: what was cloned once is left alone, what failed is tried again at the next call.
        """
        rows = await self._database.read(lambda connection: _missing(connection, session_id))
        failures = []
        for row in rows:
            resource = json.loads(row["body"])
            try:
                await self._clone(resource, row["secret"], directory)
            except CloneError as error:
                _log.warning(
                    "repository not cloned",
                    session=session_id,
                    resource=row["id"],
                    kind=error.type,
                    error=error.message,
                )
                failures.append(
                    Failure(
                        error.type,
                        f"{resource['url']}: {error.message}",
                        extra=(("repository_url", resource["url"]),),
                    )
                )
            else:
                await self._mark_done(row["id"])
        return failures

    async def _clone(self, resource: dict[str, Any], secret: bytes | None, directory: Path) -> None:
        target = directory / relative_path(resource["mount_path"])
        token = None
        if secret is not None:
            try:
                token = self._secret_box.decrypt(secret, bound_to=resource["id"])
            except DecryptionError as error:
                raise CloneError("repository_authentication_error", error.message) from error
        await asyncio.to_thread(_check_target, target, directory)
        wanted = resource["checkout"] or {}
        checkout = Checkout(branch=wanted.get("name"), commit=wanted.get("sha"))
        staging = staging_of(directory)
        await asyncio.to_thread(remove_directory, staging)  # of a killed sidecar
        try:
            made = staging / "made"
            await self._git.clone(resource["url"], made, checkout=checkout, token=token)
            await asyncio.to_thread(
                _move_in, made, directory, relative_path(resource["mount_path"])
            )
        finally:
            await asyncio.to_thread(remove_directory, staging)
        _log.info("repository cloned", resource=resource["id"], directory=str(target))

    async def _mark_done(self, resource_id: str) -> None:
        def write(connection: Connection) -> None:
            connection.execute(
                "UPDATE session_resources SET materialised_at = ? WHERE id = ?",
                (timestamps.now(), resource_id),
            )

        await self._database.write(write)


def staging_of(directory: Path) -> Path:
    """Return where the clones of the session with that directory are made, on the same file system."""
    return directory.parent / _STAGING / directory.name


def relative_path(mount_path: str, number: int = 0) -> PurePosixPath:
    """Return where a mount path is, below the session's directory. Raises InvalidRequestError.

    `/workspace/app` is `app`; any other `/srv/app` is `srv/app`.
    """
    parts = mount_path.strip("/").split("/")
    if parts[0] == HOSTED_ROOT.strip("/"):
        parts = parts[1:]
    if not parts or any(part in {"", ".", "..", ".git"} or "\0" in part for part in parts):
        raise InvalidRequestError(
            f"resources.{number}.mount_path: must be a plain path below {HOSTED_ROOT}, such as "
            f"{HOSTED_ROOT}/app",
            field="resources",
        )
    return PurePosixPath(*parts)


def _claim(path: PurePosixPath, number: int, taken: dict[PurePosixPath, int]) -> None:
    for other, owner in taken.items():
        if path == other or path in other.parents or other in path.parents:
            raise InvalidRequestError(
                f"resources.{number}.mount_path: is the same as, or inside, that of "
                f"resources.{owner}; give each its own",
                field="resources",
            )
    taken[path] = number


def _check_url(text: str, number: int) -> None:
    try:
        url = URL(text)
        is_good = bool(url.host)
    except ValueError:
        is_good = False
    if not is_good:
        raise InvalidRequestError(
            f"resources.{number}.url: must be an http(s) URL with a host",
            field="resources",
        )


def _repository_name(url: str) -> str:
    name = URL(url).path.rstrip("/").rpartition("/")[2].removesuffix(".git")
    return name if _PLAIN_NAME.match(name) and name.strip(".") else "repository"


def _check_target(target: Path, directory: Path) -> None:
    """Refuse, before anything is cloned, a place that the agent has taken or led elsewhere by a link."""
    if not target.parent.resolve().is_relative_to(directory.resolve()):
        raise CloneError("repository_clone_error", _LEADS_OUT)
    if target.is_symlink() or (target.exists() and (target.is_file() or any(target.iterdir()))):
        raise CloneError("repository_clone_error", _IS_TAKEN)


def _move_in(made: Path, directory: Path, path: PurePosixPath) -> None:
    """Move a clone to its place below the directory. No link is followed: an agent could have put it there
    since the place was checked.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        parent = os.open(directory, flags)
        try:
            for step in path.parts[:-1]:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(step, dir_fd=parent)
                parent, left = os.open(step, flags, dir_fd=parent), parent
                os.close(left)
            os.rename(made, path.name, dst_dir_fd=parent)
        finally:
            os.close(parent)
    except OSError as error:
        text = f"the clone cannot be stored: {error.strerror}"
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            text = _LEADS_OUT
        elif error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
            text = _IS_TAKEN
        raise CloneError("repository_clone_error", text) from error


def _missing(connection: Connection, session_id: str) -> list[Row]:
    return connection.execute(
        "SELECT id, body, secret FROM session_resources "
        "WHERE session_id = ? AND materialised_at IS NULL ORDER BY id",
        (session_id,),
    ).fetchall()
