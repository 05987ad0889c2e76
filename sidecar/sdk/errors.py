"""Why a list of models could not be had, typed by cause.

Why a tree of its own beside `sidecar.errors`: that one says how the sidecar answers its clients, this
one says what a vendor's API did to us. Callers of the SDK need no server.

    ModelsError
    +- AuthenticationError     the key is missing at the vendor, wrong or expired (401, some 400s)
    +- PermissionDeniedError   the key is right, listing models is not allowed to it (403)
    +- NotFoundError           no such model, or no such route at that base URL (404)
    +- RequestRefusedError     any other 4xx
    +- RateLimitedError        429; `retry_after_seconds` when the vendor said so
    +- UnavailableError        5xx, connection refused, DNS, TLS
    |  +- TimedOutError        a bound of `RequestPolicy` was reached
    +- BadAnswerError          not JSON, HTML with 200, a redirect, an unknown shape, too large
    +- UnknownRuntimeError     no adapter has that name; `known` lists those that exist
    +- MissingKeyError         nothing is configured for this runtime; the message names the variables
    +- InvalidSettingError     an argument or a variable cannot be used
    +- ClientClosedError       the client was closed

Keys never appear in messages, in reprs, or in the chain of causes.
"""

from __future__ import annotations


class ModelsError(Exception):
    """Root of everything the SDK raises on purpose.

    `runtime` is the runtime asked, `status` the HTTP status (None without an answer), `request_id` the
    vendor's id of the request, `retry_after_seconds` the wait the vendor asked for, `error_code` the code
    beside an Anthropic-format message (`error.details.error_code`). `is_retryable` says
    whether the same call may succeed later; the SDK has then already used up its own retries.
    """

    is_retryable = False

    def __init__(
        self,
        message: str,
        *,
        runtime: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_seconds: float | None = None,
        error_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.runtime = runtime
        self.status = status
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds
        self.error_code = error_code

    def __str__(self) -> str:
        facts = []
        if self.status is not None:
            facts.append(f"HTTP {self.status}")
        if self.request_id is not None:
            facts.append(f"request {self.request_id}")
        prefix = f"{self.runtime}: " if self.runtime else ""
        suffix = f" ({', '.join(facts)})" if facts else ""
        return f"{prefix}{self.message}{suffix}"


class AuthenticationError(ModelsError):
    """The vendor refused the key."""


class PermissionDeniedError(ModelsError):
    """The vendor knows the key and does not let it list models."""


class NotFoundError(ModelsError):
    """No such model; the message names near matches where the list is at hand."""


class RequestRefusedError(ModelsError):
    """A 4xx without a class of its own."""


class RateLimitedError(ModelsError):
    """Too many requests, or a quota is used up."""

    is_retryable = True


class UnavailableError(ModelsError):
    """The vendor failed or cannot be reached."""

    is_retryable = True


class TimedOutError(UnavailableError):
    """No complete answer within the bounds of `RequestPolicy`."""


class BadAnswerError(ModelsError):
    """The answer is not a list of models; most often the base URL points at something else."""


class UnknownRuntimeError(ModelsError):
    """No adapter has that name. `known` lists the names that exist."""

    def __init__(
        self, message: str, *, runtime: str | None = None, known: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, runtime=runtime)
        self.known = known


class MissingKeyError(ModelsError):
    """The runtime is known and not configured; the message says which variable or argument to set."""


class InvalidSettingError(ModelsError):
    """A key, a base URL, a name or a registered adapter cannot be used."""


class ClientClosedError(ModelsError):
    """The client was used after `close()`, or closed while the call ran."""
