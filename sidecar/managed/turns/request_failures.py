"""The latest failed model request of a turn: it says more exactly than opencode why the turn failed."""

from __future__ import annotations

from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted, RequestFailure

_NO_FAILURES = frozenset({"cancelled", "refusal"})


class LastRequestFailure:
    """Follows the requests of one turn. `failure` is None when the latest one went well.

    A request that began before the failure, such as the one for a title, does not make up for it.
    """

    def __init__(self) -> None:
        self.failure: RequestFailure | None = None
        self._begun_since: set[str] = set()

    def note(self, request: ModelRequestStarted | ModelRequestEnded) -> None:
        """Take the relay's report of a request."""
        if isinstance(request, ModelRequestStarted):
            self.started(request)
        else:
            self.ended(request)

    def started(self, request: ModelRequestStarted) -> None:
        """A request was forwarded."""
        self._begun_since.add(request.request_id)

    def ended(self, request: ModelRequestEnded) -> None:
        """It is over."""
        failure = request.failure
        if failure is not None and failure.kind not in _NO_FAILURES:
            self.failure = failure
            self._begun_since.clear()
        elif failure is None and request.request_id in self._begun_since:
            self.failure = None
