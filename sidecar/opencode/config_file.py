"""The file that `OPENCODE_CONFIG` names. The sidecar owns it; every write is one generation.

opencode re-reads it whenever a directory is loaded, so adding a model is a write and nothing else. A file
that is broken at the moment of a load poisons that directory until the child restarts; hence render,
validate, write beside, rename, and never anything in between.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from sidecar.atomic_file import BY_UMASK, replace_file
from sidecar.errors import ChildError
from sidecar.naming import GATEWAY_PROVIDER, ModelRef, child_id
from sidecar.opencode.provider import (
    RELAY_TOKEN_REFERENCE,
    RELAY_URL_REFERENCE,
    ModelEntry,
    model_config,
    provider_config,
)
from sidecar.wire import opencode as wire
from sidecar.wire.external_directory import OPEN, PERMISSION, Rule
from sidecar.wire.model_bounds import why_unusable
from sidecar.wire.problems import problems_of

AGENT = "sidecar"
"""The one agent of all prompts. What differs (model, system prompt, permissions, tools) travels with the
session and the prompt, so that no new agent ever needs a reload."""

MCP_REQUEST_MILLISECONDS = 600_000
"""Bound for one MCP tool call; opencode's own is 60 s. A server's own `timeout` wins."""

MAX_BYTES = 16 * 1024 * 1024
"""About thirty thousand models; more is a gateway gone mad."""

_PERMISSION: dict[str, Any] = {
    "*": "allow",  # no person can answer: a question would block the turn indefinitely
    "doom_loop": "allow",
    "question": "deny",
    "skill": {"*": "allow", "customize-opencode": "deny"},  # a kilobyte in every prompt
    "plan_enter": "deny",
    "plan_exit": "deny",
}

_log = structlog.get_logger(__name__)


class ConfigFile:
    """Renders, validates and replaces the file. `generation` counts the writes of this process.

    `refused` says, per gateway model that the last list had and the file has not, why it was left out.
    """

    def __init__(
        self, path: Path, *, plugins: Sequence[Path] = (), external: Sequence[Rule] = OPEN
    ) -> None:
        self._path = path
        self._plugins = plugins
        self._external = external
        self._lock = asyncio.Lock()
        self._models: Mapping[str, ModelEntry] = {}
        self.refused: Mapping[str, str] = {}
        self._default_model: str | None = None
        self._written = b""
        self.generation = 0

    def knows(self, model_id: str) -> bool:
        """Whether the current generation has that gateway model."""
        return model_id in self._models

    def entries(self) -> Mapping[str, ModelEntry]:
        """Return the models of the current generation; the mapping itself never changes."""
        return self._models

    async def register(
        self, models: Mapping[str, ModelEntry], *, default_model: str | None = None
    ) -> int:
        """Make `models` the whole list; return the generation that has it. Equal content writes nothing.

        A model that opencode could not read is left out and noted in `refused`. `default_model` serves
        opencode's own small calls (titles, summaries); without it, or where it is left out, the first
        model does. Raises ChildError when the result would not be a valid config, and OSError when it
        cannot be written; the old file and its models then stay.
        """
        refused = {
            name: why
            for name, entry in models.items()
            # What is in the file was looked at when it came: a look at all of them holds the event loop.
            if self._models.get(name) != entry and (why := _why_refused(entry)) is not None
        }
        if refused.items() - self.refused.items():
            _log.warning("models left out of opencode's config", refused=refused)
        kept = {name: entry for name, entry in models.items() if name not in refused}
        generation = await self._replace(kept, default_model if default_model in kept else None)
        self.refused = refused
        return generation

    async def rewrite(self) -> int:
        """Write the file anew even if nothing changed; return the generation."""
        self._written = b""
        return await self._replace(self._models, self._default_model)

    async def _replace(self, models: Mapping[str, ModelEntry], default: str | None) -> int:
        async with self._lock:
            content = await asyncio.to_thread(
                render,
                models,
                default_model=default,
                plugins=self._plugins,
                external=self._external,
            )
            if content != self._written or not self._path.exists():
                await asyncio.to_thread(_write, self._path, content)
                self._written = content
                self.generation += 1
                _log.info("opencode config written", generation=self.generation, models=len(models))
            self._models, self._default_model = models, default
            return self.generation


def render(
    models: Mapping[str, ModelEntry],
    *,
    default_model: str | None,
    plugins: Sequence[Path] = (),
    external: Sequence[Rule] = OPEN,
) -> bytes:
    """Return the file's bytes. Raises ChildError for anything that opencode would not load."""
    document: dict[str, Any] = {
        "enabled_providers": [GATEWAY_PROVIDER],
        "default_agent": AGENT,
        "snapshot": False,  # starts git for every step
        "share": "disabled",
        "autoupdate": False,
        "permission": _PERMISSION | {PERMISSION: dict(external)},
        # Programs of a workspace that opencode would start by itself, outside of the session's walls.
        "lsp": False,
        "formatter": False,
        "agent": {
            AGENT: {
                "mode": "primary",
                "description": "Runs the sessions of the sidecar.",
                "prompt": "You are an agent that works with the tools you are given.",
            },
            "title": {"disable": True},  # a model call per session for a name that is never shown
        },
        "provider": provider_config(models),
        "experimental": {"mcp_timeout": MCP_REQUEST_MILLISECONDS},
    }
    if plugins:
        document["plugin"] = [file.as_uri() for file in plugins]
    if default_model is None and models:
        default_model = min(models)
    if default_model is not None:
        ref = str(ModelRef(GATEWAY_PROVIDER, child_id(default_model)))
        document |= {"model": ref, "small_model": ref}
    content = _dump(document)
    try:
        wire.Config.model_validate_json(content)
    except ValidationError as error:
        raise ChildError(f"the model list makes no valid config: {_first_of(error)}") from error
    if len(content) > MAX_BYTES:
        raise ChildError(f"the model list makes a config of more than {MAX_BYTES} bytes")
    return content


def _why_refused(entry: ModelEntry) -> str | None:
    """Return why opencode could not read the model's entry, None when it can."""
    if (unusable := why_unusable(entry.id)) is not None:
        return unusable
    try:
        wire.Model.model_validate(model_config(entry))
    except ValidationError as error:
        return _first_of(error)
    return None


def _first_of(error: ValidationError) -> str:
    return str(problems_of(error)[0])


def _dump(document: dict[str, Any]) -> bytes:
    """Serialise with all `{env:` and `{file:` disarmed, except our own two references.

    opencode substitutes these in the raw text, wherever they stand: a gateway could otherwise read our
    files by the name of a model, or poison every directory with a missing one. Structural braces are
    followed by a quote or a brace, so only strings are touched; unescaped quotes cannot occur in a
    string, so only the two options are restored. One line, because with an indent Python's encoder is
    ten times slower, and every new model waits for it.
    """
    text = json.dumps(document, ensure_ascii=True)
    text = text.replace("{env:", r"\u007benv:").replace("{file:", r"\u007bfile:")
    for option, reference in (("baseURL", RELAY_URL_REFERENCE), ("apiKey", RELAY_TOKEN_REFERENCE)):
        disarmed = reference.replace("{", r"\u007b")
        text = text.replace(f'"{option}": "{disarmed}"', f'"{option}": "{reference}"', 1)
    return text.encode("ascii") + b"\n"


def _write(path: Path, content: bytes) -> None:
    # Not synced: whatever a power failure leaves is written anew before the child starts.
    replace_file(path, content, mode=BY_UMASK)
