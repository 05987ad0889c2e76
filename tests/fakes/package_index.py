"""A package index and an npm registry on loopback, with one package each: `greet` 1.0."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

WHEEL = "greet-1.0-py3-none-any.whl"
_METADATA = "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n"
_WHEEL_FILES = {
    "greet.py": "def main():\n    print('hello from pip')\n",
    "greet-1.0.dist-info/METADATA": _METADATA,
    "greet-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "greet-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greet:main\n",
}
_NPM_FILES = {
    "package/package.json": json.dumps(
        {
            "name": "greet",
            "version": "1.0.0",
            "bin": {"greet-npm": "greet.js"},
            "scripts": {
                "postinstall": "env > ../../environment-of-setup; sleep 98.765 >/dev/null 2>&1 &"
            },
        }
    ),
    "package/greet.js": "#!/usr/bin/env node\nconsole.log('hello from npm')\n",
}


@dataclass(slots=True)
class PackageIndex:
    """Where it is, and the paths that were asked for."""

    url: str = ""
    asked: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """What makes pip and npm use it."""
        return {"PIP_INDEX_URL": f"{self.url}/simple/", "NPM_CONFIG_REGISTRY": f"{self.url}/npm/"}


@asynccontextmanager
async def package_index() -> AsyncIterator[PackageIndex]:
    """Run it."""
    index, wheel, tarball = PackageIndex(), _wheel(), _tarball()

    async def answer(request: web.Request) -> web.StreamResponse:
        index.asked.append(request.path)
        match request.path:
            case "/simple/greet/":
                link = f'<a href="{index.url}/files/{WHEEL}">{WHEEL}</a>'
                return web.Response(
                    text=f"<html><body>{link}</body></html>", content_type="text/html"
                )
            case "/files/greet-1.0-py3-none-any.whl":
                return web.Response(body=wheel)
            case "/npm/greet":
                return web.json_response(_npm_document(index.url, tarball))
            case "/files/greet-1.0.0.tgz":
                return web.Response(body=tarball)
        return web.Response(status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    index.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield index
    finally:
        await runner.cleanup()


def _wheel() -> bytes:
    records = []
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name, text in _WHEEL_FILES.items():
            file.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
            records.append(f"{name},sha256={digest.decode()},{len(text)}")
        file.writestr("greet-1.0.dist-info/RECORD", "\n".join([*records, ""]))
    return packed.getvalue()


def _tarball() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name, text in _NPM_FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            file.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def _npm_document(url: str, tarball: bytes) -> dict[str, object]:
    digest = base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    package = json.loads(_NPM_FILES["package/package.json"])
    where = {"tarball": f"{url}/files/greet-1.0.0.tgz", "integrity": f"sha512-{digest}"}
    version = {**package, "dist": where, "hasInstallScript": True}
    return {"name": "greet", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
