"""What the metrics read when they are asked, and how the counted ones hear of what happens.

Reading at scrape time costs the hot paths nothing, and a gauge that is read cannot drift. Everything here
runs on the event loop's thread: `/metrics` is answered by our own listener.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.gateway.catalogue import Catalogue, CatalogueEntry
from sidecar.gateway.relay import Relay
from sidecar.gateway.relay_events import RelayEvent
from sidecar.managed.events.log import EventLog
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.turns.state import TurnEnded
from sidecar.metrics import PREFIX, Metrics
from sidecar.model_requests import ModelRequestEnded, Usage
from sidecar.opencode.child import Child, ChildExit, State
from sidecar.opencode.config_file import ConfigFile
from sidecar.opencode.events import EventPump
from sidecar.opencode.instances import Instances
from sidecar.opencode.pulse import OVERWORKED, SILENT
from sidecar.store.interface import Store

_CAUSES = {
    "exited": "crashed",
    SILENT: "unresponsive",
    OVERWORKED: "overworked",
    "start time-out": "start_timeout",
    "cannot start": "cannot_start",
    "poisoned directory": "poisoned",
}
"""Reason of a child's end -> `cause`; sizes are recognised by their words, all else was asked for."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A number of a part that is not always there."""

    name: str
    text: str
    value: float
    is_counter: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What is read."""

    supervisor: Child
    pump: EventPump
    catalogue: Catalogue
    config_file: ConfigFile
    instances: Instances
    engine: SessionEngine
    log: EventLog
    relay: Relay
    database: Store
    is_demo_gateway: bool
    cluster: Callable[[], Iterable[Reading]] | None = None
    """What a pod of several has besides."""
    walls: Callable[[], Iterable[Reading]] | None = None
    """How far agents are confined, and what got through."""
    console: Callable[[], Iterable[Reading]] | None = None
    """Attempts to sign in to the console."""
    stored: Callable[[], Iterable[Reading]] | None = None
    """How much is stored of what has a bound."""
    tools: Callable[[], Iterable[Reading]] | None = None
    """What agents fetched and searched, and the packages installed for them."""


def connect(metrics: Metrics, sources: Sources) -> None:
    """Let the metrics hear of turns, model requests and ends of the child, and read the rest."""
    metrics.registry.register(StateCollector(sources))

    def on_turn(ended: TurnEnded) -> None:
        metrics.turn_ended(ended.outcome, ended.error, ended.active_seconds)

    def on_request(event: RelayEvent) -> None:
        if not isinstance(event, ModelRequestEnded):
            metrics.model_request_began()
            return
        metrics.model_request_ended(
            event.model,
            event.failure.kind if event.failure else "ok",
            seconds=event.seconds,
            first_byte_seconds=event.first_byte_seconds,
        )
        if event.usage is not None:
            snapshot = sources.catalogue.snapshot
            entry = snapshot.entries.get(event.model) if snapshot else None
            cost = cost_usd(entry, event.usage) if entry else 0.0
            metrics.tokens_used(event.model, tokens(event.usage), cost)

    def on_exit(ended: ChildExit) -> None:
        if ended.reason != "stopped":
            metrics.child_ended(cause(ended.reason))

    sources.engine.on_turn_end(on_turn)
    sources.supervisor.on_exit(on_exit)
    sources.relay.listen(on_request)


def cause(reason: str) -> str:
    """Return the label for a reason of the supervisor."""
    if reason.startswith("resident size"):
        return "memory"
    if reason.endswith("memory maps"):
        return "maps"
    return _CAUSES.get(reason, "requested")


def tokens(usage: Usage) -> dict[str, int]:
    """Return the tokens by the `kind` label."""
    return {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cache_read": usage.cache_read_input_tokens,
        "cache_write": usage.cache_creation_input_tokens,
    }


def cost_usd(entry: CatalogueEntry, usage: Usage) -> float:
    """Return what the tokens cost by the entry's prices; an unknown cache price is the input price."""
    base = entry.input_cost_per_token or 0.0

    def price(known: float | None) -> float:
        return base if known is None else known

    return (
        usage.input_tokens * base
        + usage.output_tokens * (entry.output_cost_per_token or 0.0)
        + usage.cache_read_input_tokens * price(entry.cache_read_cost_per_token)
        + usage.cache_creation_input_tokens * price(entry.cache_write_cost_per_token)
    )


class StateCollector(Collector):
    """Reads everything that has a current value."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> list[Metric]:
        """Nothing is known before the first scrape; the registry would otherwise read once."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield from self._build()
        yield from self._work()
        yield from self._catalogue()
        yield from self._relay()
        yield from self._child()
        yield from self._instances()
        yield from self._store()
        for readings in filter(None, self._further()):
            for reading in readings():
                make = _counter if reading.is_counter else _gauge
                yield make(reading.name, reading.text, reading.value)

    def _further(self) -> Iterable[Callable[[], Iterable[Reading]] | None]:
        sources = self._sources
        return sources.stored, sources.cluster, sources.walls, sources.console, sources.tools

    def _build(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            f"{PREFIX}_build_info", "The release that runs; always 1.", labels=["version", "python"]
        )
        info.add_metric([__version__, platform.python_version()], 1)
        yield info
        demo = self._sources.is_demo_gateway
        yield _gauge("gateway_demo", "1 when answers are scripted: no gateway is configured.", demo)

    def _work(self) -> Iterator[Metric]:
        engine, log = self._sources.engine, self._sources.log
        places = engine.places
        yield _gauge("turns_running", "Turns that run.", engine.live.busy_count - places.waiting)
        yield _gauge("turns_in_line", "Turns that wait for a place in opencode.", places.waiting)
        yield _counter("turns_refused", "Messages refused: too many waited.", places.refused)
        yield _gauge(
            "turns_waiting", "Turns that wait for a client's answer.", engine.live.waiting_count
        )
        yield _gauge(
            "queued_events", "Client events behind running turns.", engine.live.queued_count
        )
        yield _gauge("event_streams_open", "Event streams with a reader.", log.reader_count())
        yield _gauge(
            "event_log_reader_lag_events",
            "Persisted events that the slowest open stream was not given yet.",
            max((self._lag(*position) for position in log.positions()), default=0),
        )
        yield _counter("event_log_events", "Events appended to the log.", log.events_appended)
        append = SummaryMetricFamily(
            f"{PREFIX}_event_log_append_duration_seconds",
            "Time from an append to its commit on disk; no reader sees an event before that.",
        )
        append.add_metric([], log.appends, log.append_seconds)
        yield append

    def _lag(self, session_id: str, position: int) -> int:
        actor = self._sources.engine.live.peek(session_id)
        return max(0, actor.last_seq - position) if actor is not None else 0

    def _catalogue(self) -> Iterator[Metric]:
        catalogue = self._sources.catalogue
        snapshot = catalogue.snapshot
        listed = len(snapshot.listed) if snapshot else 0
        known = len(snapshot.entries) if snapshot else 0
        counts = {"listed": listed, "hidden": known - listed}
        yield _labelled("catalogue_models", "Models of the gateway.", "visibility", counts)
        if snapshot is not None:
            yield _gauge(
                "catalogue_age_seconds",
                "Since the gateway answered this list.",
                snapshot.age_seconds,
            )
            failed = len(snapshot.failed_sources)
            yield _gauge("catalogue_failed_sources", "Sources that failed last time.", failed)
            yield _labelled(
                "catalogue_skipped",
                "Items and fields of the gateway's lists that could not be read.",
                "source",
                dict(snapshot.skipped_counts),
            )
        is_fresh = catalogue.snapshot is not None and catalogue.stale_seconds is None
        yield _gauge("catalogue_fresh", "1 when the last refresh succeeded.", is_fresh)
        yield _counter("catalogue_refreshes", "Reads of the gateway's lists.", catalogue.refreshes)
        yield _counter(
            "catalogue_refresh_failures", "Those that failed.", catalogue.failed_refreshes
        )

    def _relay(self) -> Iterator[Metric]:
        relay = self._sources.relay
        refused = CounterMetricFamily(
            f"{PREFIX}_model_requests_refused",
            "Model requests that were not sent, because their turn had made too many.",
            labels=["reason"],
        )
        for reason, count in relay.guard.refusals.items():
            refused.add_metric([reason], count)
        yield refused
        yield _gauge(
            "turn_model_requests",
            "Model requests of the running turn that has made the most.",
            relay.guard.largest_turn,
        )
        yield _gauge("turn_model_requests_limit", "Its bound, a setting.", relay.guard.max_per_turn)
        yield _counter(
            "relay_repaired_frames",
            "Events of streamed answers that were repaired for opencode.",
            relay.repaired_frames,
        )

    def _child(self) -> Iterator[Metric]:
        supervisor, pump = self._sources.supervisor, self._sources.pump
        states = {state: float(state == supervisor.state) for state in get_args(State)}
        yield _labelled("child_state", "1 for the state that the child is in.", "state", states)
        version = {supervisor.version or "unknown": 1}
        yield _labelled("child_info", "The child's version; always 1.", "version", version)
        yield _counter("child_boots", "Processes started.", supervisor.boot)
        is_pending = supervisor.restart_pending is not None
        yield _gauge(
            "child_restart_pending",
            "1 while opencode is to be replaced and is not yet.",
            is_pending,
        )
        connected = pump.is_connected(supervisor.current)
        yield _gauge("child_events_connected", "1 while its event stream is read.", connected)
        yield _counter("child_events", "Events read from it.", pump.events_seen)
        dropped = pump.events_dropped
        yield _counter(
            "child_events_dropped", "Those that could not be read; the log says why.", dropped
        )
        yield _counter("child_event_reconnects", "Event streams opened anew.", pump.reconnects)
        yield _gauge(
            "native_streams_open", "Readers of opencode's own event streams.", pump.feed.readers
        )
        yield _counter(
            "native_streams_cut",
            "Those that were too slow and were cut.",
            pump.feed.cut_readers,
        )
        retiring = supervisor.retiring
        yield _gauge(
            "child_retiring",
            "1 while a replaced opencode finishes its turns.",
            retiring is not None,
        )
        yield _counter("child_overdue", "Replaced ones whose turns were cut.", supervisor.overdue)
        stats = retiring.process_stats if retiring is not None else None
        yield _gauge(
            "child_retiring_resident_memory_bytes",
            "Resident size of that opencode.",
            stats.rss_bytes if stats is not None else 0,
        )
        process_stats = supervisor.process_stats
        if process_stats is not None:
            yield _gauge(
                "child_resident_memory_bytes", "Its resident size.", process_stats.rss_bytes
            )
            yield _gauge(
                "child_memory_maps", "Its memory maps; it hangs at 65530.", process_stats.maps
            )
            yield _gauge("child_threads", "Its threads.", process_stats.threads)
            yield _counter("child_cpu_seconds", "Its CPU time.", process_stats.cpu_seconds)

    def _instances(self) -> Iterator[Metric]:
        instances = self._sources.instances
        generation = self._sources.config_file.generation
        yield _counter("config_generations", "Writes of opencode's config file.", generation)
        yield _gauge("instances_loaded", "Directories loaded in the child.", instances.loaded())
        yield _gauge("instances_busy", "Those in use.", instances.busy())
        yield _counter("instance_loads", "Directories loaded, reloads included.", instances.loads)
        yield _counter("instance_unloads", "Directories disposed.", instances.unloads)

    def _store(self) -> Iterator[Metric]:
        database = self._sources.database
        yield _gauge("store_queued_writes", "Writes before the writer.", database.queued_writes)
        yield _gauge(
            "store_size_bytes", "Size of the SQLite file and its WAL.", database.size_bytes()
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for item, value in values.items():
        family.add_metric([item], value)
    return family
