"""The synchronous client: `AsyncClient` driven by a private loop."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from sidecar.sdk.async_client import AsyncClient, AsyncModels
from sidecar.sdk.loop_thread import LoopThread
from sidecar.sdk.models import AllModels, ModelInfo, ModelPage
from sidecar.sdk.policy import RequestPolicy
from sidecar.sdk.runtime import Runtime


class Client:
    """Lists the models of every runtime in the Anthropic format, from synchronous code.

        with Client() as client:
            for model in client.models.list("cursor"):
                ...

    Arguments, environment variables and errors are those of `AsyncClient`. May be shared by threads, and
    used where an event loop is already running (it then blocks that loop: prefer `AsyncClient` there).
    Make one per process, after any fork. A client that is never closed is closed when it is collected or
    at exit.
    """

    def __init__(
        self,
        *,
        api_keys: Mapping[str, str] | None = None,
        base_urls: Mapping[str, str] | None = None,
        policy: RequestPolicy | None = None,
        runtimes: Iterable[Runtime] = (),
        environ: Mapping[str, str] | None = None,
        use_system_proxy: bool = True,
    ) -> None:
        self._client = AsyncClient(
            api_keys=api_keys,
            base_urls=base_urls,
            policy=policy,
            runtimes=runtimes,
            environ=environ,
            use_system_proxy=use_system_proxy,
        )
        loop_thread = LoopThread(finish=self._client.close)
        self._close = weakref.finalize(self, loop_thread.close)
        self.models = Models(self._client.models, loop_thread, owner=self)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The names of all known runtimes, configured or not."""
        return self._client.runtimes

    def close(self) -> None:
        """Close the connections and end the private loop. Idempotent; from any thread."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} runtimes={','.join(self.runtimes)}>"


class Models:
    """`client.models`; calling it, `client.models()`, gives the same object.

    Holds its client, so that `Client().models.list(...)` is not cut short by the collector.
    """

    def __init__(self, models: AsyncModels, loop_thread: LoopThread, *, owner: Client) -> None:
        self._models = models
        self._loop_thread = loop_thread
        self._owner = owner

    def __call__(self) -> Self:
        return self

    def list(self, runtime: str) -> ModelPage:
        """Return all models of `runtime`; see `AsyncModels.list` for the errors."""
        return self._loop_thread.run(lambda: self._models.list(runtime))

    def retrieve(self, runtime: str, model_id: str) -> ModelInfo:
        """Return one model by its exact id; see `AsyncModels.retrieve` for the errors."""
        return self._loop_thread.run(lambda: self._models.retrieve(runtime, model_id))

    def list_all(self, runtimes: Iterable[str] | None = None) -> AllModels:
        """Ask all runtimes at once and keep failures apart; see `AsyncModels.list_all`."""
        return self._loop_thread.run(lambda: self._models.list_all(runtimes))
