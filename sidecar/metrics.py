"""The metrics that are counted as things happen; what can be read when asked is in `instruments`.

Names and units follow Prometheus's conventions: seconds, bytes, `_total` for counters. Every label has
few values: methods, route templates and outcomes come from our own code; model ids only from the
catalogue and at most `MAX_MODELS` of them, everything else is `other`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PREFIX = "opencode_sidecar"
MAX_MODELS = 100
"""A gateway with wildcards lists thousands; each model here costs about thirty time series."""
OTHER = "other"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_TURN_BUCKETS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
_MODEL_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Connections(Protocol):
    """What is read of a listener."""

    @property
    def ended(self) -> Mapping[str, int]:
        """How often each bound ended or refused something."""

    @property
    def open_connections(self) -> int:
        """How many are open."""


class Loop(Protocol):
    """What is read of an event loop's watch."""

    stalls: int
    stalled_seconds: float
    longest_seconds: float


class Metrics:
    """Counters and histograms of one sidecar, in a registry of its own.

    `is_known_model` returns whether the catalogue has an id.
    """

    def __init__(
        self, *, registry: CollectorRegistry, is_known_model: Callable[[str], bool]
    ) -> None:
        self.registry = registry
        self._is_known_model = is_known_model
        self._models: set[str] = set()

        def name(rest: str) -> str:
            return f"{PREFIX}_{rest}"

        self._requests = Counter(
            name("http_requests"),
            "HTTP requests answered, streams included; 499: the client went away first.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            name("http_request_duration_seconds"),
            "Time to the end of the answer; event streams are left out.",
            ["method", "route"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._requests_running = Gauge(
            name("http_requests_in_flight"),
            "HTTP requests being answered, open event streams included.",
            registry=registry,
        )
        self._turns = Counter(
            name("turns"),
            "Turns that ended: completed, interrupted, refused or failed, with the session.error's type.",
            ["outcome", "error"],
            registry=registry,
        )
        self._turn_seconds = Histogram(
            name("turn_duration_seconds"),
            "Active time of a turn; waiting for a client's answer does not count.",
            ["outcome"],
            buckets=_TURN_BUCKETS,
            registry=registry,
        )
        self._model_requests = Counter(
            name("model_requests"),
            "Model requests through the relay, by how they ended: ok, or the kind of failure.",
            ["model", "outcome"],
            registry=registry,
        )
        self._model_requests_running = Gauge(
            name("model_requests_in_flight"),
            "Model requests that the relay is forwarding.",
            registry=registry,
        )
        self._model_seconds = Histogram(
            name("model_request_duration_seconds"),
            "From the child's request to the last byte of the model's answer.",
            ["model"],
            buckets=_MODEL_BUCKETS,
            registry=registry,
        )
        self._first_byte_seconds = Histogram(
            name("model_request_first_byte_seconds"),
            "From the child's request to the first byte of the model's answer.",
            ["model"],
            buckets=_MODEL_BUCKETS,
            registry=registry,
        )
        self._tokens = Counter(
            name("model_tokens"),
            "Tokens as the gateway counted them: input (uncached), output, cache_read, cache_write.",
            ["model", "kind"],
            registry=registry,
        )
        self._cost = Counter(
            name("model_cost_usd"),
            "Cost in US dollars, from the catalogue's prices; models without prices cost nothing here.",
            ["model"],
            registry=registry,
        )
        self._restarts = Counter(
            name("child_restarts"),
            "Ends of the child that were followed by a new start or given up, by cause.",
            ["cause"],
            registry=registry,
        )

    def watch_bodies(self, held_bytes: Callable[[], float], refused: Callable[[], float]) -> None:
        """Read these when asked: the bytes of all request bodies in flight, and how many found no room."""
        Gauge(
            f"{PREFIX}_http_body_bytes_in_flight",
            "Request bodies being received or worked on; the bound is SIDECAR_HTTP_BODIES_IN_FLIGHT_BYTES.",
            registry=self.registry,
        ).set_function(held_bytes)
        self._read(
            "http_bodies_refused",
            "Request bodies answered with 529 because too many were in flight.",
            lambda: {"": refused()},
        )

    def watch_connections(self, connections: Connections) -> None:
        """Read these when asked: the connections of the public listener, and what its bounds ended."""
        Gauge(
            f"{PREFIX}_http_connections_open",
            "Connections of the public listener; at most SIDECAR_HTTP_MAX_CONNECTIONS and 32 for probes.",
            registry=self.registry,
        ).set_function(lambda: connections.open_connections)
        self._read(
            "http_bounds_reached",
            "Connections and requests that a bound ended or refused, by bound.",
            lambda: connections.ended,
        )

    def watch_loop(self, loop: Loop) -> None:
        """Read these when asked: how often, and for how long, something held the event loop."""
        self._read(
            "event_loop_stalls",
            "Times that the event loop was held for longer than SIDECAR_LOG_LOOP_STALL_SECONDS.",
            lambda: {"": loop.stalls},
        )
        self._read(
            "event_loop_stalled_seconds",
            "Processor time of those; everything else waited meanwhile.",
            lambda: {"": loop.stalled_seconds},
        )
        Gauge(
            f"{PREFIX}_event_loop_longest_stall_seconds",
            "The longest of those since the start.",
            registry=self.registry,
        ).set_function(lambda: loop.longest_seconds)

    def _read(self, name: str, text: str, read: Callable[[], Mapping[str, float]]) -> None:
        self.registry.register(_ReadCounter(f"{PREFIX}_{name}", text, read))

    def request_began(self) -> None:
        """An HTTP request arrived."""
        self._requests_running.inc()

    def request_ended(
        self, method: str, route: str, *, status: int, seconds: float, is_timed: bool
    ) -> None:
        """It was answered. `route` is the template, never the path; streams are not timed."""
        method = method if method in _METHODS else OTHER
        self._requests_running.dec()
        self._requests.labels(method, route, str(status)).inc()
        if is_timed:
            self._request_seconds.labels(method, route).observe(seconds)

    def turn_ended(self, outcome: str, error: str, seconds: float) -> None:
        """A turn got its terminal event; `error` is empty unless it failed."""
        self._turns.labels(outcome, error).inc()
        self._turn_seconds.labels(outcome).observe(seconds)

    def model_request_began(self) -> None:
        """The relay forwards a request."""
        self._model_requests_running.inc()

    def model_request_ended(
        self, model: str, outcome: str, *, seconds: float, first_byte_seconds: float | None
    ) -> None:
        """It is over. A request that the child gave up says nothing about the model's speed."""
        label = self.model_label(model)
        self._model_requests_running.dec()
        self._model_requests.labels(label, outcome).inc()
        if outcome != "cancelled":
            self._model_seconds.labels(label).observe(seconds)
        if first_byte_seconds is not None:
            self._first_byte_seconds.labels(label).observe(first_byte_seconds)

    def tokens_used(self, model: str, tokens: Mapping[str, int], cost_usd: float) -> None:
        """Count the tokens by kind, and what they cost."""
        label = self.model_label(model)
        for kind, count in tokens.items():
            if count:
                self._tokens.labels(label, kind).inc(count)
        if cost_usd > 0:
            self._cost.labels(label).inc(cost_usd)

    def child_ended(self, cause: str) -> None:
        """The child ended other than by our own stop."""
        self._restarts.labels(cause).inc()

    def model_label(self, model: str) -> str:
        """Return the id if the catalogue has it and there is room for another label, else `other`."""
        if model in self._models:
            return model
        if len(self._models) >= MAX_MODELS or not self._is_known_model(model):
            return OTHER
        self._models.add(model)
        return model

    def exposition(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)


class _ReadCounter(Collector):
    """A counter that is read when asked, with a value per label `bound` (none for the label '')."""

    def __init__(self, name: str, text: str, read: Callable[[], Mapping[str, float]]) -> None:
        self._name = name
        self._text = text
        self._read = read

    def describe(self) -> list[Metric]:
        """Nothing is read before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        values = self._read()
        labels = [] if "" in values else ["bound"]
        family = CounterMetricFamily(self._name, self._text, labels=labels)
        for bound, value in values.items():
            family.add_metric([bound] if labels else [], value)
        yield family


def make_metrics(is_known_model: Callable[[str], bool]) -> Metrics:
    """Return the metrics in a registry of their own, with the process's and the collector's."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return Metrics(registry=registry, is_known_model=is_known_model)
