"""What the templates are given, made from what the parts say. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.gateway.catalogue import CatalogueEntry, CatalogueSnapshot
from sidecar.instruments import cost_usd
from sidecar.managed.sessions.service import typed_name
from sidecar.managed.turns.state import SessionRecord

_PER_MILLION = 1_000_000
SOURCES: Mapping[str, tuple[str, str]] = {
    "model_info": ("info", "/v1/model/info"),
    "model_group_info": ("group", "/model_group/info"),
    "models": ("list", "/v1/models"),
    "override": ("override", "SIDECAR_GATEWAY_OVERRIDES"),
}
"""Source of a number -> its short name, and what that stands for."""
_STATE_WORDS = {
    "idle": "idle",
    "running": "running",
    "rescheduling": "retrying",
    "waiting": "waits for an answer",
    "terminated": "ended",
}


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence at the top of the status page. `level` is ok, info, warn or bad."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a model, and its source: a key of SOURCES, empty where no source names it."""

    value: Any
    source: str


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model. Prices are USD per million tokens."""

    id: str
    name: str
    mode: str
    hidden_because: str
    can_be_tried: bool
    context: Fact
    output: Fact
    abilities: tuple[Fact, ...]
    input_price: Fact
    output_price: Fact
    cache_read_price: Fact
    cache_write_price: Fact


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session. `cost` is USD by today's prices, None when the model has none."""

    id: str
    title: str
    agent: str
    model: str
    state: str
    state_words: str
    created_at: str
    updated_at: str
    is_archived: bool
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    active_seconds: float
    cost: float | None


def notes(
    state: Mapping[str, Any], confinement: Mapping[str, Any], *, failed: int, turns: int
) -> list[Note]:
    """Return what an operator should know first, the worst first; one good word when there is nothing.

    `state` is what `/admin/state` answers; `failed` of the last ten minutes' `turns` failed.
    """
    found = [*_of_child(state["opencode"]), *_of_gateway(state["gateway"])]
    if confinement.get("level") != "full":
        level = "bad" if confinement.get("level") == "off" else "warn"
        lacks = "; ".join(str(lack) for lack in confinement.get("lacks") or ())
        found.append(Note(level, f"Agents are not fully confined: {lacks}."))
    if failed:
        found.append(Note("warn", f"{failed} of {turns} turns failed in the last ten minutes."))
    if not found:
        found.append(Note("ok", "Everything works."))
    if state["gateway"]["demo"]:
        text = (
            "This is the demo gateway: its answers are scripted. LITELLM_BASE_URL names a real one."
        )
        found.append(Note("info", text))
    return sorted(found, key=lambda note: ("bad", "warn", "ok", "info").index(note.level))


def _of_child(child: Mapping[str, Any]) -> Iterator[Note]:
    state = child["state"]
    if state == "failed":
        yield Note("bad", f"opencode cannot be kept running: {child['failure']}.")
    elif state == "degraded":
        yield Note("warn", "opencode does not answer its health check.")
    elif state != "ready":
        yield Note("warn", f"opencode is {state.replace('_', ' ')}; turns wait for it.")
    if child["restart_pending"]:
        yield Note(
            "warn", f"opencode is to be restarted when no turn runs: {child['restart_pending']}."
        )


def _of_gateway(gateway: Mapping[str, Any]) -> Iterator[Note]:
    if gateway["last_error"]:
        level = "warn" if gateway["listed"] else "bad"
        yield Note(level, f"The gateway's list of models cannot be read: {gateway['last_error']}.")
    elif not gateway["listed"]:
        yield Note("bad", "The gateway lists no model that can be used.")
    for source, error in gateway["failed_sources"].items():
        path = SOURCES.get(source, ("", source))[1]
        yield Note("warn", f"Limits or prices may be old: {path} cannot be read: {error}.")


def model_view(entry: CatalogueEntry) -> ModelView:
    """Return a model's row."""
    sources = entry.sources

    def fact(field: str, value: Any) -> Fact:
        return Fact(value, sources.get(field, "") if value is not None else "")

    def price(field: str, per_token: float | None) -> Fact:
        return fact(field, None if per_token is None else per_token * _PER_MILLION)

    return ModelView(
        id=entry.id,
        name=entry.display_name if entry.display_name != entry.id else "",
        mode=entry.mode or "",
        hidden_because=entry.hidden_because or "",
        can_be_tried=entry.is_usable and entry.listed,
        context=fact("max_input_tokens", entry.max_input_tokens),
        output=fact("max_output_tokens", entry.max_output_tokens),
        abilities=tuple(fact(field, word) for field, word in _abilities(entry)),
        input_price=price("input_cost_per_token", entry.input_cost_per_token),
        output_price=price("output_cost_per_token", entry.output_cost_per_token),
        cache_read_price=price("cache_read_cost_per_token", entry.cache_read_cost_per_token),
        cache_write_price=price("cache_write_cost_per_token", entry.cache_write_cost_per_token),
    )


def _abilities(entry: CatalogueEntry) -> list[tuple[str, str]]:
    """Return (field, word) of what the model can do."""
    efforts = ", ".join(entry.reasoning_efforts)
    can = [
        ("supports_tools", "tools", entry.supports_tools),
        (
            "supports_reasoning",
            f"reasoning ({efforts})" if efforts else "reasoning",
            entry.supports_reasoning,
        ),
        ("supports_structured_outputs", "structured", entry.supports_structured_outputs),
    ]
    kinds = [("input_modalities", kind) for kind in entry.input_modalities if kind != "text"]
    return [(field, word) for field, word, has_it in can if has_it] + kinds


def search(
    snapshot: CatalogueSnapshot, query: str
) -> tuple[list[CatalogueEntry], list[CatalogueEntry]]:
    """Return the listed and the hidden models that have every word of `query`, each in the order shown.

    Looked for in id, name, mode, abilities and the reason for hiding. A gateway may list thousands: call it
    in a thread.
    """
    words = query.lower().split()
    found = {
        id_: entry for id_, entry in snapshot.entries.items() if not words or _has(entry, words)
    }
    listed = [found.pop(id_) for id_ in snapshot.listed if id_ in found]
    return listed, sorted(found.values(), key=lambda entry: entry.id)


def _has(entry: CatalogueEntry, words: Sequence[str]) -> bool:
    abilities = " ".join(word for _, word in _abilities(entry))
    reason = entry.hidden_because or ""
    text = f"{entry.id} {entry.display_name} {entry.mode or ''} {abilities} {reason}".lower()
    return all(word in text for word in words)


def session_view(record: SessionRecord, snapshot: CatalogueSnapshot | None) -> SessionView:
    """Return a session's row."""
    model = typed_name(record.model_ref) if record.model_ref else ""
    entry = snapshot.find(model) if snapshot and model else None
    usage = record.usage
    has_price = entry is not None and entry.input_cost_per_token is not None
    return SessionView(
        id=record.id,
        title=record.body.get("title") or "",
        agent=str(record.agent.get("name", "")),
        model=model,
        state=record.state,
        state_words=_STATE_WORDS[record.state],
        created_at=record.created_at,
        updated_at=record.updated_at,
        is_archived=record.archived_at is not None,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cache_read_input_tokens + usage.cache_creation_input_tokens,
        output_tokens=usage.output_tokens,
        active_seconds=record.active_us / 1e6,
        cost=cost_usd(entry, usage) if entry is not None and has_price else None,
    )
