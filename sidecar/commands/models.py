"""`opencode-sidecar models`: what can be picked, from where each number comes, and what is hidden why."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from sidecar.commands import output
from sidecar.commands.gateway import as_command_error, load_settings, open_gateway, read_catalogue
from sidecar.commands.model_table import Row, print_hidden, print_listed
from sidecar.config import RuntimesSettings, env_name
from sidecar.errors import SidecarError
from sidecar.http.runtime_models import NOT_CONFIGURED
from sidecar.masking import masked_urls
from sidecar.sdk import (
    AsyncClient,
    AuthenticationError,
    InvalidSettingError,
    MissingKeyError,
    ModelPage,
    ModelsError,
    PermissionDeniedError,
    RequestRefusedError,
    Runtime,
    UnknownRuntimeError,
    Upstream,
    make_page,
)
from sidecar.sdk.opencode import SIDECAR
from sidecar.sdk.shapes import data_of, read_item

OWN = "opencode"
_FOR_PROGRAMS = re.compile(r" \(or pass [^)]*\)")


@dataclass(frozen=True, slots=True)
class Target:
    """A running sidecar to ask; `url` None means to look at the gateway oneself."""

    url: str | None
    api_key: str | None

    @classmethod
    def of(cls, url: str | None, environ: Mapping[str, str]) -> Target:
        """Take the option, else the environment."""
        return cls(
            url or environ.get("SIDECAR_BASE_URL") or None, environ.get("SIDECAR_API_KEY") or None
        )


@dataclass(slots=True)
class Listing:
    """What was found out, of one or more runtimes."""

    rows: list[Row] = field(default_factory=list)
    runtimes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Runtime -> `{"status": "ok" | "error" | "unconfigured", "from", "models" or "message"}`."""
    remarks: list[str] = field(default_factory=list)

    def add(self, runtime: str, source: str, rows: list[Row]) -> None:
        """Note a list."""
        self.rows += rows
        listed = sum(row.listed for row in rows)
        self.runtimes[runtime] = {"status": "ok", "from": source, "models": listed}


def main(
    *, runtime: str | None, is_all: bool, show_hidden: bool, url: str | None, as_json: bool
) -> int:
    """Run the command; return the exit code. Raises CommandError."""
    output.quiet_logs(is_verbose=False)
    target = Target.of(url, os.environ)
    if is_all and runtime is not None:
        raise output.CommandError(
            "--all and --runtime exclude each other", exit_code=output.EXIT_USAGE
        )
    asked = _list_all(target) if is_all else _list_one(runtime or OWN, target)
    listing = asyncio.run(asked)
    if as_json:
        _print_json(listing, show_hidden=show_hidden)
    else:
        _print_tables(listing, show_hidden=show_hidden, has_runtimes=is_all)
    has_failed = any(told["status"] == "error" for told in listing.runtimes.values())
    return output.EXIT_FAILED if has_failed else output.EXIT_OK


async def _list_one(runtime: str, target: Target) -> Listing:
    listing = Listing()
    try:
        if runtime == OWN and target.url is None:
            await _add_gateway(listing)
        else:
            async with _client(target) as client:
                _add_page(listing, await client.models.list(runtime), target)
    except SidecarError as error:
        raise as_command_error(error) from error
    except ModelsError as error:
        raise output.CommandError(_for_people(error), exit_code=_exit_code(error)) from error
    return listing


async def _list_all(target: Target) -> Listing:
    listing = Listing()
    has_gateway = bool(os.environ.get("LITELLM_BASE_URL"))
    async with _client(target) as client:
        if target.url is None and has_gateway:
            try:
                await _add_gateway(listing)
            except SidecarError as error:
                listing.runtimes[OWN] = {"status": "error", "message": error.message}
        answers = await client.models.list_all(
            r for r in client.runtimes if r not in listing.runtimes
        )
    for page in answers.pages.values():
        _add_page(listing, page, target)
    for name, failure in answers.errors.items():
        listing.runtimes[name] = {"status": "error", "message": _for_people(failure)}
    for name, missing in answers.unconfigured.items():
        listing.runtimes[name] = {"status": "unconfigured", "message": _for_people(missing)}
    return listing


async def _add_gateway(listing: Listing) -> None:
    settings = load_settings().gateway
    async with open_gateway(settings) as access:
        snapshot = await read_catalogue(access, settings)
    shown = [Row.of_entry(snapshot.entries[model_id]) for model_id in snapshot.listed]
    hidden = sorted((e for e in snapshot.entries.values() if not e.listed), key=lambda e: e.id)
    source = "the demo gateway" if access.is_demo else f"the gateway {masked_urls(access.url)}"
    listing.add(OWN, source, [*shown, *map(Row.of_entry, hidden)])
    if access.is_demo:
        listing.remarks.append(
            "LITELLM_BASE_URL is not set: these are the models of the embedded DEMO gateway"
        )
    for name, why in snapshot.failed_sources.items():
        listing.remarks.append(f"source {name} failed, its numbers are missing: {why}")


def _add_page(listing: Listing, page: ModelPage, target: Target) -> None:
    is_sidecar = page.runtime == OWN and target.url is not None
    source = "sidecar" if is_sidecar else page.runtime
    where = f"the sidecar {target.url}" if is_sidecar else f"the API of {page.runtime}"
    listing.add(page.runtime, where, [Row.of_info(model, source=source) for model in page])
    if is_sidecar:
        listing.remarks.append(
            f"asked the sidecar at {target.url}: prices, hidden models and the source of each number "
            "are only known when the gateway is asked (LITELLM_BASE_URL without SIDECAR_BASE_URL)"
        )


def _client(target: Target) -> AsyncClient:
    """Keys by the settings' names (so `_FILE` works); runtimes without one through the sidecar, if any."""
    settings = RuntimesSettings()
    keys = {
        name: key.get_secret_value() for name, key in _keys(settings).items() if key is not None
    }
    try:
        if target.url is None:
            return AsyncClient(api_keys=keys)
        through = [_ThroughSidecar(name) for name in _keys(settings) if name not in keys]
        keys |= {OWN: target.api_key} if target.api_key else {}
        return AsyncClient(api_keys=keys, base_urls={OWN: target.url}, runtimes=through)
    except InvalidSettingError as error:
        message = error.message.partition("; or pass")[0]
        raise output.CommandError(message, exit_code=output.EXIT_USAGE) from error


def _keys(settings: RuntimesSettings) -> dict[str, SecretStr | None]:
    return {"anthropic": settings.anthropic_api_key, "cursor": settings.cursor_api_key}


class _ThroughSidecar(Runtime):
    """A runtime whose key only the sidecar holds."""

    endpoints = (SIDECAR,)

    def __init__(self, name: str) -> None:
        self.name = name

    async def list_models(self, upstream: Upstream) -> ModelPage:
        """Return `GET /v1/models?runtime=`. Raises MissingKeyError when the sidecar has no key either."""
        try:
            body = await upstream.get_json("/v1/models", query={"runtime": self.name})
        except RequestRefusedError as error:
            if error.error_code != NOT_CONFIGURED:
                raise
            variable = env_name(RuntimesSettings, f"{self.name}_api_key")
            raise MissingKeyError(
                f"no key for it, neither here nor at the sidecar: set {variable}", runtime=self.name
            ) from error
        return make_page(
            self.name,
            data_of(self.name, body),
            lambda item: read_item(item, runtime=self.name),
            has_more=body.get("has_more") is True,
        )


def _for_people(error: ModelsError) -> str:
    """Return the error's message without advice that is for programs."""
    return _FOR_PROGRAMS.sub("", str(error))


def _exit_code(error: ModelsError) -> int:
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return output.EXIT_REFUSED
    if isinstance(error, UnknownRuntimeError | MissingKeyError | InvalidSettingError):
        return output.EXIT_USAGE
    return output.EXIT_UNAVAILABLE


def _print_json(listing: Listing, *, show_hidden: bool) -> None:
    rows = [row.as_json() for row in listing.rows if row.listed or show_hidden]
    output.print_json({"models": rows, "runtimes": listing.runtimes, "remarks": listing.remarks})


def _print_tables(listing: Listing, *, show_hidden: bool, has_runtimes: bool) -> None:
    console, remarks = output.stdout(), output.stderr()
    shown = [row for row in listing.rows if row.listed]
    hidden = [row for row in listing.rows if not row.listed]
    print_listed(console, shown, has_runtimes=has_runtimes)
    if hidden and show_hidden:
        console.print()
        print_hidden(console, hidden)
    for remark in listing.remarks:
        remarks.print(f"note: {remark}", style="yellow", markup=False, soft_wrap=True)
    if hidden and not show_hidden:
        remarks.print(f"{len(hidden)} more are hidden; --hidden says why", style="dim")
    for name, told in listing.runtimes.items() if has_runtimes else ():
        if told["status"] != "ok":
            is_error = told["status"] == "error"
            text = f"{'failed' if is_error else 'not asked'}: {told['message']}"
            prefix = "" if text.startswith(f"failed: {name}:") else f"{name} "
            style = "red" if is_error else "dim"
            remarks.print(prefix + text, style=style, markup=False, soft_wrap=True)
