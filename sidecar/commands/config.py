"""`opencode-sidecar config`: the effective settings and where each comes from; secrets are masked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import SecretStr
from rich.markup import escape
from rich.table import Table

from sidecar.commands import output
from sidecar.commands.gateway import load_settings
from sidecar.config import Settings, SettingsGroup, env_name, is_secret, meanings
from sidecar.masking import masked_urls
from sidecar.settings_table import markdown_table

_MASK = "***"
_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def main(*, as_markdown: bool, as_schema: bool, as_json: bool) -> int:
    """Run the command; return the exit code. Raises CommandError when the settings cannot be used."""
    if as_markdown:
        output.print_text(markdown_table())
    elif as_schema:
        output.print_json(json_schema())
    else:
        rows = list(effective(load_settings(), os.environ))
        if as_json:
            output.print_json({"settings": rows})
        else:
            _print_table(rows)
    return output.EXIT_OK


def effective(settings: Settings, environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield `{variable, group, value, default, source, file, is_secret, meaning}` for every setting.

    `source` is `default`, `environment` or `file`; the value of a secret is `***`, null when unset.
    """
    given = {name.upper() for name, value in environ.items() if value}
    for group_name in Settings.model_fields:
        group: SettingsGroup = getattr(settings, group_name)
        for field_name, field in type(group).model_fields.items():
            variable = env_name(type(group), field_name)
            file = environ.get(f"{variable}_FILE") if is_secret(field) else None
            source = "environment" if variable in given else "file" if file else "default"
            yield {
                "variable": variable,
                "group": group_name,
                "value": _plain(getattr(group, field_name)),
                "default": _plain(field.get_default(call_default_factory=True, validated_data={})),
                "source": source,
                "file": file if source == "file" else None,
                "is_secret": is_secret(field),
                "meaning": meanings()[variable],
            }


def json_schema() -> dict[str, Any]:
    """Return JSON Schema for the settings as an object of environment variables."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for field in Settings.model_fields.values():
        group = field.annotation
        assert isinstance(group, type)
        assert issubclass(group, SettingsGroup)
        schema = group.model_json_schema(by_alias=False)
        definitions |= schema.get("$defs", {})
        for field_name, described in schema["properties"].items():
            variable = env_name(group, field_name)
            properties[variable] = {k: v for k, v in described.items() if k != "title"}
            properties[variable]["description"] = meanings()[variable]
            if is_secret(group.model_fields[field_name]):
                properties[f"{variable}_FILE"] = {
                    "type": "string",
                    "description": f"File that holds {variable}; only one of the two may be set.",
                }
    return {
        "$schema": _SCHEMA_DIALECT,
        "title": "opencode-sidecar settings",
        "description": "Environment variables. Arrays are written comma-separated, objects as JSON.",
        "type": "object",
        "properties": properties,
        "patternProperties": {"^(?!SIDECAR_)": {}},
        "additionalProperties": False,
        **({"$defs": definitions} if definitions else {}),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return _MASK
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return masked_urls(str(value))


def _print_table(rows: list[dict[str, Any]]) -> None:
    console = output.stdout()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("VARIABLE", style="cyan", no_wrap=True)
    table.add_column("VALUE", overflow="fold")
    table.add_column("FROM", overflow="fold")
    group = None
    for row in rows:
        if group not in {None, row["group"]}:
            table.add_row()
        group = row["group"]
        source = f"file {row['file']}" if row["source"] == "file" else row["source"]
        style = "dim" if row["source"] == "default" else None
        table.add_row(row["variable"], escape(_shown(row["value"])), escape(source), style=style)
    console.print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    if value in ([], {}, ""):
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return ",".join(value)
    return str(value)
