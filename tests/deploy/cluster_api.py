"""A real Kubernetes API server with etcd behind it, compiled from their Go modules (tests/deploy/api_server).

It admits and stores objects; nothing runs what they describe. The programs are kept in .cache/kubernetes of
the checkout: compiling the API server takes tens of minutes.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.image import ROOT
from tests.ports import free_port

_SOURCE = ROOT / "tests" / "deploy" / "api_server"
_PROGRAMS = ROOT / ".cache" / "kubernetes"
_READY_SECONDS = 180.0
_STOP_SECONDS = 30.0
_TOKEN = "token-of-the-administrator"


class ClusterApi:
    """`kubectl` as the administrator of a running API server."""

    def __init__(self, port: int) -> None:
        self._command = [
            *("kubectl", "--server", f"https://127.0.0.1:{port}"),
            *("--insecure-skip-tls-verify", "--token", _TOKEN),
        ]

    def is_ready(self) -> bool:
        """Whether it answers and has finished its start."""
        return self._run("get", "--raw", "/readyz").returncode == 0

    def apply(self, objects: Iterable[dict[str, Any]]) -> tuple[int, str]:
        """Apply objects with strict validation; return kubectl's exit status and what it printed."""
        text = yaml.safe_dump_all(objects)
        done = self._run("apply", "--server-side", "--validate=strict", "--filename=-", text=text)
        return done.returncode, done.stdout + done.stderr

    def delete(self, objects: Iterable[dict[str, Any]]) -> None:
        """Delete objects at once. Raises AssertionError when that fails."""
        text = yaml.safe_dump_all(objects)
        done = self._run("delete", "--force", "--wait=false", "--filename=-", text=text)
        assert done.returncode == 0, done.stdout + done.stderr

    def wait(self, *arguments: str) -> None:
        """Run `kubectl wait`. Raises AssertionError when it gives up."""
        done = self._run("wait", "--timeout=60s", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def _run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [*self._command, *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@contextmanager
def cluster_api(folder: Path) -> Iterator[ClusterApi]:
    """Start etcd and the API server; both are gone afterwards. Raises AssertionError with the log's end."""
    key = folder / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    tokens = folder / "tokens"
    tokens.write_text(f"{_TOKEN},admin,1,system:masters\n")
    client, peer, port = free_port(), free_port(), free_port()
    etcd = f"http://127.0.0.1:{client}"
    with ExitStack() as stack:
        start = [*("--data-dir", folder / "etcd"), *("--listen-peer-urls", _loopback(peer))]
        start += ["--listen-client-urls", etcd, "--advertise-client-urls", etcd]
        stack.enter_context(_running(_program("etcd"), start, folder / "etcd.log"))
        start = [
            *("--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--secure-port", str(port)),
            *("--cert-dir", folder / "certificates", "--token-auth-file", tokens),
            *("--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.0.0.0/24"),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", key, "--service-account-signing-key-file", key),
            # No controller makes an account's objects here.
            *("--disable-admission-plugins", "ServiceAccount"),
        ]
        log = folder / "kube-apiserver.log"
        stack.enter_context(_running(_program("kube-apiserver"), start, log))
        api, deadline = ClusterApi(port), time.monotonic() + _READY_SECONDS
        while not api.is_ready():
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)
        yield api


def _program(name: str) -> Path:
    """Return the compiled program; compile it when there is none."""
    go = shutil.which("go", path="/usr/local/go/bin:/usr/local/bin:/usr/bin")
    path = _PROGRAMS / name
    if not path.exists():
        assert go is not None, "Go is needed to compile the API server"
        command = [go, "build", "-o", path, f"./{name}"]
        subprocess.run(command, cwd=_SOURCE, check=True)
    return path


@contextmanager
def _running(program: Path, arguments: list[str | Path], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _loopback(port: int) -> str:
    return f"http://127.0.0.1:{port}"
