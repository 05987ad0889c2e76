"""Several real sidecars over one PostgreSQL, and a round robin in front as a Kubernetes Service has it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from sidecar.demo_gateway import DemoGateway
from tests.cluster.proxies import RoundRobin
from tests.harness import GATEWAY_KEY, RUNTIME_KEY, http_client
from tests.postgres import PostgresCluster
from tests.raw_client import RawClient
from tests.sidecar_process import SidecarProcess, processes_of
from tests.waiting import until

LEASE_SECONDS = 15.0
"""Short, as a death is noticed at its end; longer than a loaded machine keeps a process from running."""
NO_DEATHS = {"SIDECAR_CLUSTER_LEASE_SECONDS": "120"}
"""Settings where pods end in good order: no lease has to run out, and on a slow machine none may."""
HEARTBEAT_SECONDS = 1.0
_VAULT_KEY = base64.b64encode(b"v" * 32).decode()


@dataclass
class Pod:
    """One sidecar with a data directory of its own."""

    name: str
    data_dir: Path
    process: SidecarProcess
    url: str = ""

    def kill(self) -> None:
        """Kill -9 the sidecar and all that it started, as the end of a container does."""
        self.process.send(signal.SIGKILL)
        for pid in processes_of(self.data_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass
class Bed:
    """The cluster under test. In a value of `settings`, `{pod}` stands for the pod's data directory."""

    directory: Path
    database_url: str
    gateway: DemoGateway
    front: RoundRobin
    settings: dict[str, str] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)

    def environment(self, data_dir: Path) -> dict[str, str]:
        """Return the settings of a pod."""
        return {
            "DATABASE_URL": self.database_url,
            "DATA_DIR": str(data_dir),
            "WORKDIR": str(self.directory / "workspaces"),
            "SIDECAR_WORKSPACE": "shared",
            "HOST": "127.0.0.1",
            "PORT": "0",
            "RUNTIME_API_KEY": RUNTIME_KEY,
            "SIDECAR_VAULT_KEY": _VAULT_KEY,
            "SIDECAR_CLUSTER_KEY": "key-between-the-pods-of-the-tests",
            "SIDECAR_CLUSTER_HOST": "127.0.0.1",
            "SIDECAR_CLUSTER_PORT": "0",
            "SIDECAR_CLUSTER_LEASE_SECONDS": str(LEASE_SECONDS),
            "SIDECAR_CLUSTER_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
            "SIDECAR_CLUSTER_OWNER_WAIT_SECONDS": "60",
            "SIDECAR_ADMIN_PORT": "0",
            "SIDECAR_LOG_FORMAT": "json",
            "SIDECAR_HTTP_BOOKKEEPING_EVENTS": "1",
            "LITELLM_BASE_URL": self.gateway.url,
            "LITELLM_API_KEY": GATEWAY_KEY,
            **{
                name: value.replace("{pod}", str(data_dir)) for name, value in self.settings.items()
            },
        }

    async def start_pod(self, name: str | None = None) -> Pod:
        """Start a pod, on the directory of an earlier one of that name if there was one."""
        name = name or f"pod-{len(self.pods)}"
        data_dir = self.directory / name
        data_dir.mkdir(exist_ok=True)
        process = await SidecarProcess.start(**self.environment(data_dir))
        pod = Pod(name, data_dir, process)
        self.pods.append(pod)
        pod.url = await process.url()
        self.front.add(pod.url)
        return pod

    async def new_session(self, pod: Pod, **agent: Any) -> str:
        """Create a session that this pod owns: busy as it is after its start, it may give new ones away."""
        async with http_client(pod.url) as http:

            async def make() -> str:
                session = await RawClient(http).new_session(**agent)
                with psycopg.connect(self.database_url) as connection:
                    query = "SELECT owner_boot FROM sessions WHERE id = %s"
                    (owner,) = connection.execute(query, (session,)).fetchone() or ("",)
                is_here = owner == pod.process.entries("joined the cluster")[-1]["boot"]
                return session if is_here else ""

            return await until(make)

    async def kill(self, pod: Pod) -> None:
        """Kill -9 a pod, and take it out of the Service."""
        self.front.remove(pod.url)
        pod.kill()
        await pod.process.process.wait()


@asynccontextmanager
async def cluster_of(
    count: int, directory: Path, postgres: PostgresCluster, **settings: str
) -> AsyncIterator[Bed]:
    """Run that many pods whose opencode is ready; whatever happens, nothing is left of them."""
    async with AsyncExitStack() as stack:
        gateway = DemoGateway(key=GATEWAY_KEY)
        await gateway.start()
        stack.push_async_callback(gateway.close)
        front = RoundRobin()
        await front.start()
        stack.push_async_callback(front.close)
        bed = Bed(directory, postgres.url(), gateway, front, settings)
        (directory / "workspaces").mkdir()
        try:
            await asyncio.gather(*(bed.start_pod(f"pod-{n}") for n in range(count)))
            await asyncio.gather(*(pod.process.logged("child ready") for pod in bed.pods))
            yield bed
        finally:
            for pod in bed.pods:
                if pod.process.process.returncode is None:
                    pod.kill()
                    await pod.process.process.wait()
                for pid in processes_of(pod.data_dir):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
