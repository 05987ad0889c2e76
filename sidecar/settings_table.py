"""The README's table of settings, from the settings themselves."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from sidecar.config import SettingsGroup, is_secret, meanings, variables


def markdown_table() -> str:
    """Return Markdown: a heading and a table for each group of settings."""
    parts = []
    for group, rows in itertools.groupby(variables(), key=lambda item: item[0]):
        parts.append(f"**{_title(group)}**\n\n| Variable | Default | Meaning |\n|---|---|---|")
        parts.append("\n".join(_row(name, field) for _, name, field in rows) + "\n")
    return "\n".join(parts)


def _title(group: type[SettingsGroup]) -> str:
    return (group.__doc__ or "").strip().rstrip(".")


def _row(name: str, field: FieldInfo) -> str:
    meaning = meanings()[name].replace("|", "\\|")
    also = " (or in the file named by `" + name + "_FILE`)" if is_secret(field) else ""
    return f"| `{name}` | {_default(field)} | {meaning}{also} |"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        value: Any = field.get_default(call_default_factory=True, validated_data={})
        return "the user's state dir" if isinstance(value, Path) else "empty"
    value = field.default
    if value is None:
        return "unset"
    if value in ((), ""):
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        return f"`{int(value)}`"
    return f"`{value}`"
