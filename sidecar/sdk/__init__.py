"""One list of models for every runtime, in the Anthropic format. Needs no server.

    from sidecar.sdk import Client

    with Client() as client:
        page = client.models.list("cursor")       # or client.models().list("cursor")
        print([model.id for model in page])

See docs/sdk.md for keys, errors and how to add a runtime.
"""

from sidecar.sdk.async_client import AsyncClient, AsyncModels
from sidecar.sdk.capabilities import ModelCapabilities
from sidecar.sdk.client import Client, Models
from sidecar.sdk.cursor import CursorRuntime
from sidecar.sdk.endpoints import Endpoint, basic, bearer, header
from sidecar.sdk.errors import (
    AuthenticationError,
    BadAnswerError,
    ClientClosedError,
    InvalidSettingError,
    MissingKeyError,
    ModelsError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RequestRefusedError,
    TimedOutError,
    UnavailableError,
    UnknownRuntimeError,
)
from sidecar.sdk.models import AllModels, ModelInfo, ModelPage
from sidecar.sdk.paging import Fetched, Walked, make_page, walk
from sidecar.sdk.policy import RequestPolicy
from sidecar.sdk.runtime import Runtime
from sidecar.sdk.transport import Upstream

__all__ = [
    "AllModels",
    "AsyncClient",
    "AsyncModels",
    "AuthenticationError",
    "BadAnswerError",
    "Client",
    "ClientClosedError",
    "CursorRuntime",
    "Endpoint",
    "Fetched",
    "InvalidSettingError",
    "MissingKeyError",
    "ModelCapabilities",
    "ModelInfo",
    "ModelPage",
    "Models",
    "ModelsError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestPolicy",
    "RequestRefusedError",
    "Runtime",
    "TimedOutError",
    "UnavailableError",
    "UnknownRuntimeError",
    "Upstream",
    "Walked",
    "basic",
    "bearer",
    "header",
    "make_page",
    "walk",
]
