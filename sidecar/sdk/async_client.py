"""The asynchronous client. The synchronous one drives this same code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import aiohttp

from sidecar.errors import SettingsError
from sidecar.proxies import Proxies
from sidecar.sdk.endpoints import Credentials
from sidecar.sdk.errors import (
    ClientClosedError,
    InvalidSettingError,
    MissingKeyError,
    ModelsError,
)
from sidecar.sdk.models import AllModels, ModelInfo, ModelPage
from sidecar.sdk.policy import RequestPolicy
from sidecar.sdk.registry import Registry
from sidecar.sdk.runtime import Runtime
from sidecar.sdk.transport import Upstream
from sidecar.wire.http_limits import MAX_HEADER_BYTES

T = TypeVar("T")


class AsyncClient:
    """Lists the models of every runtime in the Anthropic format.

        async with AsyncClient() as client:
            page = await client.models.list("cursor")

    `api_keys` and `base_urls` map a name to a value: `anthropic`, `cursor`, `gemini`, `opencode` (the
    sidecar), `litellm` (the gateway, for the opencode runtime without a sidecar). What is not given
    comes from `environ`, by default the process's environment, read once here:

        anthropic   ANTHROPIC_API_KEY                 ANTHROPIC_BASE_URL
        cursor      CURSOR_API_KEY                    CURSOR_BASE_URL
        gemini      GEMINI_API_KEY                    GEMINI_BASE_URL
        opencode    SIDECAR_BASE_URL (required unless a key is given), SIDECAR_API_KEY
        litellm     LITELLM_BASE_URL (required), LITELLM_API_KEY

    `policy` bounds time, retries and pages. `runtimes` adds adapters or replaces built-in ones.
    `session` is used and not closed; without it the client makes its own at the first call, which goes
    through the proxies that `environ` names (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`; never to loopback)
    unless `use_system_proxy` is False. A client belongs to the loop of its first call. Raises
    InvalidSettingError for names in the mappings that no adapter declares, and for a proxy that is no
    HTTP proxy.
    """

    def __init__(
        self,
        *,
        api_keys: Mapping[str, str] | None = None,
        base_urls: Mapping[str, str] | None = None,
        policy: RequestPolicy | None = None,
        runtimes: Iterable[Runtime] = (),
        environ: Mapping[str, str] | None = None,
        session: aiohttp.ClientSession | None = None,
        use_system_proxy: bool = True,
    ) -> None:
        self._credentials = Credentials(
            api_keys=api_keys or {},
            base_urls=base_urls or {},
            environ=dict(os.environ) if environ is None else environ,
        )
        self._registry = Registry(runtimes)
        self._registry.check_endpoint_names(self._credentials.named)
        self._policy = policy or RequestPolicy()
        self._session = session
        self._is_own_session = session is None
        self._proxies = _proxies(environ) if use_system_proxy and session is None else Proxies({})
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self.models = AsyncModels(self)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The names of all known runtimes, configured or not."""
        return self._registry.names()

    async def close(self) -> None:
        """Close the connections. Idempotent; later calls raise ClientClosedError."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None and self._is_own_session:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} runtimes={','.join(self.runtimes)}>"

    async def _ask(self, name: str, question: Callable[[Runtime, Upstream], Awaitable[T]]) -> T:
        """Put a question to one runtime; whatever goes wrong comes out as a ModelsError."""
        runtime = self._registry.get(name)
        connection = self._credentials.connect(name, runtime.endpoints)
        upstream = Upstream(
            runtime=name,
            connection=connection,
            session=self._open_session(),
            policy=self._policy,
        )
        try:
            return await question(runtime, upstream)
        except ModelsError:
            raise
        except Exception as error:
            if self._is_closed:
                raise ClientClosedError("the client was closed during the call") from error
            raise ModelsError(
                f"the adapter failed with {type(error).__name__}", runtime=name
            ) from error

    def _open_session(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise ClientClosedError("the client is closed")
        loop = asyncio.get_running_loop()
        if self._loop not in {None, loop}:
            raise ClientClosedError(
                "an AsyncClient belongs to the event loop of its first call; make one per loop"
            )
        self._loop = loop
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=self._proxies.middlewares,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
            )
        return self._session


def _proxies(environ: Mapping[str, str] | None) -> Proxies:
    try:
        return Proxies.from_environment(os.environ if environ is None else environ)
    except SettingsError as error:
        raise InvalidSettingError(f"{error.message}; or pass use_system_proxy=False") from error


class AsyncModels:
    """`client.models`; calling it, `client.models()`, gives the same object."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def __call__(self) -> Self:
        return self

    async def list(self, runtime: str) -> ModelPage:
        """Return all models of `runtime`, every page walked.

        Raises UnknownRuntimeError, MissingKeyError, and what the runtime's API causes:
        AuthenticationError, PermissionDeniedError, RateLimitedError, TimedOutError, UnavailableError,
        BadAnswerError, all of them ModelsError. A list without models is an empty page, not an error.
        """
        return await self._client._ask(  # noqa: SLF001  # one class in two
            runtime, lambda adapter, upstream: adapter.list_models(upstream)
        )

    async def retrieve(self, runtime: str, model_id: str) -> ModelInfo:
        """Return one model by its exact id. Raises NotFoundError, and what `list` raises."""
        return await self._client._ask(  # noqa: SLF001  # one class in two
            runtime, lambda adapter, upstream: adapter.retrieve_model(upstream, model_id)
        )

    async def list_all(self, runtimes: Iterable[str] | None = None) -> AllModels:
        """Ask all runtimes (or those named) at once and keep failures apart.

        Takes as long as the slowest one. Runtimes that are not configured are reported, not asked.
        Raises no error of a single runtime.
        """
        names = tuple(dict.fromkeys(self._client.runtimes if runtimes is None else runtimes))
        pages: dict[str, ModelPage] = {}
        errors: dict[str, ModelsError] = {}
        unconfigured: dict[str, MissingKeyError] = {}
        for name, outcome in zip(
            names, await asyncio.gather(*(self._outcome(name) for name in names)), strict=True
        ):
            if isinstance(outcome, ModelPage):
                pages[name] = outcome
            elif isinstance(outcome, MissingKeyError):
                unconfigured[name] = outcome
            else:
                errors[name] = outcome
        return AllModels(pages, errors, unconfigured)

    async def _outcome(self, runtime: str) -> ModelPage | ModelsError:
        try:
            return await self.list(runtime)
        except ClientClosedError:
            raise
        except ModelsError as error:
            return error
