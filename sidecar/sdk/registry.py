"""Which runtimes there are: the built-in ones, those given to the client, those that packages add."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from sidecar.sdk.anthropic import AnthropicRuntime
from sidecar.sdk.cursor import CursorRuntime
from sidecar.sdk.errors import InvalidSettingError, UnknownRuntimeError
from sidecar.sdk.gemini import GeminiRuntime
from sidecar.sdk.opencode import OpencodeRuntime
from sidecar.sdk.runtime import Runtime

ENTRY_POINT_GROUP = "opencode_sidecar.runtimes"

_BUILT_IN: tuple[type[Runtime], ...] = (
    AnthropicRuntime,
    CursorRuntime,
    OpencodeRuntime,
    GeminiRuntime,
)


class Registry:
    """Finds adapters by name. `extra` ones win over built-in ones, because the caller wrote them; an
    installed package cannot replace either, because it would then be handed their keys.
    """

    def __init__(self, extra: Iterable[Runtime] = ()) -> None:
        self._runtimes: dict[str, Runtime] = {kind.name: kind() for kind in _BUILT_IN}
        self._runtimes |= {runtime.name: runtime for runtime in extra}
        self._entries: Mapping[str, EntryPoint] | None = None

    def names(self) -> tuple[str, ...]:
        """Every name that `get` knows; adapters of packages are found, not imported."""
        return tuple(dict.fromkeys([*self._runtimes, *self._found()]))

    def get(self, name: str) -> Runtime:
        """Return the adapter. Raises UnknownRuntimeError, or InvalidSettingError for a broken one."""
        if name in self._runtimes:
            return self._runtimes[name]
        if name in self._found():
            self._runtimes[name] = _load(self._found()[name])
            return self._runtimes[name]
        known = self.names()
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownRuntimeError(
            f"there is no runtime {name[:100]!r}; known: {', '.join(known)}.{hint}",
            known=known,
        )

    def check_endpoint_names(self, used: Iterable[str]) -> None:
        """Refuse names in `api_keys` or `base_urls` that no adapter declares: a misspelt one would
        silently fall back to the environment. Raises InvalidSettingError.
        """
        wanted = set(used)
        known = self._endpoint_names()
        if wanted <= known:
            return
        for name in self._found():
            with contextlib.suppress(InvalidSettingError):  # raised when that runtime is used
                self.get(name)
        known = self._endpoint_names()
        if unknown := wanted - known:
            raise InvalidSettingError(
                f"api_keys and base_urls: unknown name {sorted(unknown)[0]!r}; "
                f"known: {', '.join(sorted(known))}"
            )

    def _endpoint_names(self) -> set[str]:
        return {e.name for runtime in self._runtimes.values() for e in runtime.endpoints}

    def _found(self) -> Mapping[str, EntryPoint]:
        if self._entries is None:
            self._entries = {e.name: e for e in entry_points(group=ENTRY_POINT_GROUP)}
        return self._entries


def _load(entry: EntryPoint) -> Runtime:
    try:
        made = entry.load()
        runtime = made() if isinstance(made, type) else made
    except Exception as error:
        raise InvalidSettingError(
            f"the adapter {entry.value} cannot be loaded: {type(error).__name__}",
            runtime=entry.name,
        ) from error
    if not isinstance(runtime, Runtime) or runtime.name != entry.name:
        raise InvalidSettingError(
            f"the adapter {entry.value} must be a sidecar.sdk.Runtime named {entry.name!r}",
            runtime=entry.name,
        )
    return runtime
