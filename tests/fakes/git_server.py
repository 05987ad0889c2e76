"""A git host over HTTP: `git http-backend` behind one handler, with public and private repositories.

/public/<name>.git      anyone
/private/<name>.git     Basic auth with the token as password, else 401
/forbidden/<name>.git   403 for everyone
/telltale/<name>.git    403 with the token that it was sent, in many shapes
/silent/<name>.git      never answers
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
from pathlib import Path

from aiohttp import web

from tests.fakes.echoes import shapes_of

GIT_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.com",
    "GIT_COMMITTER_NAME": "Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.com",
    # The same commits in every repository, however long their making takes.
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/dev/null",
}


def git(*arguments: str, cwd: Path | None = None) -> str:
    """Run git with a neutral configuration; return what it printed."""
    return subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        env=GIT_ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def make_repository(root: Path) -> dict[str, str]:
    """Make a bare repository `root` with branches main and side; return the commits by branch."""
    work = root.with_suffix(".work")
    git("init", "--quiet", "--initial-branch=main", str(work))
    commits = {}
    for branch in ("main", "side"):
        if branch != "main":
            git("checkout", "--quiet", "-b", branch, cwd=work)
        (work / "README.md").write_text(f"branch {branch}\n")
        git("add", ".", cwd=work)
        git("commit", "--quiet", "-m", f"on {branch}", cwd=work)
        commits[branch] = git("rev-parse", "HEAD", cwd=work)
    git("checkout", "--quiet", "main", cwd=work)
    git("clone", "--quiet", "--bare", str(work), str(root))
    return commits


class GitServer:
    """Serves the repositories below `root`. `authorizations` collects the headers it was sent."""

    def __init__(self, root: Path, *, token: str) -> None:
        self.authorizations: list[str] = []
        self.asked = asyncio.Event()
        self._root = root
        self._basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{kind}/{rest:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stop."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked.set()
        sent = request.headers.get("authorization", "")
        self.authorizations.append(sent)
        kind = request.match_info["kind"]
        if kind == "silent":
            await asyncio.Event().wait()
        if kind == "telltale":
            token = base64.b64decode(sent.removeprefix("Basic ")).decode().rpartition(":")[2]
            return web.Response(status=403, text="\n".join(shapes_of(token)))
        if kind == "forbidden":
            return web.Response(status=403, text="you may not")
        if kind == "private" and sent != f"Basic {self._basic}":
            return web.Response(status=401, headers={"www-authenticate": 'Basic realm="git"'})
        return await self._backend(request)

    async def _backend(self, request: web.Request) -> web.Response:
        process = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            env=GIT_ENVIRONMENT
            | {
                "GIT_PROJECT_ROOT": str(self._root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": request.path,
                "QUERY_STRING": request.query_string,
                "REQUEST_METHOD": request.method,
                "CONTENT_TYPE": request.headers.get("content-type", ""),
                "HTTP_CONTENT_ENCODING": "",  # aiohttp has decompressed it
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        answer, _ = await process.communicate(await request.read())
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        return web.Response(status=status, headers=headers, body=body)
