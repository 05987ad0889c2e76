"""The one error tree.

Why our own: aiohttp's, sqlite's and opencode's failures say nothing a client can act on. Each is
translated where it enters (raise ... from), and only `sidecar.http.middleware` turns these into the
Anthropic envelope `{"type":"error","error":{"type","message"},"request_id"}`.

    SidecarError                     500 api_error
    +- InvalidRequestError           400 invalid_request_error
    +- AuthenticationError           401 authentication_error
    +- PermissionDeniedError         403 permission_error
    +- NotFoundError                 404 not_found_error
    +- MethodNotAllowedError         405 invalid_request_error, allow
    +- ConflictError                 409 conflict_error         (never retried by the SDKs)
    +- RequestTimeoutError           408 timeout_error          (the client did not send it in time)
    +- RequestTooLargeError          413 request_too_large
    +- RateLimitedError              429 rate_limit_error
    +- StoreUnavailableError         503 api_error, retry-after (the disk is full, the database locked)
    +- TimedOutError                 504 timeout_error
    +- OverloadedError               529 overloaded_error
    +- GatewayError                  502 api_error              (the LiteLLM gateway misbehaved)
    |  +- GatewayUnavailableError    503 api_error
    |  +- GatewayAuthenticationError 502 api_error              (our key was refused)
    +- ChildError                    502 api_error              (opencode misbehaved)
    |  +- ChildUnavailableError      503 api_error, retry-after
    +- RuntimeListError              502 api_error              (another runtime's API misbehaved)
    |  +- RuntimeListUnavailableError 503 api_error, retry-after
    +- WebError                      shown to the agent whose tool it was, never sent
    +- OwnerUnavailableError         503 api_error, retry-after (the pod of a session is away)
    +- SettingsError                 start-up only, never sent

Messages must never contain keys: they reach clients and logs.
"""

from __future__ import annotations

from collections.abc import Iterable


class SidecarError(Exception):
    """Root of everything the sidecar raises on purpose.

    `field` names the offending request field, `error_code` is Anthropic's `details.error_code`,
    `retry_after_seconds` becomes the `retry-after` header.
    """

    status = 500
    type = "api_error"
    should_retry: bool | None = None
    """Sent as `x-should-retry`; the SDKs let it override their rule for the status."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        error_code: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.error_code = error_code
        self.retry_after_seconds = retry_after_seconds


class InvalidRequestError(SidecarError):
    """The request is wrong; the message names the field and the fix."""

    status = 400
    type = "invalid_request_error"


class AuthenticationError(SidecarError):
    """No key, or not ours."""

    status = 401
    type = "authentication_error"


class PermissionDeniedError(SidecarError):
    """The key is valid, but does not allow this action."""

    status = 403
    type = "permission_error"


class NotFoundError(SidecarError):
    """Unknown id or unknown route."""

    status = 404
    type = "not_found_error"


class MethodNotAllowedError(SidecarError):
    """The path is served, but not with this method; `allowed` are those with which it is."""

    status = 405
    type = "invalid_request_error"

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not offered here; allowed: {self.allowed}")


class ConflictError(SidecarError):
    """A conflict that a retry cannot resolve; `x-should-retry` says so to the SDKs."""

    status = 409
    type = "conflict_error"
    should_retry = False


class RequestTimeoutError(SidecarError):
    """The client stopped sending its request."""

    status = 408
    type = "timeout_error"


class RequestTooLargeError(SidecarError):
    """The body is larger than its route takes, or becomes more values than a body may have."""

    status = 413
    type = "request_too_large"


class RateLimitedError(SidecarError):
    """A bound of ours was reached."""

    status = 429
    type = "rate_limit_error"


class TooManyStoredError(RateLimitedError):
    """No more resources of that kind may be stored. `x-should-retry: false`: another try would fail."""

    should_retry = False


class StoreUnavailableError(SidecarError):
    """The store could not read or write; nothing of the request was done."""

    status = 503


class TimedOutError(SidecarError):
    """A bound inside the sidecar was reached before an answer."""

    status = 504
    type = "timeout_error"


class OverloadedError(SidecarError):
    """We refuse work rather than queue it without bound."""

    status = 529
    type = "overloaded_error"


class GatewayError(SidecarError):
    """The gateway answered something we cannot use."""

    status = 502


class GatewayUnavailableError(GatewayError):
    """The gateway cannot be reached, and nothing good is in the cache."""

    status = 503


class GatewayAuthenticationError(GatewayError):
    """The gateway refused our key."""


class ChildError(SidecarError):
    """opencode answered something we cannot use.

    `upstream_status` is the child's HTTP status, 0 when there was no answer.
    """

    status = 502

    def __init__(self, message: str, *, upstream_status: int = 0, **kwargs: object) -> None:
        super().__init__(message, **kwargs)  # type: ignore[arg-type]  # forwarded keywords
        self.upstream_status = upstream_status


class ChildUnavailableError(ChildError):
    """opencode is down, starting, or draining."""

    status = 503


class ChildSlowError(ChildUnavailableError):
    """opencode did not answer a request in time; it may have taken it all the same."""


class RuntimeListError(SidecarError):
    """Another runtime (Anthropic, Cursor) refused to list its models, or its answer is not a list."""

    status = 502


class RuntimeListUnavailableError(RuntimeListError):
    """Another runtime cannot be reached, and no list of it was ever seen."""

    status = 503


class WebError(SidecarError):
    """A page cannot be fetched, or must not be."""

    status = 502


class OwnerUnavailableError(SidecarError):
    """The pod that serves the session is gone, and no other may go on with it yet."""

    status = 503


class SettingsError(SidecarError):
    """The settings cannot be used; the message names the variable and the fix."""
