"""Model names: look up, never guess.

Pure. A slash says nothing about the provider: `openai/gpt-4o` is usually one id of the gateway.
Every bug of the servers before us came from splitting at the first slash, so the only place that
takes a name apart is here, and it asks the catalogue first.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

GATEWAY_PROVIDER = "litellm"
"""The provider entry in opencode's config behind which all gateway models stand."""

_PREFIX = f"{GATEWAY_PROVIDER}/"
_RESERVED = frozenset(
    {
        *("constructor", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable"),
        *("toLocaleString", "toString", "valueOf", "__proto__"),
        *("__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__"),
    }
)
"""What every JavaScript object has. opencode 1.18.33 looks models up in plain objects, so that one model
of such an id makes every directory unloadable (test_odd_models)."""
STAND_IN = "sidecar:"
"""Stands before an id that opencode cannot hold as it is."""
_MAX_COMPARED = 500
"""Ids whose spelling is compared: comparing takes 10 ms for as many."""
_MAX_SUGGESTIONS = 3
_SUGGESTION_CUTOFF = 0.5


@dataclass(frozen=True, slots=True)
class ModelRef:
    """opencode's form of a model: provider and model id. The id keeps its slashes and colons."""

    provider: str
    model_id: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model_id}"

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read back what `str()` gave. Only for our own refs: a client's name goes to `qualify`."""
        provider, _, model_id = text.partition("/")
        return cls(provider, model_id)


class UnknownModelError(LookupError):
    """No rule resolves the name. `suggestions` holds up to three near matches, best first."""

    def __init__(self, name: str, suggestions: list[str]) -> None:
        super().__init__(name)
        self.name = name
        self.suggestions = suggestions

    def sentence(self, field: str = "model") -> str:
        """Return one sentence for the client: which field is wrong and what to do."""
        hint = f" Did you mean {', '.join(self.suggestions)}?" if self.suggestions else ""
        return (
            f"{field}: {self.name!r} is not offered by the gateway.{hint} GET /v1/models lists all."
        )


def child_id(model_id: str) -> str:
    """Return the id under which opencode holds a gateway model: the same, unless opencode cannot hold it.

    Reversible without any table: `gateway_id` is its inverse.
    """
    return f"{STAND_IN}{model_id}" if _needs_stand_in(model_id) else model_id


def gateway_id(child_id: str) -> str:
    """Return the gateway's id of a model that opencode calls `child_id`."""
    rest = child_id.removeprefix(STAND_IN)
    return rest if rest != child_id and _needs_stand_in(rest) else child_id


def _needs_stand_in(model_id: str) -> bool:
    """Whether opencode cannot hold the id, or the id looks like the stand-in of one that it cannot."""
    rest = model_id
    while rest.startswith(STAND_IN):
        rest = rest.removeprefix(STAND_IN)
    return rest in _RESERVED


def look_up(
    name: str,
    gateway_ids: Collection[str],
    *,
    aliases: Mapping[str, str] | None = None,
) -> ModelRef | None:
    """Return the one model that a client's name means, None when no rule resolves it.

    1. the whole name is a gateway id (so an id that really begins with `litellm/` wins as it is);
    2. one leading `litellm/` stripped, the rest is a gateway id;
    3. either form is an alias of a gateway id.
    """
    forms = dict.fromkeys((name, name.removeprefix(_PREFIX)))
    for form in forms:
        if form and form in gateway_ids:
            return ModelRef(GATEWAY_PROVIDER, form)
    for form in forms:
        target = (aliases or {}).get(form)
        if target is not None and target in gateway_ids:
            return ModelRef(GATEWAY_PROVIDER, target)
    return None


def qualify(
    name: str,
    gateway_ids: Collection[str],
    *,
    aliases: Mapping[str, str] | None = None,
    suggest_from: Iterable[str] | None = None,
) -> ModelRef:
    """Do what `look_up` does, or raise UnknownModelError with near matches.

    These come from `suggest_from`, by default all gateway ids.
    """
    ref = look_up(name, gateway_ids, aliases=aliases)
    if ref is None:
        known = gateway_ids if suggest_from is None else suggest_from
        raise UnknownModelError(name, near_matches(name.removeprefix(_PREFIX), known))
    return ref


def near_matches(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three ids a person may have meant: same last segment first, then by likeness."""
    ids = sorted(known)
    wanted = name.lower()
    tail = wanted.rsplit("/", 1)[-1]
    same_tail = [i for i in ids if tail and i.lower().rsplit("/", 1)[-1] == tail]
    containing = [i for i in ids if len(tail) > 3 and tail in i.lower()]
    merged = [*same_tail, *containing]
    if len(set(merged)) < _MAX_SUGGESTIONS:  # comparing spelling costs milliseconds for long lists
        by_lower = {i.lower(): i for i in reversed(ids[:_MAX_COMPARED])}
        alike = difflib.get_close_matches(wanted, by_lower, _MAX_SUGGESTIONS, _SUGGESTION_CUTOFF)
        merged += [by_lower[a] for a in alike]
    return list(dict.fromkeys(merged))[:_MAX_SUGGESTIONS]
